"""A corporate web proxy: answers CONNECT, and joins what it allows with one local port."""

from __future__ import annotations

import select
import socket
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Self

from tests.fakes.certificates import make_pair

__all__ = ["WebProxy"]

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class WebProxy:
    """The proxy; a context manager.

    Attributes:
        port: On 127.0.0.1.
        heads: The requests so far.
    """

    def __init__(
        self,
        to_port: int,
        *,
        answer: bytes = ESTABLISHED,
        credentials: str | None = None,
        tls: bool = False,
    ) -> None:
        """Prepare.

        Args:
            to_port: Where every connection ends, whatever was asked for.
            answer: To a CONNECT that is allowed.
            credentials: What Proxy-Authorization must be, else 407; None for no check.
            tls: Whether it is an https:// proxy, called `localhost`.
        """
        self._to_port = to_port
        self._answer = answer
        self._credentials = credentials
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.TemporaryDirectory() as name:
                make_pair("localhost").write(Path(name))
                self._context.load_cert_chain(f"{name}/tls.crt", f"{name}/tls.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heads: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
            with sock:
                self._talk(sock)
        except OSError:
            return

    def _talk(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = sock.recv(4096)
            if not data:
                return
            head += data
        self.heads.append(head.decode())
        wanted = f"Proxy-Authorization: {self._credentials}\r\n"
        if self._credentials is not None and wanted not in self.heads[-1]:
            sock.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b"Proxy-Authenticate: Basic realm=x\r\nContent-Length: 4\r\n\r\nnope"
            )
            return
        sock.sendall(self._answer)
        if self._answer != ESTABLISHED:
            return
        with socket.create_connection(("127.0.0.1", self._to_port)) as behind:
            _join(sock, behind)


def _join(one: socket.socket, other: socket.socket) -> None:
    while True:
        waiting = isinstance(one, ssl.SSLSocket) and one.pending()
        ready = [one] if waiting else select.select([one, other], [], [], 10)[0]
        if not ready:
            return
        for here in ready:
            data = here.recv(65536)
            if not data:
                return
            (other if here is one else one).sendall(data)
