"""Writes the status of objects: addresses of Ingresses, conditions of our own kinds.

Only of objects that are ours, only when it differs, and only while we lead. An Ingress that is not
ours any more loses what we wrote, which the API server knows, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from heim_controller.kube import resources
from heim_controller.kube.apply import conditions, same_status
from heim_controller.kube.client import FIELD_MANAGER, Client
from heim_controller.kube.errors import NotFound
from heim_controller.kube.queue import WriteQueue
from heim_controller.kube.resources import Manifest, Resource, stripped, version_of
from heim_controller.translation.objects import Ref, listed, mapping
from heim_runtime.clock import Clock, SystemClock

__all__ = ["Statuses", "Wanted", "has_address"]

log = logging.getLogger(__name__)

_KINDS: Final[Mapping[str, Resource]] = {
    one.kind: one
    for one in (
        resources.INGRESSES,
        resources.PROXIES,
        resources.BACKENDS,
        resources.ROLES,
        resources.ROLE_BINDINGS,
        resources.AGENTS,
    )
}

# Objects compared in one go, at 20 µs each.
_SLICE: Final = 200

Wanted = Callable[[Ref, Manifest], Mapping[str, Any] | None]
"""What the status of an object should be, given it as it is: keys of the status, conditions still
without their times; None when the object is not ours."""


@dataclass(slots=True)
class _Written:
    """What we wrote last, until the cache has it: the version it was based on, and the result."""

    before: str
    after: Manifest


@dataclass(slots=True)
class _Hooks:
    """Who gives objects, who says what they should say, and who hears of what was written."""

    find: Callable[[Ref], Manifest | None]
    wanted: Wanted
    ours: Callable[[Ref, Manifest], bool] = field(default=lambda ref, found: True)
    wrote: Callable[[Ref, Manifest, Mapping[str, Any]], None] = field(
        default=lambda ref, before, status: None
    )


class Statuses:
    """The queue of statuses to look at; `run` it while leading.

    Attributes:
        queue: Its counters are for metrics.
    """

    def __init__(
        self,
        client: Client,
        *,
        find: Callable[[Ref], Manifest | None],
        wanted: Wanted,
        ours: Callable[[Ref, Manifest], bool] | None = None,
        wrote: Callable[[Ref, Manifest, Mapping[str, Any]], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Write nothing yet.

        Args:
            client: Who writes.
            find: Gives an object as the caches have it.
            wanted: Says what its status should be.
            ours: Says of an Ingress that is to be given up whether what it says now is ours.
            wrote: Called with the object before, and the status that was written.
            clock: For the times of conditions.
        """
        self._client = client
        self._hooks = _Hooks(find, wanted)
        if ours is not None:
            self._hooks.ours = ours
        if wrote is not None:
            self._hooks.wrote = wrote
        self._clock: Clock = clock or SystemClock()
        self._written: dict[Ref, _Written] = {}
        # Objects that said what they should when they were looked at, with what that was.
        self._fine: dict[Ref, tuple[Manifest, Mapping[str, Any]]] = {}
        # Ingresses that say what somebody else wrote, by the version in which they do.
        self._theirs: dict[Ref, str] = {}
        self.queue: WriteQueue[Ref] = WriteQueue(self._write, name="status")

    def look(self, ref: Ref) -> None:
        """See to it that an object says what it should."""
        if ref.kind in _KINDS and self._differs(ref):
            self.queue.put(ref)

    async def look_all(self, refs: Iterable[Ref]) -> None:
        """The same for many, giving others their turn in between."""
        for number, ref in enumerate(refs):
            self.look(ref)
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        known: dict[Ref, Any]
        for known in (self._written, self._theirs, self._fine):
            for ref in [one for one in known if self._hooks.find(one) is None]:
                known.pop(ref)

    async def run(self) -> None:
        """Write until cancelled."""
        await self.queue.run()

    def _current(self, ref: Ref) -> Manifest | None:
        """The object as it is, with what we wrote if the cache does not have that yet."""
        found = self._hooks.find(ref)
        written = self._written.get(ref)
        if written is None:
            return found
        if found is not None and version_of(found) == written.before:
            return written.after
        del self._written[ref]
        return found

    def _differs(self, ref: Ref) -> bool:
        current = self._current(ref)
        if current is None:
            return False
        wanted = self._hooks.wanted(ref, current)
        if wanted is None:
            return has_address(current) and self._theirs.get(ref) != version_of(current)
        fine = self._fine.get(ref)
        if fine is not None and fine[0] is current and fine[1] == wanted:
            return False
        if not same_status(self._status(wanted, current), current):
            return True
        self._fine[ref] = (current, wanted)
        return False

    def _status(self, wanted: Mapping[str, Any], current: Manifest) -> dict[str, Any]:
        status = dict(wanted)
        if "conditions" in status:
            status["conditions"] = conditions(status["conditions"], current, now=self._clock.now())
        return status

    async def _write(self, ref: Ref) -> None:
        current = self._current(ref)
        if current is None:
            return
        wanted = self._hooks.wanted(ref, current)
        if wanted is None:
            await self._give_up(ref)
            return
        status = self._status(wanted, current)
        if not same_status(status, current):
            await self._apply(ref, current, status)

    async def _apply(self, ref: Ref, current: Manifest, status: Mapping[str, Any]) -> None:
        metadata = {"name": ref.name, "namespace": ref.namespace}
        found = self._hooks.find(ref)
        try:
            after = await self._client.apply_status(
                _KINDS[ref.kind], {"metadata": metadata, "status": dict(status)}
            )
        except NotFound:
            self._written.pop(ref, None)
            return  # deleted meanwhile
        self._written[ref] = _Written(version_of(found or {}), stripped(after))
        self._hooks.wrote(ref, current, status)

    async def _give_up(self, ref: Ref) -> None:
        """Take back what we wrote into an Ingress, if we did; its API server knows."""
        resource = _KINDS[ref.kind]
        if resource is not resources.INGRESSES:
            return
        try:
            found = await self._client.get(resource, ref.name, namespace=ref.namespace)
            if not (_is_writer(found) and self._hooks.ours(ref, found)):
                self._theirs[ref] = version_of(found)
                return
            metadata = {"name": ref.name, "namespace": ref.namespace}
            await self._client.apply_status(resource, {"metadata": metadata, "status": {}})
        except NotFound:
            return
        log.info(
            "controller.status_given_up",
            extra={"namespace": ref.namespace, "ingress": ref.name},
        )


def has_address(current: Manifest) -> bool:
    """Whether an Ingress says where it is reached."""
    balancer = mapping(mapping(current.get("status")).get("loadBalancer"))
    return current.get("kind") == "Ingress" and bool(listed(balancer.get("ingress")))


def _is_writer(found: Manifest) -> bool:
    entries = map(mapping, listed(mapping(found.get("metadata")).get("managedFields")))
    return any(
        entry.get("manager") == FIELD_MANAGER and entry.get("subresource") == "status"
        for entry in entries
    )
