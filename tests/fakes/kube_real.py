"""A real etcd and kube-apiserver, when KUBEBUILDER_ASSETS says where their binaries are.

`setup-envtest` downloads both. Where only Debian can be reached: `etcd` is in etcd-server, and
kube-apiserver 1.20.2 can be built (five minutes) from bookworm's source package `kubernetes`, with
golang-1.19; its `reflect2` reads Go's maps as Go 1.17 laid them out, and must be taught 1.18's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

__all__ = ["RealKube", "missing"]

START_S = 60.0
TOKEN = "secret-token"


def missing() -> str:
    """Why there is no real API server here, "" when there is one."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        return "KUBEBUILDER_ASSETS is not set: no real kube-apiserver to compare the fake with"
    for name in ("etcd", "kube-apiserver"):
        if not os.access(Path(assets) / name, os.X_OK):
            return f"KUBEBUILDER_ASSETS={assets} has no {name}"
    return ""


class RealKube:
    """Both programs, on free ports, in a folder of their own; `start` blocks until ready."""

    def __init__(self) -> None:
        self._assets = Path(os.environ["KUBEBUILDER_ASSETS"])
        self._folder = Path(tempfile.mkdtemp(prefix="heim-kube-"))
        self._programs: list[subprocess.Popen[bytes]] = []
        self._etcd_port, peer, self._port = free_ports(3)
        self._peer = peer
        self.version = ""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def ca_file(self) -> str:
        return str(self._folder / "certs" / "apiserver.crt")

    def start(self) -> None:
        folder = self._folder
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        peer = f"http://127.0.0.1:{self._peer}"
        self._run(
            "etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        )  # fmt: skip
        (folder / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\n')
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / "account.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        self._begin()
        self._wait()

    def _begin(self) -> None:
        folder = self._folder
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._run(
            "kube-apiserver", f"--etcd-servers={etcd}", f"--cert-dir={folder / 'certs'}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self._port}", f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'account.pem'}",
            f"--service-account-signing-key-file={folder / 'account.pem'}",
            # A pod would need a controller; nobody runs here.
            "--disable-admission-plugins=ServiceAccount",
        )  # fmt: skip

    async def restart(self) -> None:
        """End kube-apiserver as a crash would, and start it again."""

        def work() -> None:
            server = self._programs.pop()
            server.kill()
            server.wait()
            self._begin()
            self._wait()

        await asyncio.to_thread(work)

    def _run(self, name: str, *flags: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._programs.append(
                subprocess.Popen(
                    [str(self._assets / name), *flags], stdout=log, stderr=log, cwd=self._folder
                )
            )

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            for program in self._programs:
                if program.poll() is not None:
                    raise RuntimeError(f"ended at start; see {self._folder}")
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
                if self.ask("GET", "/readyz")[0] == 200:
                    told = json.loads(self.ask("GET", "/version")[1])
                    self.version = str(told["gitVersion"])
                    return
            time.sleep(0.2)
        raise RuntimeError(f"not ready after {START_S:g} s; see {self._folder}")

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """A request past our own client."""
        trust = ssl.create_default_context(cafile=self.ca_file)
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=5, context=trust)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    async def compact(self) -> None:
        """Compact etcd at its current revision, over its JSON gateway."""

        def post(path: str, body: object) -> dict[str, object]:
            connection = http.client.HTTPConnection("127.0.0.1", self._etcd_port, timeout=5)
            with contextlib.closing(connection):
                connection.request("POST", path, json.dumps(body))
                told: dict[str, object] = json.loads(connection.getresponse().read())
                return told

        def work() -> None:
            nothing = base64.b64encode(b"\0").decode()
            header = post("/v3/kv/range", {"key": nothing})["header"]
            assert isinstance(header, dict)
            post("/v3/kv/compaction", {"revision": header["revision"], "physical": True})

        await asyncio.to_thread(work)

    def stop(self) -> None:
        # Nothing of theirs is worth a farewell, and a test that timed out has no time for one.
        for program in self._programs:
            program.kill()
        for program in self._programs:
            program.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
