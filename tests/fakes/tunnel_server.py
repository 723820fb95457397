"""A scripted server in the proxy's place: each test says what it does, byte by byte if need be.

Every connection runs the test's script in a thread, on blocking sockets. A script that wants an
honest proxy calls `Peer.upgrade` and drives a real `heim_wire` session with `Peer.until`; one that
wants a hostile proxy writes bytes. What a script raises fails the test when the server stops.
"""

from __future__ import annotations

import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from heim_wire import events
from heim_wire.handshake import answer_upgrade
from heim_wire.session import Session
from heim_wire.stream import Stream
from heim_wire.websocket import WebSocket
from tests.fakes.certificates import CA_PEM, Pair, make_pair

__all__ = ["LOGIN_HOST", "TARGET", "Peer", "TunnelServer"]

TARGET = "ssh.example.test"
LOGIN_HOST = "auth.example.test"

PATIENCE_S = 10.0


class Peer:
    """One connection, as the script sees it.

    Attributes:
        head: The request's head, and `fields` of it with names in lower case.
        received: The stream's bytes.
        events: Everything else that the session told.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.head = ""
        self.fields: dict[str, str] = {}
        self.body = b""
        self.received = bytearray()
        self.events: list[events.Event] = []
        self.keep = True
        self.session: Session
        self.stream: Stream
        self.websocket: WebSocket
        self.ended = False

    # HTTP.

    def request(self) -> str:
        """Read a request with its body; its first line."""
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = self.sock.recv(65536)
            if not chunk:
                return ""
            data += chunk
        head, _, self.body = data.partition(b"\r\n\r\n")
        self.head = head.decode()
        lines = [line.partition(": ") for line in self.head.split("\r\n")[1:]]
        self.fields = {name.lower(): value for name, _, value in lines}
        while len(self.body) < int(self.fields.get("content-length", "0")):
            self.body += self.sock.recv(65536)
        return self.head.split("\r\n")[0]

    def answer(self, status: str, body: bytes = b"", *fields: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)

    def problem(self, status: int, code: str, detail: str, **more: Any) -> None:
        """Refuse as the proxy does."""
        document = {"status": status, "code": code, "title": code, "detail": detail, **more}
        self.answer(
            f"{status} No",
            json.dumps(document).encode(),
            "Content-Type: application/problem+json",
            "Cache-Control: no-store",
        )

    def json(self, document: object, status: str = "200 OK") -> None:
        self.answer(status, json.dumps(document).encode(), "Content-Type: application/json")

    def token_answer(self, access_token: str, **more: Any) -> None:
        """Answer as /.heim/cli/token does."""
        self.json(
            {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": 900,
                "refresh_token": "heim_rt_next",
                "session_expires": int(time.time()) + 36000,
                "user": "alice@example.com",
                "login_url": f"https://{LOGIN_HOST}",
                "domains": ["example.test"],
                **more,
            }
        )

    # The tunnel.

    def upgrade(
        self, *, ready: dict[str, Any] | None = None, coalesced: bytes = b"", silent: bool = False
    ) -> None:
        """Answer 101, and say HELLO and READY as the proxy does.

        Args:
            ready: More for READY.
            coalesced: The stream's first bytes, in one write with the 101.
            silent: Leave HELLO and READY to the script.
        """
        self.session = Session(initiator=False, now=time.monotonic())
        self.stream = self.session.adopt()
        self.websocket = WebSocket(client=False)
        told = {"user": "alice", "backend": "ssh", "request_id": "01JTEST"}
        self.session.ready(told | (ready or {}))
        answer = answer_upgrade(self.fields["sec-websocket-key"])
        if coalesced:
            self.stream.send(coalesced)
            parts, total = self.session.take(65_543)
            answer += self.websocket.frame(parts, total)
        self.sock.sendall(answer)
        if not silent:
            self.flush()

    def flush(self) -> None:
        """Send everything that the session may send now."""
        while True:
            parts, total = self.session.take(65_543)
            if not total:
                return
            self.sock.sendall(self.websocket.frame(parts, total))

    def until(self, condition: Callable[[], Any], within_s: float = PATIENCE_S) -> None:
        """Drive the session until a condition holds."""
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"{condition} does not come true: {self.events}"
            self.step()

    def step(self, timeout_s: float = 0.5) -> None:
        """Send what may be sent and take what comes."""
        self.flush()
        self.sock.settimeout(timeout_s)
        try:
            data = self.sock.recv(262_144)
        except TimeoutError:
            return
        finally:
            self.sock.settimeout(PATIENCE_S)
        if not data:
            self.ended = True
        for payload in self.websocket.receive(data):
            self.take(self.session.receive(payload, time.monotonic()))
        if reply := self.websocket.replies():
            self.sock.sendall(reply)
        self.flush()

    def take(self, happened: list[events.Event]) -> None:
        for event in happened:
            if isinstance(event, events.Data):
                if self.keep:
                    self.received += event.payload
                self.stream.consumed(len(event.payload))
            else:
                self.events.append(event)

    def saw(self, kind: type[events.Event]) -> bool:
        return any(isinstance(event, kind) for event in self.events)

    def goodbye(self) -> None:
        """End our direction, wait for theirs and for the close, as the proxy does."""
        self.stream.end()
        self.until(lambda: self.websocket.closed is not None or self.ended)

    def hang_up(self) -> None:
        """Send FIN, and read on until the client closes: closing at once might send RST."""
        self.sock.shutdown(socket.SHUT_WR)
        self.wait_closed()

    def wait_closed(self) -> None:
        """Read until the client closes."""
        try:
            while self.sock.recv(65536):
                pass
        except OSError:
            return


Script = Callable[[Peer], None]


class TunnelServer:
    """The server; a context manager.

    Attributes:
        port: On 127.0.0.1.
        ca_file: What trusts its certificate.
        peers: The connections so far.
    """

    def __init__(
        self,
        script: Script,
        *,
        pair: Pair | None = None,
        tls: bool = True,
        maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ) -> None:
        self._script = script
        self._directory = tempfile.TemporaryDirectory()
        where = Path(self._directory.name)
        (pair or make_pair(TARGET, LOGIN_HOST, "localhost", "*.localhost")).write(where)
        self.ca_file = where / "ca.pem"
        self.ca_file.write_text(CA_PEM)
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.maximum_version = maximum
            self._context.load_cert_chain(where / "tls.crt", where / "tls.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.peers: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._problems: list[BaseException] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in list(self._threads):
            thread.join(PATIENCE_S)
        for peer in self.peers:
            peer.sock.close()
        self._directory.cleanup()
        if kind is None and self._problems:
            raise self._problems[0]

    @staticmethod
    def until(condition: Callable[[], Any]) -> None:
        """Wait for a condition that a script brings about."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it does not come true"
            time.sleep(0.005)

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=True)
        except (ssl.SSLError, OSError):
            # The client did not like the certificate: that is what the test looks at.
            sock.close()
            return
        peer = Peer(sock)
        self.peers.append(peer)
        try:
            self._script(peer)
        except BaseException as problem:
            self._problems.append(problem)
        finally:
            sock.close()
