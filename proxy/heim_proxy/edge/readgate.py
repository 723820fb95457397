"""Why the edge stops reading a connection, and the gate it does it with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heim_proxy.edge.limits import TURN_BYTES
from heim_wire.aio import gate

if TYPE_CHECKING:
    import asyncio

__all__ = ["Hold", "ReadGate"]


class Hold:
    """Reasons not to read, as bits. Plain integers: enum arithmetic costs 2 µs a request."""

    PEER_SLOW: Final = 1
    DECIDING: Final = 2
    PIPELINE: Final = 4
    TURN: Final = gate.TURN
    OUTPUT: Final = 16


class ReadGate(gate.ReadGate):
    """The tunnel's gate with the edge's budget per turn."""

    __slots__ = ()

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(transport, loop, TURN_BYTES)
