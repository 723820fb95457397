"""Credit windows: how much a peer may send on one stream before we have disposed of it.

Every stream begins with 64 KiB, which nobody has to grant. A receiver adds to that as long as
there is memory for it: to 256 KiB when the stream opens, and twice as much each time the window,
and nothing else, turned out to be what slowed the sender down.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["INITIAL", "MAX_CREDIT", "Purse", "ReceiveWindow", "WindowBudget"]

# What both sides know without a word, so that a stream can begin to send at once.
INITIAL: Final = 65_536
# No honest peer allows more: it is what all windows of a session may come to.
MAX_CREDIT: Final = 67_108_864


class WindowBudget:
    """How much all windows of a process, or of one user of it, may promise together.

    Attributes:
        limit: Bytes; 512 MiB unless told. First windows of 64 KiB are given beyond it too.
        used: Bytes promised just now.
    """

    __slots__ = ("_parent", "limit", "used")

    def __init__(self, limit: int = 536_870_912, *, parent: WindowBudget | None = None) -> None:
        """Nothing is promised yet; what is will count for `parent` too."""
        self._parent = parent
        self.limit = limit
        self.used = 0

    def fits(self, size: int) -> bool:
        """Whether `size` bytes more are within this limit and all above it."""
        parent = self._parent
        return self.used + size <= self.limit and (parent is None or parent.fits(size))

    def add(self, size: int) -> None:
        """Count `size` bytes more, or less when it is negative."""
        self.used += size
        if self._parent is not None:
            self._parent.add(size)


class Purse:
    """How much one session's windows may promise, within a budget that it shares."""

    __slots__ = ("_budget", "_limit", "used")

    def __init__(self, limit: int, budget: WindowBudget) -> None:
        self._limit = limit
        self._budget = budget
        self.used = 0

    def reserve(self, size: int) -> bool:
        """Take `size` bytes if every limit allows it."""
        if self.used + size > self._limit or not self._budget.fits(size):
            return False
        self.take(size)
        return True

    def take(self, size: int) -> None:
        """Take `size` bytes, whatever the limits: the first window cannot be refused."""
        self.used += size
        self._budget.add(size)

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        self.used -= size
        self._budget.add(-size)


class ReceiveWindow:
    """What the peer may send on one stream.

    `credit` + bytes received and not consumed + bytes consumed and not granted again = `size`.

    Attributes:
        size: Bytes that may be on their way or in our memory.
        credit: How much of it the peer may still send; below 0 it sent too much.
        paused: Whether the sink cannot take anything just now.
    """

    __slots__ = (
        "_due", "_purse", "_since", "_slow", "_sum", "_waiting", "credit", "paused", "size",
    )  # fmt: skip

    def __init__(self, purse: Purse, now: float) -> None:
        purse.take(INITIAL)
        self._purse = purse
        self.size = INITIAL
        self.credit = INITIAL
        # Received and not consumed; consumed and not granted again.
        self._waiting = 0
        self._due = 0
        # How much was consumed since when, and whether the sink had to be waited for meanwhile.
        self._sum = 0
        self._since = now
        self._slow = False
        self.paused = False

    def pause(self, paused: bool) -> None:
        """Say whether the sink has to be waited for."""
        # What a window takes meanwhile says nothing about the window.
        self._slow |= paused
        self.paused = paused

    def arrived(self, size: int) -> bool:
        """Account for bytes received; False when the peer was not allowed to send them."""
        self.credit -= size
        self._waiting += size
        return self.credit >= 0

    def widen(self, size: int) -> int:
        """Make the window `size` bytes if there is memory for it; returns what to grant."""
        more = size - self.size
        if more <= 0 or not self._purse.reserve(more):
            return 0
        self.size = size
        self.credit += more
        return more

    def consumed(self, size: int, now: float, *, rtt: float | None, most: int) -> int:
        """Account for bytes that left our memory; returns what to grant, 0 for nothing yet.

        Args:
            size: How many bytes.
            now: Monotonic seconds.
            rtt: Round trip in seconds, if known; the window does not grow without.
            most: How large the window may grow.

        Raises:
            ValueError: More than was received.
        """
        if size > self._waiting:
            raise ValueError(f"consumed {size} of {self._waiting} bytes")
        self._waiting -= size
        self._due += size
        self._sum += size
        if self._due * 2 < self.size:
            return 0
        granted = self._due
        self._due = 0
        self.credit += granted
        if self._sum >= self.size:
            # A sender that the window holds up sends at least half of it in each round trip.
            took = (now - self._since) * self.size / self._sum
            if not self._slow and rtt is not None and took < 2 * rtt:
                granted += self.widen(min(self.size * 2, most))
            self._sum = 0
            self._since = now
            self._slow = self.paused
        return granted

    def release(self) -> None:
        """Give the memory back; the stream is over."""
        self._purse.release(self.size)
        self.size = 0
