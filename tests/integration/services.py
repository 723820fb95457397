"""Real TCP services on loopback for tests of the tunnel: sshd, PostgreSQL and Redis from Debian."""

from __future__ import annotations

import asyncio
import getpass
import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from heim_proxy.demo.loopback import free_port
from tests.fakes.real import require

__all__ = [
    "Postgres",
    "Redis",
    "Sshd",
    "accepts",
    "finished",
    "postgres",
    "redis",
    "sshd",
    "until_it_listens",
]

START_DEADLINE_S = 20.0

SSHD_CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host_key
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
AuthorizedKeysFile {directory}/user_key.pub
AllowTcpForwarding yes
MaxStartups 100
MaxSessions 100
Subsystem sftp internal-sftp
"""

SSH_CONFIGURATION = """\
Host *
  User {user}
  IdentityFile {directory}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {directory}/known_hosts
  StrictHostKeyChecking accept-new
  BatchMode yes
  ConnectTimeout 20
"""


@dataclass(frozen=True)
class Sshd:
    """A running OpenSSH server; `client_config` lets this user in."""

    port: int
    client_config: Path

    @property
    def upstream(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def sshd(directory: Path) -> AsyncIterator[Sshd]:
    """OpenSSH on loopback that lets in whoever runs the tests, by a key of their own."""
    program = require("sshd") if shutil.which("sshd") else require("/usr/sbin/sshd")
    directory.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        # Where a privileged sshd locks its child up; distributions make it in their init script.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host_key", "user_key"):
        await finished(
            require("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)
        )
    port = free_port(18022)
    server_config, client_config = directory / "sshd_config", directory / "ssh_config"
    server_config.write_text(SSHD_CONFIGURATION.format(port=port, directory=directory))
    client_config.write_text(SSH_CONFIGURATION.format(user=getpass.getuser(), directory=directory))
    with (directory / "sshd.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, "-D", "-e", "-f", str(server_config), stderr=log
        )
    async with until_it_listens(process, port, directory / "sshd.log"):
        yield Sshd(port, client_config)


@dataclass(frozen=True)
class Postgres:
    """A running PostgreSQL with the superuser `heim`, trusted on loopback."""

    port: int

    @property
    def upstream(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def postgres() -> AsyncIterator[Postgres]:
    """PostgreSQL on loopback. It refuses to run as root, so root runs it as `postgres`."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    initdb = require(str(programs[-1] / "initdb") if programs else "initdb")
    server = require(str(programs[-1] / "postgres") if programs else "postgres")
    owner = "postgres" if os.geteuid() == 0 else None
    # Not below pytest's directory, which is root's alone.
    directory = Path(tempfile.mkdtemp(prefix="heim-postgres-"))
    try:
        if owner is not None:
            account = pwd.getpwnam(owner)
            os.chown(directory, account.pw_uid, account.pw_gid)
        data = str(directory / "data")
        await finished(
            initdb, "-D", data, "-U", "heim", "-A", "trust", "--no-sync", "--locale=C", user=owner
        )
        port = free_port(18432)
        log = directory / "log"
        with log.open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(directory),
                "-F", stdout=stderr, stderr=stderr, cwd=directory, user=owner,
            )  # fmt: skip
        async with until_it_listens(process, port, log):
            yield Postgres(port)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Redis:
    """A running Redis that keeps nothing."""

    port: int

    @property
    def upstream(self) -> str:
        return f"127.0.0.1:{self.port}"


@asynccontextmanager
async def redis(directory: Path) -> AsyncIterator[Redis]:
    """Redis on loopback."""
    program = require("redis-server")
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port(18379)
    log = directory / "redis.log"
    with log.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            cwd=directory, stdout=stdout, stderr=stdout,
        )  # fmt: skip
    async with until_it_listens(process, port, log):
        yield Redis(port)


@asynccontextmanager
async def until_it_listens(
    process: asyncio.subprocess.Process, port: int, log: Path
) -> AsyncIterator[None]:
    """Wait until a server accepts connections; end it after the block. `log` is what it says."""
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            while not await accepts(port):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def accepts(port: int) -> bool:
    """Whether something listens there."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def finished(*command: str, user: str | None = None) -> bytes:
    """Run a command of the set-up to its end; fails with what it said when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        user=user,
    )
    async with asyncio.timeout(START_DEADLINE_S):
        out, _ = await process.communicate()
    assert process.returncode == 0, f"{command[0]}: {out.decode(errors='replace')}"
    return out
