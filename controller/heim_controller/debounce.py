"""Many changes to one piece of work: it begins when they pause, and soon even if they do not."""

from __future__ import annotations

import asyncio
from typing import Final

from heim_runtime.clock import Clock, SystemClock

__all__ = ["Debounce"]

# `kubectl apply` of several objects, and a Deployment that rolls out, change something every few
# milliseconds; people wait for half a second without noticing.
QUIET_S: Final = 0.05
LONGEST_S: Final = 0.5


class Debounce:
    """`touch` it when something changed; `wait` returns once that has been quiet for a moment."""

    def __init__(
        self,
        *,
        quiet_s: float = QUIET_S,
        longest_s: float = LONGEST_S,
        clock: Clock | None = None,
    ) -> None:
        """Start untouched.

        Args:
            quiet_s: How long nothing must change.
            longest_s: After the first change we wait no longer than this.
            clock: Where the time comes from; its monotonic side is read.
        """
        self._quiet_s = quiet_s
        self._longest_s = longest_s
        self._clock: Clock = clock or SystemClock()
        self._touched = asyncio.Event()
        self._first = 0.0
        self._last = 0.0

    @property
    def touched(self) -> bool:
        """Whether something changed since `wait` returned last."""
        return self._touched.is_set()

    def touch(self) -> None:
        """Something changed."""
        self._last = self._clock.monotonic()
        if not self._touched.is_set():
            self._first = self._last
            self._touched.set()

    async def wait(self) -> None:
        """Wait for changes and the pause after them; what changes from now on counts anew."""
        await self._touched.wait()
        while (left := self._left()) > 0:  # noqa: ASYNC110 - it is time that is waited for
            await asyncio.sleep(left)
        self._touched.clear()

    def _left(self) -> float:
        due = min(self._last + self._quiet_s, self._first + self._longest_s)
        return due - self._clock.monotonic()
