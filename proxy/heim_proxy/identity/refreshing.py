"""A remote document that is fetched once for everybody, kept for a while, and retried politely."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from heim_proxy.identity.login_errors import LoginError
from heim_runtime.clock import Clock
from heim_runtime.tasks import spawn

__all__ = ["Refreshing"]

T = TypeVar("T")


class Refreshing(Generic[T]):
    """One value behind one fetch.

    However many ask at once, one fetch runs (single flight), and after any fetch, good or bad,
    `retry_after_s` seconds pass before the next: neither a dead provider nor a flood of unknown key
    ids turns us into a flood. When a refresh fails, the old value serves for `stale_for_s` seconds.
    """

    __slots__ = (
        "_clock",
        "_error",
        "_fetch",
        "_fetched_at",
        "_fresh_for_s",
        "_name",
        "_retry_after_s",
        "_stale_for_s",
        "_task",
        "_tried_at",
        "_value",
    )

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[T]],
        *,
        clock: Clock,
        fresh_for_s: float,
        stale_for_s: float,
        retry_after_s: float,
    ) -> None:
        """Hold nothing yet; the first `get` fetches.

        Args:
            name: For the task's name.
            fetch: Fetches the value, with its own deadline; fails with LoginError only.
            clock: Its monotonic side is read.
            fresh_for_s: How long a value is used without asking again, in seconds.
            stale_for_s: How old a value may be, in seconds, when it cannot be refreshed.
            retry_after_s: The least time between the starts of two fetches, in seconds.
        """
        self._name = name
        self._fetch = fetch
        self._clock = clock
        self._fresh_for_s = fresh_for_s
        self._stale_for_s = stale_for_s
        self._retry_after_s = retry_after_s
        self._value: T | None = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._error: LoginError | None = None
        self._task: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """The value, fetched if it is missing or no longer fresh.

        Raises:
            LoginError: There is no value that may be used; the last fetch's error.
        """
        if self._value is None or self._age() >= self._fresh_for_s:
            await self._refresh()
        if self._value is not None and self._age() < self._stale_for_s:
            return self._value
        raise self._failure()

    async def newer(self) -> T:
        """The value after one more fetch, unless one was made within the retry interval.

        Raises:
            LoginError: There is no value that may be used.
        """
        await self._refresh()
        return await self.get()

    async def _refresh(self) -> None:
        if self._task is None:
            now = self._clock.monotonic()
            if self._tried_at is not None and now - self._tried_at < self._retry_after_s:
                return
            self._tried_at = now
            self._task = spawn(self._name, self._run())
        # Shielded: the first person to ask may go away while others wait for the same fetch.
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        try:
            self._value = await self._fetch()
            self._fetched_at = self._clock.monotonic()
            self._error = None
        except LoginError as error:
            self._error = error
        finally:
            self._task = None

    def _age(self) -> float:
        return self._clock.monotonic() - self._fetched_at

    def _failure(self) -> LoginError:
        if self._error is None:  # the fetch broke in a way that is ours; spawn has logged it
            return LoginError(self._name, "no value")
        return self._error.again()
