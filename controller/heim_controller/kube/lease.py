"""Leader election on a Lease: of several replicas one writes, and it knows when it must stop.

A candidate takes the lease when its holder has not renewed it for as long as the lease lasts. How
long that is each judges by its own monotonic clock, from the moment it *saw* the lease change:
clocks of machines are never compared (client-go does the same). The holder in turn stops before
anybody may take over: it counts from before it sent its last good renewal.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from heim_controller.kube.client import Client
from heim_controller.kube.errors import Conflict, KubeError, LeadershipLost, NotFound
from heim_controller.kube.moments import micro_time
from heim_controller.kube.resources import LEASES, Manifest
from heim_runtime.clock import Clock, SystemClock
from heim_runtime.tasks import cancel, spawn

__all__ = ["Election", "Terms", "identity_for"]

log = logging.getLogger(__name__)

# How long we try to give the lease back when we end; the next leader waits it out otherwise.
RELEASE_S: Final = 3.0

# A lease that somebody else wrote is believed to last at most this long.
MAX_LEASE_S: Final = 300


@dataclass(frozen=True, slots=True)
class Terms:
    """Times of the election, in seconds; client-go's defaults.

    Attributes:
        lease: How long others wait after our last renewal; whole seconds in the API.
        renew: How long we try to renew before we stop leading; below `lease`.
        retry: Between two tries, to renew as to acquire.
    """

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0

    def __post_init__(self) -> None:
        """Refuse terms under which two could lead.

        Raises:
            ValueError: Not lease > renew > retry > 0.
        """
        if not self.lease > self.renew > self.retry > 0:
            raise ValueError(f"need lease > renew > retry > 0, got {self}")


def identity_for(name: str) -> str:
    """A holder identity for the pod `name`: a restarted container is another candidate."""
    return f"{name}_{uuid.uuid4()}"


@dataclass(slots=True)
class _Seen:
    """The lease as it was when it last changed, and when we saw that, in monotonic seconds."""

    manifest: Manifest
    mark: tuple[object, object]
    at: float


class Election:
    """One candidate for one lease.

    Attributes:
        holder: Who holds the lease as far as we know, "" for nobody.
        transitions: How often the lease changed hands, as written in it.
        renewals: How often we renewed it.
        failures: Tries that the API server did not answer or refused.
    """

    def __init__(
        self,
        client: Client,
        *,
        name: str,
        namespace: str,
        identity: str,
        terms: Terms | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Stand for the lease `name` as `identity`, which no other candidate may have."""
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._terms = terms or Terms()
        self._clock: Clock = clock or SystemClock()
        self._seen: _Seen | None = None
        # Until when we may act as leader, in monotonic seconds.
        self._until = float("-inf")
        self._overstays = False
        self.holder = ""
        self.transitions = 0
        self.renewals = 0
        self.failures = 0

    @property
    def leading(self) -> bool:
        """Whether we may write now; judged by the clock, so that a stalled loop cannot overstay."""
        return self._clock.monotonic() < self._until

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait until elected, then run `lead` and keep renewing; return when it returns.

        When the lease is lost `lead` is cancelled first. Whatever ends `run`, the lease is given
        back if we hold it, within 3 s.

        Raises:
            LeadershipLost: It could not be renewed in time, or somebody else has it. The caller
                exits, and stands again as a new process: nobody can say what was half done.
            Exception: What `lead` raised.
        """
        try:
            await self._elected()
            log.info("kube.leader_elected", extra={"lease": self._name, "identity": self._identity})
            await self._serve(lead)
        finally:
            self._until = float("-inf")
            if not self._overstays:
                await self._release()

    async def _elected(self) -> None:
        while not await self._try():  # noqa: ASYNC110 - the lease is elsewhere
            # Candidates that wait for the same expiry do not all ask at the same moment.
            await asyncio.sleep(self._terms.retry * random.SystemRandom().uniform(0.8, 1.2))

    async def _serve(self, lead: Callable[[], Awaitable[None]]) -> None:
        async def led() -> None:
            await lead()

        leading = spawn("kube.lead", led())
        renewing = spawn("kube.renew", self._renew())
        try:
            await asyncio.wait({leading, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # First the writer, whose time is up; then the one that kept its time.
            await cancel([leading], timeout_s=self._terms.lease - self._terms.renew)
            await cancel([renewing])
            # One that does not end may still write: the lease must run out before the next leads.
            self._overstays = not leading.done()
        if renewing.done() and not renewing.cancelled():
            raise renewing.result()
        if leading.done() and not leading.cancelled():
            leading.result()

    async def _renew(self) -> LeadershipLost:
        """Renew until that fails for too long; returns why. It is no failure of the task."""
        while True:
            await asyncio.sleep(self._terms.retry)
            left = self._until - self._clock.monotonic()
            try:
                async with asyncio.timeout(max(0.0, left)):
                    while not await self._try():
                        if self.holder not in ("", self._identity):
                            self._until = float("-inf")
                            return LeadershipLost(
                                f"lease {self._name}: {self.holder} holds it, not we"
                            )
                        await asyncio.sleep(min(self._terms.retry, 1.0))
            except TimeoutError:
                return LeadershipLost(
                    f"lease {self._name}: not renewed for {self._terms.renew:g} s"
                )

    async def _try(self) -> bool:
        """Ask for the lease, or for more of it, once; True if it is ours now."""
        asked_at = self._clock.monotonic()
        try:
            async with asyncio.timeout(self._terms.renew):
                held = await self._take_or_renew()
        except (KubeError, TimeoutError) as e:
            self.failures += 1
            level = logging.DEBUG if isinstance(e, Conflict) else logging.WARNING
            log.log(level, "kube.lease_failed", extra={"lease": self._name, "error": str(e)})
            return False
        if held:
            self._until = asked_at + self._terms.renew
            self.renewals += 1
        return held

    async def _take_or_renew(self) -> bool:
        if self.holder == self._identity and self._seen is not None:
            # Nobody else writes a lease that is held, so what we wrote last is still there.
            with contextlib.suppress(Conflict, NotFound):
                await self._write(self._seen.manifest)
                return True
        try:
            lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
        except NotFound:
            self._note(await self._client.create(LEASES, self._fresh()))
            return True
        self._note(lease)
        if self.holder not in ("", self._identity) and not self._expired(lease):
            return False
        if self.holder not in ("", self._identity) and self.leading:
            # Taken from us, and run out again meanwhile: our time is over all the same.
            return False
        await self._write(lease)
        return True

    async def _write(self, lease: Manifest) -> None:
        # The resource version in it makes this a race that only one candidate wins.
        self._note(await self._client.replace(LEASES, {**lease, "spec": self._spec(lease)}))

    def _fresh(self) -> Manifest:
        now = micro_time(self._clock.now())
        return {
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": max(1, round(self._terms.lease)),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        }

    def _spec(self, lease: Manifest) -> dict[str, Any]:
        """What the lease says once it is ours."""
        old = _spec_of(lease)
        fresh: dict[str, Any] = self._fresh()["spec"]
        if old.get("holderIdentity") == self._identity:
            fresh["acquireTime"] = old.get("acquireTime") or fresh["acquireTime"]
            fresh["leaseTransitions"] = _count(old.get("leaseTransitions"))
        else:
            fresh["leaseTransitions"] = _count(old.get("leaseTransitions")) + 1
        return {**old, **fresh}

    def _note(self, lease: Manifest) -> None:
        """Remember the lease, and when we saw it change."""
        spec = _spec_of(lease)
        self.holder = str(spec.get("holderIdentity") or "")
        self.transitions = _count(spec.get("leaseTransitions"))
        mark = (self.holder, spec.get("renewTime"))
        if self._seen is None or self._seen.mark != mark:
            self._seen = _Seen(lease, mark, self._clock.monotonic())
        else:
            self._seen.manifest = lease

    def _expired(self, lease: Manifest) -> bool:
        # As long as the holder promised, not as long as we would: it may run with other terms.
        lasts = _count(_spec_of(lease).get("leaseDurationSeconds")) or self._terms.lease
        assert self._seen is not None, "noted before it is judged"
        return self._clock.monotonic() - self._seen.at >= min(lasts, MAX_LEASE_S)

    async def _release(self) -> None:
        """Leave the lease empty, so that the next leader need not wait."""
        if self._seen is None or self.holder != self._identity:
            return
        with contextlib.suppress(KubeError, TimeoutError):
            async with asyncio.timeout(RELEASE_S):
                try:
                    await self._empty(self._seen.manifest)
                except Conflict:
                    # A renewal that was under way when we were told to end got there after all.
                    lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
                    if _spec_of(lease).get("holderIdentity") != self._identity:
                        return
                    await self._empty(lease)
                self.holder = ""
                log.info("kube.leader_released", extra={"lease": self._name})

    async def _empty(self, lease: Manifest) -> None:
        spec = {
            **_spec_of(lease),
            "holderIdentity": "",
            # 0 seconds is refused by the API server, so an empty lease lasts one.
            "leaseDurationSeconds": 1,
            "renewTime": micro_time(self._clock.now()),
        }
        await self._client.replace(LEASES, {**lease, "spec": spec})

    def __repr__(self) -> str:
        state = "leading" if self.leading else f"holder={self.holder!r}"
        return f"<Election {self._namespace}/{self._name} {state}>"


def _spec_of(lease: Manifest) -> dict[str, Any]:
    spec = lease.get("spec")
    return spec if isinstance(spec, dict) else {}


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
