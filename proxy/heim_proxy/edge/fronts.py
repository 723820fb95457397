"""How client connections take their bytes: by copy without TLS, through a lent buffer with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from heim_proxy.edge.connection import Front

if TYPE_CHECKING:
    from heim_proxy.edge.listener import Peer
    from heim_proxy.edge.server import Edge

__all__ = ["front_for"]


def front_for(edge: Edge, peer: Peer, *, secure: bool) -> Front:
    """The protocol for a new client connection; `secure` says that it is over TLS."""
    return (_SecureFront if secure else _PlainFront)(edge, peer, secure=secure)


class _PlainFront(Front, asyncio.Protocol):
    """The loop makes bytes of exactly what it read: half a microsecond less than a buffer."""

    __slots__ = ()


class _SecureFront(Front, asyncio.BufferedProtocol):
    """uvloop's TLS would make 256 KiB of bytes for every read, and give most of them back."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to read to; all connections share it, since reads are taken at once."""
        return self.edge.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes from the client are in the buffer."""
        self.data_received(bytes(self.edge.buffer[:nbytes]))
