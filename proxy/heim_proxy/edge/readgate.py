"""Whether a connection may be read just now: the one place where reading is paused.

Reading stops for several reasons at once (the other side is slow, an answer is pending, one
connection took more than its share of a turn) and resumes when the last reason is gone. A bulk
transfer that may read without end in one turn of the loop makes everybody else wait; with a
budget per turn, an echo beside a bulk upload stays within milliseconds (performance.md).
"""

from __future__ import annotations

import asyncio
import enum

from heim_proxy.edge.limits import TURN_BYTES

__all__ = ["Hold", "ReadGate"]


class Hold(enum.IntFlag):
    """A reason not to read."""

    PEER_SLOW = 1
    DECIDING = 2
    PIPELINE = 4
    TURN = 8
    OUTPUT = 16


class ReadGate:
    """Pauses and resumes one transport's reading, counting reasons."""

    __slots__ = ("_budget", "_holds", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._holds = 0
        self._budget = TURN_BYTES

    def hold(self, reason: Hold) -> None:
        """Stop reading for `reason`; idempotent."""
        if not self._holds and not self._transport.is_closing():
            self._transport.pause_reading()
        self._holds |= reason

    def held(self, reason: Hold) -> bool:
        """Whether reading is stopped for `reason` (and perhaps for others)."""
        return bool(self._holds & reason)

    def release(self, reason: Hold) -> None:
        """Drop one reason; reading resumes when it was the last."""
        if self._holds & reason:
            self._holds &= ~reason
            if not self._holds and not self._transport.is_closing():
                self._transport.resume_reading()

    def spend(self, size: int) -> None:
        """Account for bytes read; past the turn's budget the others get their turn first."""
        self._budget -= size
        if self._budget < 0 and not self._holds & Hold.TURN:
            self.hold(Hold.TURN)
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._budget = TURN_BYTES
        self.release(Hold.TURN)
