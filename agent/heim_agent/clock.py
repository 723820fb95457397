"""The proxy's time: what its last statement said, and how long ago that was.

The machine's own clock may be wrong by minutes or years (no battery, no NTP behind a firewall), so
nothing that trust depends on is compared with it.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ProxyClock"]


def _elapsed() -> float:
    # Linux: CLOCK_MONOTONIC stands still while the machine is suspended, this one does not.
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class ProxyClock:
    """A `heim_runtime.clock.Clock` in the proxy's time; one per process, set by every statement.

    Before the first statement it is the machine's clock: nothing is decided by it then.

    Attributes:
        known: Whether a statement has said what time it is.
    """

    __slots__ = ("_elapsed", "_offset", "known", "monotonic")

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = _elapsed,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._elapsed = elapsed
        self._offset = wall() - elapsed()
        self.known = False
        self.monotonic = monotonic

    def now(self) -> float:
        """Seconds since the epoch, as the proxy counts them."""
        return self._offset + self._elapsed()

    def set(self, now: float) -> None:
        """It is `now`, by a statement that was verified."""
        self._offset = now - self._elapsed()
        self.known = True
