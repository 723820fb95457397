"""A copy of all objects of one kind, kept up to date for as long as the program runs.

List, then watch from there; whatever goes wrong, the copy that we have stays in use, and a list
that is complete is compared with it, so that nothing missed while we were cut off stays missed,
deletions above all. The copy is never shown half: before the first complete list it is empty and
`synced` is False.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from heim_controller.kube.client import Client
from heim_controller.kube.errors import (
    ApiError,
    Busy,
    Forbidden,
    Garbled,
    Gone,
    KubeError,
    NotFound,
    Unauthorized,
)
from heim_controller.kube.resources import Key, Manifest, Resource, key_of, stripped, version_of
from heim_controller.kube.watch import WatchEvent
from heim_runtime.backoff import Backoff

__all__ = ["Change", "ChangeType", "Informer", "Pace"]

log = logging.getLogger(__name__)

ChangeType: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]

# So many watches in a row that failed, for whatever reason, and we list again: the version that
# we hold may be one that the server never had (etcd restored from a backup).
FAILURES_BEFORE_LIST: Final = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One object that is not what it was.

    Attributes:
        type: What happened to our copy; events that the watch missed are told alike.
        key: Namespace and name.
        object: The object as it is; as it was last, when it is DELETED.
        before: The object as it was, None when it is ADDED.
    """

    type: ChangeType
    key: Key
    object: Manifest
    before: Manifest | None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the parts of the cycle take, in seconds.

    Attributes:
        first: Limit of the first delay after a failure.
        ceiling: Limit of any delay.
        healthy: A watch that lasted this long ends the count of failures.
        denied: Between tries when only an operator can help (RBAC, missing CRD).
        watch: How long the server keeps a watch open: uniform between the two, so that
            informers that started together do not all come back together.
    """

    first: float = 0.2
    ceiling: float = 30.0
    healthy: float = 5.0
    denied: float = 30.0
    watch: tuple[float, float] = (240.0, 480.0)


class Informer:
    """The copy of one kind of objects, in all namespaces or one.

    `run` it in the program's TaskGroup: it ends only when it is cancelled, or by a mistake of ours.
    Objects are read-only for everybody else, without managedFields and kubectl's last-applied.

    Attributes:
        resource: The kind.
        synced: Whether `objects` was complete once; never False again.
        problem: What keeps the copy from being up to date now, or None; one line.
        denied: Whether it is RBAC that keeps it so.
        lists: Lists begun, the first one included.
        restarts: Watches begun after the first one.
        gone: How often our version had been compacted.
        errors: Lists and watches that failed for another reason.
        last_event_at: `time.monotonic()` of the last sign of life, or None.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        namespace: str | None = None,
        selector: str = "",
        fields: str = "",
        on_change: Callable[[Change], None] | None = None,
        optional: bool = False,
        keep: Callable[[Manifest], Manifest] = stripped,
        pace: Pace | None = None,
    ) -> None:
        """Start with nothing; `run` does the work.

        Args:
            client: Who asks.
            resource: The kind.
            namespace: None for all of them.
            selector: Label selector.
            fields: Field selector.
            on_change: Called for each change once our copy has it; must be quick and not raise.
            optional: The kind may not exist (its CRD is not installed): that counts as synced
                and empty, until it does.
            keep: What of an object is kept; it may change the object that it gets.
            pace: Delays.
        """
        self.resource = resource
        self.synced = False
        self.problem: str | None = None
        self.denied = False
        self.lists = 0
        self.restarts = 0
        self.gone = 0
        self.errors = 0
        self.last_event_at: float | None = None
        self._client = client
        self._namespace = namespace
        self._selector = selector
        self._fields = fields
        self._on_change = on_change
        self._optional = optional
        self._keep = keep
        self._pace = pace or Pace()
        self._objects: dict[Key, Manifest] = {}
        self._view = MappingProxyType(self._objects)
        self._ready = asyncio.Event()
        self._settled = asyncio.Event()
        # Where a watch goes on; "" when only a list can tell.
        self._version = ""
        self._watches = 0
        self._failures = 0
        self._backoff = Backoff(
            first_s=self._pace.first, ceiling_s=self._pace.ceiling, grace_s=self._pace.healthy
        )
        # Full jitter goes down to 0; a server that said no for good is asked half as often as
        # that on average, and never at once.
        self._random = random.SystemRandom()

    @property
    def objects(self) -> Mapping[Key, Manifest]:
        """The copy: a live view, that changes between two awaits but never during none."""
        return self._view

    async def wait_synced(self) -> None:
        """Wait until `synced`; give it a deadline, since there may be no server."""
        await self._ready.wait()

    async def wait_settled(self) -> None:
        """Wait until `synced` or `denied`: for copies that the program can do without."""
        await self._settled.wait()

    async def run(self) -> None:
        """Keep the copy up to date until cancelled."""
        while True:
            began = time.monotonic()
            try:
                if not self._version:
                    await self._list()
                began = time.monotonic()
                await self._watch()
            except KubeError as e:
                await asyncio.sleep(self._failed(e))
            else:
                # The server ends every watch some time, which is nothing to wait for. One that
                # ends them at once has a fault that it does not tell.
                self._failures = 0
                if time.monotonic() - began < min(self._pace.healthy, self._pace.watch[0]):
                    await asyncio.sleep(self._backoff.failed())

    async def _list(self) -> None:
        self.lists += 1
        try:
            listing = await self._client.list(
                self.resource,
                namespace=self._namespace,
                selector=self._selector,
                fields=self._fields,
                # From the server's cache, which spares etcd when a whole cluster restarts. Later
                # ones must not lead back to before what we have seen already.
                version=None if self.synced or self.gone else "0",
            )
        except NotFound as e:
            if not self._optional or self._objects:
                raise
            self._mark_synced()
            raise _Absent(e.status, e.message, reason=e.reason) from e
        if not listing.version:
            raise Garbled(f"a list of {self.resource} has no resourceVersion")
        self._replace({key_of(item): self._keep(item) for item in listing.items})
        self._version = listing.version
        self._seen()
        self._mark_synced()

    def _replace(self, fresh: dict[Key, Manifest]) -> None:
        """Make the copy what a complete list says, then tell every difference."""
        changes = [
            Change("DELETED", key, before, before)
            for key, before in self._objects.items()
            if key not in fresh
        ]
        for key, manifest in fresh.items():
            before = self._objects.get(key)
            if before is None:
                changes.append(Change("ADDED", key, manifest, None))
            elif version_of(before) != version_of(manifest):
                changes.append(Change("MODIFIED", key, manifest, before))
        self._objects.clear()
        self._objects.update(fresh)
        for change in changes:
            self._tell(change)

    async def _watch(self) -> None:
        self.restarts += self._watches > 0
        self._watches += 1
        async with self._client.watch(
            self.resource,
            version=self._version,
            namespace=self._namespace,
            selector=self._selector,
            fields=self._fields,
            duration_s=self._random.uniform(*self._pace.watch),
        ) as events:
            self._backoff.succeeded()
            self.problem = None
            self.denied = False
            self._seen()
            async for event in events:
                self._failures = 0
                self._seen()
                self._take(event)

    def _take(self, event: WatchEvent) -> None:
        version = version_of(event.object)
        if not version:
            raise Garbled(f"an event of {self.resource} has no resourceVersion")
        self._version = version
        if event.type == "BOOKMARK":
            return
        key = key_of(event.object)
        before = self._objects.get(key)
        manifest = self._keep(event.object)
        if event.type == "DELETED":
            if self._objects.pop(key, None) is not None:
                self._tell(Change("DELETED", key, manifest, before))
            return
        self._objects[key] = manifest
        self._tell(Change("ADDED" if before is None else "MODIFIED", key, manifest, before))

    def _failed(self, error: KubeError) -> float:
        """Count a failure, decide what comes next, and return how long to wait before it."""
        if isinstance(error, Gone):
            self.gone += 1
            self._version = ""
        else:
            self.errors += 1
            self._failures += 1
            if _spoils_version(error) or self._failures >= FAILURES_BEFORE_LIST:
                self._version = ""
        problem = str(error)
        if problem != self.problem and not isinstance(error, Gone | _Absent):
            # Once, not every 30 s: a missing permission stays missing until somebody acts.
            log.warning(
                "kube.informer_failed",
                extra={"resource": str(self.resource), "error": problem, "synced": self.synced},
            )
        self.problem = None if isinstance(error, _Absent) else problem
        self.denied = isinstance(error, Forbidden)
        if self.denied:
            self._settled.set()
        wait = self._backoff.failed()
        if isinstance(error, Forbidden | NotFound):
            wait = self._pace.denied * self._random.uniform(0.5, 1.0)
        asked = error.retry_after_s if isinstance(error, ApiError) else None
        return max(wait, asked or 0.0)

    def _tell(self, change: Change) -> None:
        if self._on_change is not None:
            self._on_change(change)

    def _seen(self) -> None:
        self.last_event_at = time.monotonic()

    def _mark_synced(self) -> None:
        if not self.synced:
            self.synced = True
            self._ready.set()
            self._settled.set()

    def __repr__(self) -> str:
        state = "synced" if self.synced else "not synced"
        return f"<Informer {self.resource} {state} objects={len(self._objects)}>"


class _Absent(NotFound):
    """The kind does not exist, which we were told to expect."""


def _spoils_version(error: KubeError) -> bool:
    """Whether the version we hold may be what the server complains of."""
    if isinstance(error, Garbled):
        return True
    return isinstance(error, ApiError) and not isinstance(error, Busy | Forbidden | Unauthorized)
