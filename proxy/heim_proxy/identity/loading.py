"""Brings sessions from the store into memory, each once however many requests wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from heim_proxy.identity.feed import RevocationFeed, in_time
from heim_proxy.identity.resident import Session
from heim_proxy.store.base import SessionRow, Store, StoreUnavailable
from heim_runtime.tasks import spawn

__all__ = ["SessionLoader"]


class SessionLoader:
    """Single-flight reads of session rows."""

    __slots__ = ("_admit", "_ended_meanwhile", "_feed", "_loading", "_store")

    def __init__(
        self, store: Store, feed: RevocationFeed, admit: Callable[[SessionRow], Session]
    ) -> None:
        """Nothing is read yet; `admit` puts a row that arrived into memory."""
        self._store: Final = store
        self._feed: Final = feed
        self._admit: Final = admit
        self._loading: Final[dict[str, asyncio.Task[Session | StoreUnavailable | None]]] = {}
        self._ended_meanwhile: Final[set[str]] = set()

    async def load(self, sid: str) -> Session | None:
        """The session, now in memory; None when it has ended or never was.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        loading = self._loading.get(sid)
        if loading is None:
            loading = self._loading[sid] = spawn("session.load", self._read(sid))
        # Shielded: a client that goes away must not fail the others who wait for this row.
        outcome = await asyncio.shield(loading)
        if isinstance(outcome, StoreUnavailable):
            raise StoreUnavailable(str(outcome))
        return outcome

    def ended(self, sid: str) -> None:
        """A session ended; if it is being read, the row that arrives is out of date."""
        if sid in self._loading:
            self._ended_meanwhile.add(sid)

    async def _read(self, sid: str) -> Session | StoreUnavailable | None:
        # A failure is returned, not raised: every waiter may have gone, and then nobody would
        # have looked at it.
        try:
            await self._feed.start()
            row = await in_time(self._store.get_session(sid))
            if row is None or row.ended is not None or sid in self._ended_meanwhile:
                return None
            # No await between the row and memory: an end that is announced meanwhile must find the
            # session either here or there.
            return self._admit(row)
        except StoreUnavailable as error:
            return error
        finally:
            self._ended_meanwhile.discard(sid)
            del self._loading[sid]
