"""How many connections are being made at once, so that one dead target does not hold up the others.

A target whose network swallows SYNs keeps every dial for its whole connect_timeout. It may have
half of the places; its other streams wait for one of those, and streams to other targets pass by.
"""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["MAX_DIALS", "MAX_PER_TARGET", "MAX_UNANSWERED", "Dials"]

MAX_DIALS: Final = 64
"""Sockets in the middle of a connect, of all targets."""

MAX_PER_TARGET: Final = MAX_DIALS // 2
"""The same, of one target."""

MAX_UNANSWERED: Final = 256
"""Streams that dial or wait for it: 64 on each of four lanes is what the proxy sends; beyond that
they are refused (BUSY)."""


class Dials:
    """Counts. One per process."""

    def __init__(self) -> None:
        self.unanswered = 0
        self._all = asyncio.Semaphore(MAX_DIALS)
        self._targets: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """Whether one more stream would be too many."""
        return self.unanswered >= MAX_UNANSWERED

    async def take(self, target: str, deadline: float) -> None:
        """Wait for a place to dial `target` from, until `deadline` (the loop's time) at most.

        First come, first served among those for one target. `give_back` it.

        Raises:
            TimeoutError: There was none.
        """
        own = self._targets.setdefault(target, asyncio.Semaphore(MAX_PER_TARGET))
        self._users[target] = self._users.get(target, 0) + 1
        try:
            if own.locked() or self._all.locked():
                async with asyncio.timeout_at(deadline):
                    await self._acquire(own)
            else:
                # Nearly always: nothing is waited for, and no timer is made.
                await self._acquire(own)
        except BaseException:
            self._forget(target)
            raise

    async def _acquire(self, own: asyncio.Semaphore) -> None:
        # In this order: who waits for its target's turn keeps no place of the others'.
        await own.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            own.release()
            raise

    def give_back(self, target: str) -> None:
        """Somebody else may have the place that was taken."""
        self._all.release()
        self._targets[target].release()
        self._forget(target)

    def _forget(self, target: str) -> None:
        self._users[target] -= 1
        if not self._users[target]:
            # Names come from agent.toml, which changes; nothing grows.
            del self._users[target], self._targets[target]
