"""The time, as something that can be handed in, so that tests own it."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two times that must not be mixed: what people call now, and what deadlines are made of."""

    def now(self) -> float:
        """Seconds since the epoch; may jump when the machine's clock is set."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never jumps, meaningless outside this process."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()

    # The functions themselves: `now` is called several times for every request.
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
