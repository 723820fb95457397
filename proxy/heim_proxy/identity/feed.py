"""The store's feed of ended sessions, read by this process, and how long we may do without it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import Final, TypeVar

from heim_proxy.store.base import Revocation, Store, StoreUnavailable
from heim_runtime.clock import Clock

__all__ = ["GRACE_S", "STORE_DEADLINE_S", "RevocationFeed", "in_time"]

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S: Final = 3600.0
"""How long sessions in memory go on while the feed cannot be read. Long enough to restore a
database, short enough that somebody who was dismissed meanwhile is out within the hour."""

STORE_DEADLINE_S: Final = 3.0
"""An answer takes a millisecond; the deadline covers another process's long write (2 s) and a slow
disk, and keeps a request from waiting longer."""


async def in_time(call: Awaitable[T], *, deadline_s: float = STORE_DEADLINE_S) -> T:
    """The answer of a store call.

    Raises:
        StoreUnavailable: also when there is none within `deadline_s`.
    """
    try:
        async with asyncio.timeout(deadline_s):
            return await call
    except TimeoutError:
        raise StoreUnavailable(f"the store gave no answer in {deadline_s:g} s") from None


class RevocationFeed:
    """Reads the feed from where it was when the first session was loaded."""

    __slots__ = ("_clock", "_problem", "_read_at", "_seq", "_store")

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store: Final = store
        self._clock: Final = clock
        self._seq: int | None = None
        self._read_at = clock.monotonic()
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the feed cannot be read; None while it can."""
        return self._problem

    @property
    def lost(self) -> bool:
        """Whether the feed has not been read for so long that memory is not to be trusted."""
        return self._clock.monotonic() - self._read_at > GRACE_S

    async def start(self) -> None:
        """Note where the feed is, before the first session is read: what ends later is news.

        Raises:
            StoreUnavailable: when the store cannot say.
        """
        if self._seq is None:
            seq = await in_time(self._store.last_revocation())
            # Another call may have been faster and have read on since.
            if self._seq is None:
                self._seq = seq
                self._read_at = self._clock.monotonic()

    async def read(self) -> Sequence[Revocation]:
        """What is new, oldest first; nothing when the store is down, see `problem`."""
        try:
            await self.start()
            news = await in_time(self._store.revocations(self._seq or 0))
        except StoreUnavailable as error:
            if self._problem is None:
                log.error("store.unavailable", extra={"reason": str(error), "grace_s": GRACE_S})  # noqa: TRY400
            self._problem = str(error)
            return ()
        if self._problem is not None:
            log.info("store.available")
        self._problem = None
        self._read_at = self._clock.monotonic()
        if news:
            self._seq = news[-1].seq
        return news
