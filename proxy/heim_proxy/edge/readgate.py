"""Whether a connection may be read just now: the one place where reading is paused.

Reading stops for several reasons at once (the other side is slow, an answer is pending, one
connection took more than its share of a turn) and resumes when the last reason is gone. A bulk
transfer that may read without end in one turn of the loop makes everybody else wait; with a
budget per turn, an echo beside a bulk upload stays within milliseconds (performance.md).
"""

from __future__ import annotations

import asyncio
from typing import Final

from heim_proxy.edge.limits import TURN_BYTES

__all__ = ["Hold", "ReadGate"]


class Hold:
    """Reasons not to read, as bits. Plain integers: enum arithmetic costs 2 µs a request."""

    PEER_SLOW: Final = 1
    DECIDING: Final = 2
    PIPELINE: Final = 4
    TURN: Final = 8
    OUTPUT: Final = 16


class ReadGate:
    """Pauses and resumes one transport's reading, counting reasons."""

    __slots__ = ("_budget", "_in_turn", "_loop", "_transport", "holds")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        # Every reason there is just now; 0 while reading.
        self.holds = 0
        self._budget = TURN_BYTES
        # Whether the end of this turn is already on the loop's agenda.
        self._in_turn = False

    def hold(self, reason: int) -> None:
        """Stop reading for `reason`; idempotent."""
        if not self.holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self.holds |= reason

    def held(self, reason: int) -> bool:
        """Whether reading is stopped for `reason` (and perhaps for others)."""
        return bool(self.holds & reason)

    def release(self, reason: int) -> None:
        """Drop one reason; reading resumes when it was the last."""
        if self.holds & reason:
            self.holds &= ~reason
            if not self.holds and not self._transport.is_closing():
                self._transport.resume_reading()

    def spend(self, size: int) -> None:
        """Account for bytes read; past the turn's budget the others get their turn first."""
        if not self._in_turn:
            self._in_turn = True
            self._loop.call_soon(self._next_turn)
        self._budget -= size
        if self._budget < 0 and not self.holds & Hold.TURN:
            self.hold(Hold.TURN)

    def _next_turn(self) -> None:
        self._in_turn = False
        self._budget = TURN_BYTES
        self.release(Hold.TURN)
