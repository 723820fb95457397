"""How long the event loop stalls: the one number that says a Python server is overloaded."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["LoopLag"]

# Often enough to see a stall of a scrape interval's length, too rare to cost anything.
INTERVAL_S: Final = 0.25


class LoopLag:
    """Measures how late a timer of the running loop fires."""

    __slots__ = ("_due", "_loop", "_timer", "_worst")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._worst = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin measuring."""
        self._due = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due, self._fired)

    def stop(self) -> None:
        """Stop measuring; harmless when not started."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def read(self) -> float:
        """The longest delay since the last call, in seconds."""
        worst, self._worst = self._worst, 0.0
        return worst

    def _fired(self) -> None:
        self._worst = max(self._worst, self._loop.time() - self._due)
        self.start()
