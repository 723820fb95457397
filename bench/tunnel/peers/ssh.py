"""`ssh -L`: OpenSSH at both ends with keys of the run; one connection, a channel per stream."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from pathlib import Path

from bench.process import free_port
from bench.tunnel.ground import Ground
from bench.tunnel.peers.base import Missing, Tunnel
from bench.tunnel.stream import Way

__all__ = ["start"]

_SSHD = Path("/usr/sbin/sshd")


def start(ground: Ground) -> Tunnel:
    """sshd's defaults, whatever cipher the two agree on."""
    if not _SSHD.exists() or shutil.which("ssh") is None:
        raise Missing("ssh: Debian's openssh-server and openssh-client")
    room = ground.room("ssh")
    port, local = free_port(), free_port()
    host_key, user_key = _key(room / "host"), _key(room / "user")
    # sshd refuses to start without its empty directory, which the service's start makes.
    Path("/run/sshd").mkdir(exist_ok=True)
    config = room / "sshd_config"
    config.write_text(f"""\
Port {port}
ListenAddress {ground.far.address}
HostKey {host_key}
AuthorizedKeysFile {user_key}.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
AllowTcpForwarding yes
MaxSessions 1000
""")
    server = ground.far.start([str(_SSHD), "-D", "-e", "-f", str(config)], room / "output", port)
    forward = f"127.0.0.1:{local}:127.0.0.1:{ground.target_port}"
    known = room / "known"
    known.write_text(f"[{ground.far.address}]:{port} {host_key.with_suffix('.pub').read_text()}")
    command = ["ssh", "-F", "none", "-N", "-T", "-L", forward, "-i", str(user_key), "-p", str(port)]
    for option in (
        f"UserKnownHostsFile={known}",
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "Compression=no",
    ):
        command += ["-o", option]
    command += [f"{getpass.getuser()}@{ground.far.address}"]
    client = ground.near.start(command, room / "client.output", local)
    return Tunnel("ssh -L", Way(local), server, client)


def _key(path: Path) -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", str(path)]
    subprocess.run(command, check=True, timeout=10)
    return path
