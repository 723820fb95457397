"""What a client sent before it was answered: kept for the stream, within a bound.

A client should wait for its answer (RFC 6455, 4.1). One that does not is slowed down, not refused;
but if there will be no stream, these bytes are nobody's, and never the next request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from heim_proxy.edge.limits import DIAL_BUFFER_BYTES
from heim_proxy.edge.readgate import Hold

if TYPE_CHECKING:
    from heim_proxy.edge.readgate import ReadGate

__all__ = ["Early"]


class Early:
    """Bytes that wait for an answer; above the bound the client is not read any more."""

    __slots__ = ("_gate", "_parts", "_size")

    def __init__(self, gate: ReadGate) -> None:
        self._gate = gate
        self._parts: list[bytes] = []
        self._size = 0

    def __bool__(self) -> bool:
        return self._size > 0

    def add(self, data: bytes) -> None:
        """Keep bytes; at most one read more than the bound."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > DIAL_BUFFER_BYTES:
            self._gate.hold(Hold.DECIDING)

    def take(self) -> bytes:
        """All of them, once; the client is read again."""
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._gate.release(Hold.DECIDING)
        return data
