"""What the tunnels of one run share: a directory, a certificate, the target, and two places."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from bench.process import Cores, Program, free_port
from bench.tunnel.place import Place

__all__ = ["DOMAIN", "HOST", "ROOT", "Ground"]

DOMAIN: Final = "bench.test"
# The name that every server's certificate has, and Heim's backend.
HOST: Final = f"sink.ssh.{DOMAIN}"
# Where `python -m bench...` is started.
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Ground:
    """The surroundings. The near place has the load and the clients, the far one the servers."""

    directory: Path
    near: Place
    far: Place
    # Where the target runs: beside the servers, on the load's core.
    behind: Place
    target: Program
    target_port: int

    @classmethod
    def open(cls, directory: Path, near: Place, far: Place, behind: Place) -> Ground:
        """Make the certificate (ECDSA P-256) and start the target."""
        directory.mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        issued = authority.issue_cert(
            HOST, f"*.{DOMAIN}", far.address, key_type=trustme.KeyType.ECDSA
        )
        certificate = issued.cert_chain_pems[0].bytes()
        key = issued.private_key_pem.bytes()
        (directory / "tls.crt").write_bytes(certificate)
        (directory / "tls.key").write_bytes(key)
        (directory / "tls.pem").write_bytes(certificate + key)
        authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        port = free_port()
        target = behind.start(
            [*python("bench.tunnel.target"), "127.0.0.1", str(port), str(directory / "floods")],
            directory / "target.output",
            port,
        )
        return cls(directory, near, far, behind, target, port)

    @classmethod
    def loopback(cls, directory: Path, cores: Cores) -> Ground:
        """Everything on 127.0.0.1: servers on one core, all else on the other."""
        near = Place(cores.load)
        return cls.open(directory, near, Place(cores.server), near)

    def room(self, name: str) -> Path:
        """A directory for one tunnel's files."""
        path = self.directory / name
        path.mkdir()
        return path

    def pkcs12(self) -> Path:
        """The certificate as programs on native-tls want it; its password is "bench"."""
        path = self.directory / "tls.p12"
        command = ["openssl", "pkcs12", "-export", "-passout", "pass:bench", "-out", str(path)]
        command += ["-in", str(self.directory / "tls.pem")]
        subprocess.run(command, check=True, timeout=10)
        return path


def python(module: str) -> list[str]:
    """The command that runs a module of ours with this interpreter."""
    return [sys.executable, "-m", module]
