"""A raw upstream: it notes every byte it was sent and answers what a test tells it to.

It parses nothing beyond where a head ends and how long a body is, so that a test sees exactly what
Heim put on the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Received", "Script", "Upstream", "answer"]


def answer(body: bytes = b"ok", *, status: str = "200 OK", headers: str = "") -> bytes:
    """A complete answer with a length; `headers` are lines ending in CRLF."""
    head = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


@dataclass
class Received:
    """One request as it came: the head's bytes, its lines, and the body (chunked: with framing)."""

    head: bytes
    body: bytes = b""
    connection: int = 0

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def fields(self) -> list[tuple[str, str]]:
        lines = self.head.split(b"\r\n")[1:-2]
        pairs = (line.partition(b":") for line in lines)
        return [
            (name.decode("latin-1"), value.strip().decode("latin-1")) for name, _, value in pairs
        ]

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        found = self.all(name)
        return found[0] if found else None


Script = Callable[["Received", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes | None]]


@dataclass
class Upstream:
    """Serves 127.0.0.1, or another `address`, on a free port.

    `script` may write by itself, or return an answer.

    Returning None closes the connection without (further) answer.
    """

    script: Script | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    closed: int = 0
    port: int = 0
    address: str = "127.0.0.1"
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    async def start(self) -> Upstream:
        self._server = await asyncio.start_server(self._serve, self.address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                received = Received(head, connection=number)
                self.requests.append(received)
                if self.script is not None:
                    reply = await self.script(received, reader, writer)
                else:
                    received.body = await read_body(received, reader)
                    reply = answer()
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return
        finally:
            self.open -= 1
            self.closed += 1
            self._tasks.discard(task)
            writer.close()


async def read_body(received: Received, reader: asyncio.StreamReader) -> bytes:
    """The body of a request, with its framing when it is chunked.

    Raises:
        IncompleteReadError: When the sender ended it early.
    """
    length = received.get("content-length")
    if length is not None:
        return await reader.readexactly(int(length))
    if received.get("transfer-encoding") == "chunked":
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            line = await reader.readline()
            if not line:
                # At the end readline returns at once, for ever: the loop would never turn again.
                raise asyncio.IncompleteReadError(body, None)
            body += line
        return body
    return b""
