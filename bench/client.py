"""A client for checks and for idle connections: one blocking connection, nothing normalised."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import Final

__all__ = ["Answer", "Connection"]

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with a Content-Length, or none at all."""

    status: int
    body: bytes


class Connection:
    """One connection to 127.0.0.1, kept open until closed."""

    def __init__(
        self,
        port: int,
        *,
        host: str,
        context: ssl.SSLContext | None,
        source: str = "127.0.0.1",
    ) -> None:
        """Connect from the address `source`, and shake hands when there is a `context`."""
        raw = socket.create_connection(
            ("127.0.0.1", port), timeout=_TIMEOUT_S, source_address=(source, 0)
        )
        self._sock: socket.socket = raw
        if context is not None:
            self._sock = context.wrap_socket(raw, server_hostname=host)

    @property
    def cipher(self) -> str:
        """What TLS agreed on, "" without TLS."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return ""
        cipher = self._sock.cipher()
        return f"{self._sock.version()} {cipher[0] if cipher else '?'}"

    def ask(self, head: bytes) -> Answer:
        """Send a head and read the answer."""
        self._sock.sendall(head)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        lines, _, body = data.partition(b"\r\n\r\n")
        fields = lines.split(b"\r\n")
        length = 0
        for field in fields[1:]:
            name, _, value = field.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            body += self._receive()
        return Answer(int(fields[0].split(b" ")[1]), body)

    def close(self) -> None:
        self._sock.close()

    def _receive(self) -> bytes:
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection in the middle of an answer")
        return data
