"""The running controller: its parts, how they start, and how they end.

Every replica follows the cluster, so that it can take over at once; only the one that holds the
Lease writes. One that loses the Lease ends as a process: nobody can say what it had half done.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Final

from heim_controller.caches import Caches
from heim_controller.health import Health
from heim_controller.kube.client import Client
from heim_controller.kube.errors import LeadershipLost
from heim_controller.kube.informer import Informer, Pace
from heim_controller.kube.lease import Election, Terms, identity_for
from heim_controller.leading import TICK_S, Leader
from heim_controller.metrics import Readings
from heim_controller.options import Options
from heim_controller.translation.objects import Ref
from heim_runtime.clock import Clock
from heim_runtime.tasks import cancel, spawn
from heim_runtime.version import version

__all__ = ["App"]

log = logging.getLogger(__name__)

# What is being written may end, and the Lease is given back: 5 and 3 seconds at most. kubelet
# waits for 30.
STOP_S: Final = 12.0

_LOST: Final = 1


class App:
    """One replica.

    Attributes:
        health: Where /livez, /readyz and /metrics are.
        leader: What it does when it leads.
    """

    def __init__(
        self,
        client: Client,
        options: Options,
        *,
        terms: Terms | None = None,
        pace: Pace | None = None,
        clock: Clock | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        """Put the parts together; nothing is asked yet.

        Args:
            client: Speaks to the API server; whoever made it closes it.
            options: What the program was told.
            terms: Times of the election.
            pace: Times of informers.
            clock: Where the time comes from.
            tick_s: How often everything is looked at although nothing changed, in seconds.
        """
        self._client = client
        self._caches = Caches(client, options, touched=self._touched, pace=pace)
        self._election = Election(
            client,
            name=options.lease,
            namespace=options.namespace,
            identity=identity_for(options.pod),
            terms=terms,
            clock=clock,
        )
        self.leader = Leader(
            client.while_leading(lambda: self._election.leading),
            options,
            self._caches,
            clock=clock,
            tick_s=tick_s,
        )
        self.health = Health(
            options.health, missing=lambda: self._caches.missing, readings=self.readings
        )
        self._options = options
        self._stopped = asyncio.Event()
        self._lost = False

    def stop(self) -> None:
        """Have `run` return: what is being written ends, and the Lease is given back."""
        self._stopped.set()

    async def run(self) -> int:
        """Follow the cluster until `stop`; returns an exit status, 1 when the Lease was lost.

        Raises:
            Complaint: The health address cannot be used.
        """
        async with self.health:
            host, port = self.health.place
            log.info(
                "controller.started",
                extra={
                    "proxy": "/".join(self._options.settings.proxy),
                    "health": f"{host}:{port}",
                    "secrets": self._options.secrets,
                    "version": version(),
                },
            )
            following = spawn("controller.caches", self._caches.run())
            standing = spawn("controller.election", self._stand())
            stopping = spawn("controller.stop", self._until_stopped())
            try:
                done, _ = await asyncio.wait(
                    {following, standing, stopping}, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                # The writer first: what it writes rests on what the others know.
                await cancel([standing], timeout_s=STOP_S)
                await cancel([following, stopping])
            for task in done:
                task.result()
        log.info("controller.stopped")
        return _LOST if self._lost else 0

    async def _until_stopped(self) -> None:
        await self._stopped.wait()

    async def _stand(self) -> None:
        # One that cannot see everything must not keep one that can from leading.
        await self._caches.wait_synced()
        try:
            await self._election.run(self.leader.lead)
        except LeadershipLost as e:
            self._lost = True
            log.warning("controller.lease_lost", extra={"error": str(e)})

    def _touched(self, ref: Ref, whole: bool) -> None:
        self.leader.touched(ref, whole)

    def readings(self) -> Readings:
        """What /metrics tells."""
        leader, exchange = self.leader, self._client.exchange
        found: dict[str, dict[tuple[str, ...], float]] = {
            "leader": {(): self._election.leading},
            "synced": {(): self._caches.synced},
            "requests_total": {(): exchange.requests},
            "request_failures_total": {(): exchange.failures},
            "lease_failures_total": {(): self._election.failures},
            "info": {(version(),): 1},
            **self._cache_readings(),
            **_leader_readings(leader),
        }
        return {f"heim_controller_{name}": values for name, values in found.items()}

    def _cache_readings(self) -> dict[str, dict[tuple[str, ...], float]]:
        found: dict[str, dict[tuple[str, ...], float]] = {}
        now = time.monotonic()
        for name, informer in self._caches.informers:
            for metric, value in _informer_readings(informer, now).items():
                found.setdefault(metric, {})[name,] = value
        return found


def _informer_readings(informer: Informer, now: float) -> dict[str, float]:
    seen = informer.last_event_at
    return {
        "objects": len(informer.objects),
        "watch_lists_total": informer.lists,
        "watch_restarts_total": informer.restarts,
        "watch_gone_total": informer.gone,
        "watch_errors_total": informer.errors,
        "denied": informer.denied,
        **({} if seen is None else {"watch_silence_seconds": now - seen}),
    }


def _leader_readings(leader: Leader) -> dict[str, dict[tuple[str, ...], float]]:
    queue, events, mirrors = leader.statuses.queue, leader.recorder, leader.mirrors
    found: dict[str, dict[tuple[str, ...], float]] = {
        "translations_total": {(): leader.translations},
        "failures_total": {(step,): count for step, count in leader.failures.items()},
        "published_total": {(): leader.publisher.written},
        "refused": {(): bool(leader.refused)},
        "applied": {(): leader.applied.current},
        "mirrors_total": {
            ("written",): mirrors.written,
            ("removed",): mirrors.removed,
            ("failed",): mirrors.failed,
        },
        "status_writes_total": {
            ("written",): queue.written,
            ("failed",): queue.failed,
            ("refused",): queue.refused,
        },
        "events_total": {
            ("written",): events.written,
            ("dropped",): events.dropped,
            ("failed",): events.failed,
        },
        "certificate_not_after_seconds": dict(leader.expiries()),
    }
    generation = leader.generation
    if generation is not None:
        reasons = Counter(one.reason for one in generation.translation.diagnostics)
        found |= {
            "translation_seconds": {(): generation.seconds},
            "diagnostics": {(reason,): count for reason, count in reasons.items()},
            "routes": {(): generation.routes},
            "document_bytes": {(): len(generation.content)},
        }
    return found
