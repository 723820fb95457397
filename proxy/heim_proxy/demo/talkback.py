"""The demo's TCP service: whatever a connection says is said back to it, until it has said all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Final

__all__ = ["TalkBack"]

READ_BYTES: Final = 64 * 1024
IDLE_S: Final = 600.0
"""A connection that says nothing for so long, or takes nothing back, is over."""


class TalkBack:
    """An echo service on a listening socket, which `close` closes with every connection."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, sock: socket.socket) -> None:
        """Serve on `sock`, which must be listening on loopback."""
        self._server = await asyncio.start_server(self._talk, sock=sock)

    async def close(self) -> None:
        """End it; connections that are open end too. Idempotent."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            # A client that vanished, or a demo that ends, is no mishap.
            with contextlib.suppress(OSError, TimeoutError):
                while True:
                    async with asyncio.timeout(IDLE_S):
                        data = await reader.read(READ_BYTES)
                        if not data:
                            break
                        writer.write(data)
                        await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()
