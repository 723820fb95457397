"""Whether a transport may be read just now: the one place where reading is paused.

Reading stops for several reasons at once (the other side is slow, a decision is pending, one
connection took more than its share of a turn) and resumes when the last reason is gone. libuv
reads up to 32 times 256 KiB from one socket in one turn of the loop: without a budget per turn, an
echo beside a bulk upload waits 30 to 60 ms, with it 1 to 5 (tunnel.md, 0.3).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Final

__all__ = ["TURN", "TURN_BYTES", "ReadGate", "turn_bytes"]

# The reason the gate gives itself; its owner's own reasons are the other bits.
TURN: Final = 8
# Bytes one connection may read in one turn before the others get theirs: four TLS records.
TURN_BYTES: Final = 64 * 1024
# asyncio reads a socket once per turn, 256 KiB at most: that is its budget, and stopping more often
# costs it 20 µs of selector calls.
_ASYNCIO_TURN_BYTES: Final = 256 * 1024


def turn_bytes(loop: asyncio.AbstractEventLoop) -> int:
    """The budget per turn that keeps `loop` fair at the least cost."""
    return TURN_BYTES if type(loop).__module__.startswith("uvloop") else _ASYNCIO_TURN_BYTES


class ReadGate:
    """Pauses and resumes one transport's reading, counting reasons (an int, one bit each)."""

    __slots__ = ("_budget", "_in_turn", "_loop", "_transport", "_turn_bytes", "holds")

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        turn_bytes: int = TURN_BYTES,
    ) -> None:
        self._transport = transport
        self._loop = loop
        # Every reason there is just now; 0 while reading.
        self.holds = 0
        self._turn_bytes = turn_bytes
        self._budget = turn_bytes
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

    def insist(self) -> None:
        """Pause the transport again, if there is a reason to.

        uvloop forgets a pause that is made inside `connection_made` (0.23; CPython gh-103607): call
        this a turn later, and when bytes arrive that were not to be read.
        """
        if self.holds and not self._transport.is_closing():
            self._transport.pause_reading()

    def spend(self, size: int) -> None:
        """Account for bytes read; past the turn's budget the others get their turn first."""
        if not self._in_turn:
            self._in_turn = True
            self._loop.call_soon(self._next_turn)
        self._budget -= size
        if self._budget < 0 and not self.holds & TURN:
            self.hold(TURN)

    def _next_turn(self) -> None:
        self._in_turn = False
        self._budget = self._turn_bytes
        self.release(TURN)
