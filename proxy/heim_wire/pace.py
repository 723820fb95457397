"""How many frames that cost us something a peer may send for nothing: 100 a second.

Counted is what could be sent without end (PING, NOTICE, AUTH, empty DATA, tiny WINDOW, streams
that are refused or given up at once, frames of unknown type). What a transfer needs is bounded
elsewhere and free: a WINDOW of 16 KiB or more by the credit a stream may have, OPEN by the number
of streams, ACCEPT and EOF by the states of a stream.
"""

from __future__ import annotations

from heim_wire.errors import Code, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["BURST", "PER_SECOND", "Pace"]

PER_SECOND: Final = 100
# A proxy that drains may send a notice to each of 1024 streams, and reset each.
BURST: Final = 2_048


class Pace:
    """A token bucket (RFC 2697 has the idea): full at first, refilled with time."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, now: float) -> None:
        self._tokens = float(BURST)
        self._at = now

    def spend(self, now: float) -> None:
        """Count one frame.

        Raises:
            WireError: It was one too many.
        """
        tokens = min(self._tokens + (now - self._at) * PER_SECOND, BURST) - 1
        self._at = now
        self._tokens = tokens
        if tokens < 0:
            raise WireError(Code.PROTOCOL, f"more than {PER_SECOND} control frames a second")
