"""What memory owes the store: ends not recorded yet, when sessions were seen, and cleaning."""

from __future__ import annotations

import itertools
from typing import Final

from heim_proxy.identity.feed import in_time
from heim_proxy.identity.resident import ResidentSessions
from heim_proxy.live import EndReason
from heim_proxy.store.base import Store
from heim_runtime.clock import Clock

__all__ = ["FLUSH_EVERY_S", "KEEP_ENDED_S", "PURGE_EVERY_S", "WriteBack"]

FLUSH_EVERY_S: Final = 60.0
"""How often last_seen is written; a crash forgets at most that much of an idle time."""

PURGE_EVERY_S: Final = 3600.0

KEEP_ENDED_S: Final = 86400.0
"""Ended sessions stay listed for a day, and so do their feed entries: longer than any grace."""

MAX_OWED: Final = 10_000
"""Ends the store has not taken yet. Past it, it has been down during 10 000 logouts."""

_RECORDED_AT_ONCE: Final = 100
"""Each is a write with a sync, some ms: a tick that follows a mass expiry must stay short."""


class WriteBack:
    """Writes to the store what happened in memory, now or as soon as it answers."""

    __slots__ = ("_clock", "_ending", "_flushed", "_owed", "_purged", "_resident", "_store")

    def __init__(self, store: Store, resident: ResidentSessions, clock: Clock) -> None:
        self._store: Final = store
        self._resident: Final = resident
        self._clock: Final = clock
        self._owed: Final[dict[str, tuple[EndReason, float]]] = {}
        self._ending: Final[set[str]] = set()
        self._flushed = clock.monotonic()
        self._purged = clock.monotonic()

    def ends(self, sid: str) -> bool:
        """Whether a session ended here although its row may not say so yet."""
        return sid in self._owed or sid in self._ending

    async def end(self, sid: str, reason: EndReason, now: float) -> bool:
        """Record an end now; False when the store knew no live session of that id.

        Raises:
            StoreUnavailable: it is owed, and `run` will try again.
        """
        self._ending.add(sid)
        try:
            ended = await in_time(self._store.end_session(sid, reason=reason.value, now=now))
        except BaseException:
            # A cancelled sign-out, too: its row must not come back to life.
            self.owe(sid, reason, now)
            raise
        finally:
            self._ending.discard(sid)
        self._owed.pop(sid, None)
        return ended

    def owe(self, sid: str, reason: EndReason, now: float) -> None:
        """Record an end with the next `run`."""
        if len(self._owed) < MAX_OWED:
            self._owed[sid] = (reason, now)

    async def run(self, now: float) -> None:
        """Write what is due. What fails stays due.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        for sid, (reason, at) in list(itertools.islice(self._owed.items(), _RECORDED_AT_ONCE)):
            await in_time(self._store.end_session(sid, reason=reason.value, now=at))
            self._owed.pop(sid, None)
        elapsed = self._clock.monotonic()
        if elapsed - self._flushed >= FLUSH_EVERY_S:
            seen = self._resident.unsaved(now)
            if seen:
                await in_time(self._store.touch_sessions(seen))
                self._resident.saved(seen)
            self._flushed = elapsed
        if elapsed - self._purged >= PURGE_EVERY_S:
            await in_time(self._store.purge(now=now, keep_ended=KEEP_ENDED_S))
            self._purged = elapsed
