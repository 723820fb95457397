"""Events: what `kubectl describe` shows below a user's object about what we made of it.

The same thing said again is not a new Event but a count in the first one, written at most once a
minute; and no object gets more than 25 at once and one in five minutes from then on (client-go's
numbers), so that an Ingress that is wrong on every rebuild costs the API server nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from heim_controller.kube.client import Client
from heim_controller.kube.errors import ApiError, Busy, KubeError, NotFound, Unreachable
from heim_controller.kube.moments import micro_time
from heim_controller.kube.resources import EVENTS, Manifest, key_of
from heim_runtime.clock import Clock, SystemClock

__all__ = ["CONTROLLER", "EventKind", "Rates", "Recorder"]

log = logging.getLogger(__name__)

EventKind: TypeAlias = Literal["Normal", "Warning"]

CONTROLLER: Final = "heim.dev/ingress-controller"

# What the API server accepts.
MAX_NOTE: Final = 1024
MAX_WORD: Final = 128
MAX_NAME: Final = 253

# Where Events about objects of the cluster go: `default` is accepted only by later API servers.
CLUSTER_NAMESPACE: Final = "kube-system"


@dataclass(frozen=True, slots=True)
class Rates:
    """How much is written.

    Attributes:
        burst: Events about one object that may be written at once.
        refill_s: Seconds until one more may be.
        repeat_s: Seconds between two writes of the count of one Event.
        forget_s: Seconds after which the same thing is a new Event; the API server deletes them
            after an hour.
        remembered: Events, and objects, that we remember; those longest silent go first.
        waiting: Writes that may wait for the API server; more are dropped and counted.
    """

    burst: int = 25
    refill_s: float = 300.0
    repeat_s: float = 60.0
    forget_s: float = 2400.0
    remembered: int = 4096
    waiting: int = 1024


@dataclass(slots=True)
class _Told:
    """An Event as we remember it."""

    manifest: Manifest
    count: int
    last: float
    written: float = float("-inf")
    created: bool = False
    queued: bool = False


@dataclass(slots=True)
class _Bucket:
    """What one object may still get."""

    tokens: float
    at: float


_Said: TypeAlias = tuple[str, str, str, str, str, str, str]


@dataclass(slots=True)
class _Memory:
    said: OrderedDict[_Said, _Told] = field(default_factory=OrderedDict)
    buckets: OrderedDict[tuple[str, str, str, str], _Bucket] = field(default_factory=OrderedDict)


class Recorder:
    """Writes Events, as `record` says, from its task `run`.

    Attributes:
        written: Requests that the API server accepted.
        dropped: Not written: over the rate of an object, or too many waiting.
        failed: Not written: the API server refused.
    """

    def __init__(
        self,
        client: Client,
        *,
        instance: str,
        controller: str = CONTROLLER,
        rates: Rates | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Write as `controller`, from the pod `instance`."""
        self._client = client
        self._controller = controller
        self._instance = instance[:MAX_WORD] or "unknown"
        self._rates = rates or Rates()
        self._clock: Clock = clock or SystemClock()
        self._memory = _Memory()
        self._queue: asyncio.Queue[_Told] = asyncio.Queue(self._rates.waiting)
        self.written = 0
        self.dropped = 0
        self.failed = 0

    def record(
        self,
        regarding: Mapping[str, Any],
        *,
        type: EventKind,  # noqa: A002 - the API's word
        reason: str,
        note: str,
        action: str,
    ) -> None:
        """Say something about an object; never blocks, never raises for the API server's sake.

        Args:
            regarding: The object as the API server sent it, with kind and metadata.
            type: "Normal" or "Warning".
            reason: One CamelCase word for machines ("HostPathConflict").
            note: One sentence for people, at most 1,024 bytes; cut if it is longer. It must not
                hold what is in Secrets.
            action: What we were doing ("Sync").
        """
        now = self._clock.monotonic()
        reference = _reference(regarding)
        said = (
            reference["kind"], reference.get("namespace", ""), reference["name"],
            reference.get("uid", ""), type, reason, note,
        )  # fmt: skip
        told = self._memory.said.get(said)
        if told is not None and now - told.last < self._rates.forget_s:
            told.count += 1
            told.last = now
            self._memory.said.move_to_end(said)
            if now - told.written < self._rates.repeat_s or told.queued:
                return
        else:
            manifest = self._event(reference, type, reason, note, action)
            told = _Told(manifest, 1, now)
            _keep(self._memory.said, said, told, self._rates.remembered)
        if self._may(said[:4], now):
            self._put(told)
        else:
            self.dropped += 1

    async def run(self) -> None:
        """Write what is recorded until cancelled, one after the other."""
        while True:
            told = await self._queue.get()
            told.queued = False
            try:
                await self._write(told)
            except (Unreachable, Busy) as e:
                # An Event is a courtesy: it is not worth a queue that grows during an outage.
                self.failed += 1
                wait = e.retry_after_s if isinstance(e, Busy) else None
                await asyncio.sleep(min(wait or 1.0, 30.0))
            except KubeError as e:
                self.failed += 1
                # 403 for a namespace that is being deleted is daily life.
                level = logging.INFO if isinstance(e, ApiError) else logging.WARNING
                log.log(level, "kube.event_refused", extra={"error": str(e)})
            else:
                self.written += 1

    def _event(
        self, reference: dict[str, str], kind: str, reason: str, note: str, action: str
    ) -> Manifest:
        namespace = reference.get("namespace") or CLUSTER_NAMESPACE
        # Unique for each, so that two replicas never write one Event; the name comes first, since
        # people look for it in `kubectl get events`.
        suffix = f".{secrets.token_hex(8)}"
        return {
            "metadata": {
                "name": reference["name"][: MAX_NAME - len(suffix)].rstrip(".-") + suffix,
                "namespace": namespace,
            },
            "eventTime": micro_time(self._clock.now()),
            "type": kind,
            "reason": reason[:MAX_WORD],
            "action": action[:MAX_WORD],
            "note": _cut(note, MAX_NOTE),
            "regarding": reference,
            "reportingController": self._controller,
            "reportingInstance": self._instance,
        }

    def _may(self, about: tuple[str, str, str, str], now: float) -> bool:
        """Take a token of this object's bucket."""
        rates = self._rates
        bucket = self._memory.buckets.get(about)
        if bucket is None:
            bucket = _Bucket(rates.burst, now)
            _keep(self._memory.buckets, about, bucket, rates.remembered)
        else:
            self._memory.buckets.move_to_end(about)
        bucket.tokens = min(rates.burst, bucket.tokens + (now - bucket.at) / rates.refill_s)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _put(self, told: _Told) -> None:
        try:
            self._queue.put_nowait(told)
        except asyncio.QueueFull:
            self.dropped += 1
        else:
            told.queued = True

    async def _write(self, told: _Told) -> None:
        told.written = self._clock.monotonic()
        if told.created and told.count > 1:
            metadata = told.manifest["metadata"]
            series = {"count": told.count, "lastObservedTime": micro_time(self._clock.now())}
            with contextlib.suppress(NotFound):  # the API server deletes them after an hour
                await self._client.patch(
                    EVENTS, metadata["name"], {"series": series}, namespace=metadata["namespace"]
                )
                return
        await self._client.create(EVENTS, told.manifest)
        told.created = True

    def __repr__(self) -> str:
        return f"<Recorder written={self.written} dropped={self.dropped} failed={self.failed}>"


def _reference(manifest: Mapping[str, Any]) -> dict[str, str]:
    """An ObjectReference to an object."""
    namespace, name = key_of(manifest)
    metadata = manifest["metadata"]
    found = {
        "apiVersion": str(manifest.get("apiVersion") or ""),
        "kind": str(manifest.get("kind") or ""),
        "namespace": namespace,
        "name": name,
        "uid": str(metadata.get("uid") or ""),
        "resourceVersion": str(metadata.get("resourceVersion") or ""),
    }
    return {key: value for key, value in found.items() if value or key == "kind"}


def _cut(text: str, limit: int) -> str:
    """`text` in at most `limit` bytes of UTF-8, with an ellipsis where it was cut."""
    if len(text.encode()) <= limit:
        return text
    return text.encode()[: limit - 3].decode("utf-8", "ignore") + "…"


def _keep(memory: OrderedDict[Any, Any], key: Any, value: Any, limit: int) -> None:
    memory[key] = value
    memory.move_to_end(key)
    while len(memory) > limit:
        memory.popitem(last=False)
