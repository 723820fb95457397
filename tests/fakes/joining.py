"""A login host that machines join, in a thread: it answers as the contract says, or as it is told.

`host.script(JOIN_PATH, Canned(403, …))` is used up first, in order; then it lets everybody in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_wire.agents import ENROL_PATH, ENROLLED_PATH, JOIN_PATH
from tests.fakes.certificates import CA_PEM, make_pair
from tests.fakes.lane_host import Root

__all__ = ["Canned", "JoinHost", "join_host", "problem"]

NAME = "auth.localhost"


@dataclass
class Canned:
    """An answer as it shall be given; `drop` hangs up instead."""

    status: int
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False


def problem(status: int, code: str, detail: str, hint: str = "", **more: Any) -> Canned:
    """A refusal as the proxy words it."""
    body = {"status": status, "code": code, "detail": detail, "hint": hint, "request_id": "01JX"}
    return Canned(status, body | more, {"Content-Type": "application/problem+json"})


class JoinHost:
    """What it was asked, and what it says next."""

    def __init__(self, directory: Path) -> None:
        self.root = Root()
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_text(CA_PEM)
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.heads: list[dict[str, str]] = []
        self.port = 0
        # What replaces fields of right answers; None takes one out.
        self.changed: dict[str, Any] = {}
        # How often ENROLLED says pending.
        self.pending = 0
        self._scripted: dict[str, list[Canned]] = defaultdict(list)
        self._csr = ""

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    def script(self, path: str, *answers: Canned) -> None:
        self._scripted[path].extend(answers)

    def answer(self, path: str, asked: dict[str, Any]) -> Canned:
        if self._scripted[path]:
            return self._scripted[path].pop(0)
        if path == ENROL_PATH:
            self._csr = asked["csr"]
            return self._right(
                {
                    "device_code": "device-code-canary",
                    "user_code": "BCDF-GHJK",
                    "verification_uri": f"{self.url}/.heim/agents",
                    "expires_in": 900,
                    "interval": 1,
                    "fingerprint": self._key_of(self._csr)[1],
                }
            )
        if path == ENROLLED_PATH and self.pending:
            self.pending -= 1
            return Canned(202, {"status": "pending"})
        if path in (JOIN_PATH, ENROLLED_PATH):
            return self._right(self._enrolled(asked.get("csr", self._csr)))
        return Canned(404, {})

    def _right(self, document: dict[str, Any]) -> Canned:
        changed = document | self.changed
        return Canned(200, {name: value for name, value in changed.items() if value is not None})

    def _key_of(self, csr: str) -> tuple[ec.EllipticCurvePublicKey, str]:
        key = x509.load_der_x509_csr(base64.b64decode(csr)).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return key, _fingerprint(key)

    def _enrolled(self, csr: str) -> dict[str, Any]:
        return {
            "agent": "desktop",
            "certificate": base64.b64encode(self.root.certificate(self._key_of(csr)[0])).decode(),
            "expires": 1_900_000_000,
            "roots": [self.root.jwk],
            "login_url": self.url,
            "targets": ["ssh", "web"],
            "group": False,
        }


def _fingerprint(public: ec.EllipticCurvePublicKey) -> str:
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "SHA256:" + base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients that do not like the certificate leave in the middle."""


@contextmanager
def join_host(directory: Path, *, tls: bool = True) -> Iterator[JoinHost]:
    """A host on loopback, for the length of the block."""
    host = JoinHost(directory)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            host.asked.append((self.path, asked))
            host.heads.append({name.lower(): value for name, value in self.headers.items()})
            found = host.answer(self.path, asked)
            if found.drop:
                self.close_connection = True
                return
            body = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
            self.send_response(found.status)
            for name, value in ({"Content-Type": "application/json"} | found.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.TemporaryDirectory() as folder:
                make_pair(NAME).write(Path(folder))
                context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        host.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()
