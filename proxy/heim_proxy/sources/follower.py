"""A copy of some objects of the cluster, kept up to date: list, then watch from there, for ever.

Whatever goes wrong, the copy stays; a list that is complete replaces it, so that what was missed
while we were cut off, deletions above all, is not missed for good. The controller's informer is the
same algorithm over another client.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from heim_proxy.sources.answers import ApiError, Event, Selection
from heim_proxy.sources.api import Api, Listing
from heim_runtime.backoff import Backoff

__all__ = ["Follower"]

# So many failures in a row, for whatever reason, and we list again: our version may be one that
# the server never had (etcd restored from a backup).
FAILURES_BEFORE_LIST: Final = 3


class Follower:
    """The `data` of the objects of one selection, by name.

    `synced` says that the copy was complete once; `trouble` why it may not be up to date, in one
    line; both change only just before `changed` is called.
    """

    def __init__(self, api: Api, wanted: Selection, *, changed: Callable[[], None]) -> None:
        """Start with nothing; `run` does the work.

        Args:
            api: Who is asked.
            wanted: For what.
            changed: Called after each change of the copy, of `synced` or of `trouble`; quick.
        """
        self.synced = False
        self.trouble = ""
        self.data: dict[str, Mapping[str, Any]] = {}
        self._api = api
        self._wanted = wanted
        self._changed = changed
        # Where a watch goes on; "" when only a list can tell.
        self._version = ""
        self._versions: dict[str, str] = {}
        self._seen_gone = False
        self._failures = 0
        pace = api.pace
        self._backoff = Backoff(first_s=pace.first, ceiling_s=pace.ceiling, grace_s=pace.healthy)
        self._random = random.SystemRandom()

    async def run(self) -> None:
        """Keep the copy up to date until cancelled."""
        while True:
            began = time.monotonic()
            try:
                if not self._version:
                    # Not from the server's cache once we know better: it may be behind us.
                    fresh = self.synced or self._seen_gone
                    self._replace(await self._list(None if fresh else "0"))
                began = time.monotonic()
                await self._watch()
            except ApiError as error:
                await asyncio.sleep(self._failed(error))
            else:
                self._failures = 0
                if time.monotonic() - began < self._api.pace.healthy:
                    # It ends every watch some time, but one that does so at once has a fault.
                    await asyncio.sleep(self._backoff.failed())

    async def _list(self, version: str | None) -> Listing:
        try:
            listing = await self._api.list(self._wanted, version=version)
        except TimeoutError as error:
            raise ApiError("the API server does not answer") from error
        if not listing.version:
            raise ApiError(f"a list of {self._wanted} has no version", stale=True)
        return listing

    def _replace(self, listing: Listing) -> None:
        fresh: dict[str, Mapping[str, Any]] = {}
        versions: dict[str, str] = {}
        for item in listing.items:
            name, version = _identity(item)
            if name:
                fresh[name], versions[name] = _data(item), version
        changed = versions != self._versions or not self.synced
        self.data, self._versions = fresh, versions
        self._version = listing.version
        self.synced = True
        if changed:
            self._changed()

    async def _watch(self) -> None:
        events = self._api.watch(
            self._wanted,
            version=self._version,
            duration_s=self._random.uniform(*self._api.pace.watch),
        )
        try:
            async for event in events:
                if event is None:
                    self._backoff.succeeded()
                    self._well()
                else:
                    self._failures = 0
                    self._take(event)
        finally:
            await events.aclose()

    def _take(self, event: Event) -> None:
        name, version = _identity(event.object)
        if not version:
            raise ApiError(f"an event of {self._wanted} has no version", stale=True)
        self._version = version
        if event.type == "BOOKMARK" or not name:
            return
        if event.type == "DELETED":
            self.data.pop(name, None)
            self._versions.pop(name, None)
        else:
            self.data[name] = _data(event.object)
            self._versions[name] = version
        self._changed()

    def _failed(self, error: ApiError) -> float:
        """Count a failure, decide what comes next, and return how long to wait before it."""
        if error.status == 410:
            # Nothing is wrong: the server forgets what is old.
            self._version, self._seen_gone = "", True
            return self._backoff.failed()
        self._failures += 1
        if error.stale or self._failures >= FAILURES_BEFORE_LIST:
            self._version = ""
        if self.trouble != str(error):
            self.trouble = str(error)
            self._changed()
        wait = self._backoff.failed()
        if error.status in (403, 404):
            # Only an operator can help.
            wait = self._api.pace.denied * self._random.uniform(0.5, 1.0)
        return max(wait, min(error.retry_after_s or 0.0, self._api.pace.ceiling))

    def _well(self) -> None:
        if self.trouble:
            self.trouble = ""
            self._changed()

    def __repr__(self) -> str:
        return f"<Follower {self._wanted} synced={self.synced} objects={len(self.data)}>"


def _identity(manifest: Mapping[str, Any]) -> tuple[str, str]:
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict):
        return "", ""
    name, version = metadata.get("name"), metadata.get("resourceVersion")
    return (
        name if isinstance(name, str) else "",
        version if isinstance(version, str) else "",
    )


def _data(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    data = manifest.get("data")
    return data if isinstance(data, dict) else {}
