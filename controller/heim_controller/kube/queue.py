"""Writes that must get done some time: one at most for each object, the latest, tried until it is.

What is queued is a key, never an object: whoever writes builds the object from what is known when
its turn comes, so that ten changes are one write, and a conflict is answered by reading again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

from heim_controller.kube.errors import ApiError, Conflict, Invalid, KubeError
from heim_runtime.backoff import Backoff

__all__ = ["WriteQueue"]

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# Requests of one queue that may be under way: the API server's fairness gives us few seats.
WORKERS: Final = 4


class WriteQueue(Generic[K]):
    """Calls `write(key)` for every key put, again after a failure, never twice at a time for one.

    Attributes:
        written: Calls that succeeded.
        failed: Calls that raised a KubeError.
        refused: Of them, those that are not tried again: the object is invalid.
    """

    def __init__(
        self,
        write: Callable[[K], Awaitable[None]],
        *,
        first_s: float = 1.0,
        ceiling_s: float = 300.0,
        name: str = "writes",
    ) -> None:
        """Write with `write`, which raises KubeError when it should be called again.

        Args:
            write: Brings one object up to date; a coroutine with a deadline of its own.
            first_s: Limit of the first delay after a failure; doubles from there.
            ceiling_s: Limit of any delay.
            name: Which queue, in logs and names of tasks.
        """
        self._write = write
        self._first_s = first_s
        self._ceiling_s = ceiling_s
        self._name = name
        # Insertion order is the order of writing; a key is here or in `_busy` or waits in a timer.
        self._due: dict[K, None] = {}
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._backoffs: dict[K, Backoff] = {}
        self._wake = asyncio.Event()
        self.written = 0
        self.failed = 0
        self.refused = 0

    def put(self, key: K) -> None:
        """Have `key` written soon, although a failure may have it wait."""
        if key in self._busy:
            self._again.add(key)
            return
        if key not in self._timers:
            self._due[key] = None
            self._wake.set()

    def __len__(self) -> int:
        """How many keys are not written yet."""
        return len(self._due) + len(self._busy) + len(self._timers)

    async def run(self) -> None:
        """Write until cancelled; what is due then stays due."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(WORKERS):
                    group.create_task(self._work(), name=f"kube.{self._name}.{number}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._due.update(dict.fromkeys(self._timers))
            self._timers.clear()

    async def _work(self) -> None:
        while True:
            while not self._due:
                self._wake.clear()
                await self._wake.wait()
            key = next(iter(self._due))
            del self._due[key]
            self._busy.add(key)
            try:
                await self._call(key)
            except asyncio.CancelledError:
                self._due[key] = None
                raise
            finally:
                self._busy.discard(key)

    async def _call(self, key: K) -> None:
        try:
            await self._write(key)
        except Invalid as e:
            # Trying again changes nothing; a change of the object puts the key again.
            self.failed += 1
            self.refused += 1
            self._backoffs.pop(key, None)
            self._log(logging.ERROR, "kube.write_refused", key, e)
        except KubeError as e:
            self._failed(key, e)
            return
        else:
            self.written += 1
            self._backoffs.pop(key, None)
        if key in self._again:
            self._again.discard(key)
            self._due[key] = None
            self._wake.set()

    def _failed(self, key: K, error: KubeError) -> None:
        self.failed += 1
        self._again.discard(key)
        backoff = self._backoffs.get(key)
        if backoff is None:
            backoff = Backoff(first_s=self._first_s, ceiling_s=self._ceiling_s)
            self._backoffs[key] = backoff
        wait = backoff.failed()
        if isinstance(error, ApiError) and error.retry_after_s:
            wait = max(wait, error.retry_after_s)
        level = logging.DEBUG if isinstance(error, Conflict) else logging.WARNING
        self._log(level, "kube.write_failed", key, error)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(wait, self._due_again, key)

    def _log(self, level: int, event: str, key: K, error: KubeError) -> None:
        told = {"queue": self._name, "key": str(key), "error": str(error)}
        log.log(level, event, extra=told)

    def _due_again(self, key: K) -> None:
        del self._timers[key]
        self.put(key)

    def __repr__(self) -> str:
        return f"<WriteQueue {self._name} waiting={len(self)} written={self.written}>"
