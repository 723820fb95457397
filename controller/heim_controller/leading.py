"""What the leading replica does: translate what changed, publish it, and say what came of it.

Everything here starts from what the API server has, never from what we did before: a leader that
ended in the middle of something is followed by one that brings it to its end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from heim_controller.addresses import published_at
from heim_controller.applied import Applied
from heim_controller.caches import Caches, Inventory
from heim_controller.certificates import Book
from heim_controller.conditions import Programming, Standing, conditions_of, proxy_conditions
from heim_controller.debounce import Debounce
from heim_controller.generation import Generation, count_routes, generate
from heim_controller.issuing import Issuing
from heim_controller.kube.apply import same_status
from heim_controller.kube.client import Client
from heim_controller.kube.errors import KubeError
from heim_controller.kube.events import Recorder
from heim_controller.kube.resources import Manifest
from heim_controller.mirror import Mirrors, plan
from heim_controller.options import Options
from heim_controller.publish import Publisher
from heim_controller.reporting import ACTION, Reporter
from heim_controller.status import Statuses, has_address
from heim_controller.translation.certificates import hosts_shown
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.memory import Memory
from heim_controller.translation.objects import Ref, mapping
from heim_controller.translation.translate import Served, Translation
from heim_runtime.backoff import Backoff
from heim_runtime.clock import Clock, SystemClock
from heim_runtime.collector import settle

__all__ = ["Leader"]

log = logging.getLogger(__name__)

# How often everything is looked at although nothing changed: certificates expire, permissions are
# granted, and somebody may have edited what we wrote.
TICK_S: Final = 60.0
# A translation and all writes of the largest document, each of which has its own deadline.
CYCLE_S: Final = 300.0
# A change that comes right after another one waits no longer than this for its turn.
MAX_REST_S: Final = 0.5
# Hosts that one line of the log names.
MAX_TOLD: Final = 20
# Routes of a cluster whose caches are worth keeping from the garbage collector.
LARGE: Final = 400


class Leader:
    """Run `lead` while elected; tell it with `touched` what changes in the caches at any time.

    Attributes:
        generation: The last translation, or None.
        refused: Why that is not published, "".
        failures: Steps that failed, by their name.
        translations: How many there were.
    """

    def __init__(
        self,
        client: Client,
        options: Options,
        caches: Caches,
        *,
        clock: Clock | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        """Do nothing yet."""
        self._options = options
        self._caches = caches
        self._clock: Clock = clock or SystemClock()
        self._tick_s = tick_s
        self._debounce = Debounce(clock=clock)
        self._retry = Backoff(first_s=0.5, ceiling_s=30.0, grace_s=10.0)
        self.recorder = Recorder(client, instance=options.pod, clock=clock)
        self._reporter = Reporter(self.recorder, find=caches.find, clock=clock)
        self.publisher = Publisher(client, options)
        self.mirrors = Mirrors(client, options)
        self._issuing = Issuing(client, options)
        self.statuses = Statuses(
            client,
            find=caches.find,
            wanted=self._wanted,
            ours=self._is_ours,
            wrote=self._wrote,
            clock=clock,
        )
        self._standing_changed = asyncio.Event()
        self.applied = Applied(options.status_url, changed=self._standing_changed.set, clock=clock)
        self._programming = Programming()
        self._book = Book()
        self._memory = Memory()
        self._served: dict[Ref, Served] = {}
        self._told: dict[Ref, list[Diagnostic]] = {}
        self._addresses: list[dict[str, Any]] = []
        self._owners: Mapping[str, str] = {}
        self._routes = 0
        # Hosts that have a certificate of their own in what is published.
        self._shown: frozenset[str] = frozenset()
        self._issued: tuple[object, ...] = ()
        self._looked_at = float("-inf")
        self._leading = False
        self._took_s = 0.0
        self._mirrors_missing = False
        self._settled = 0
        self.generation: Generation | None = None
        self.refused = ""
        self.failures: Counter[str] = Counter()
        self.translations = 0

    def touched(self, ref: Ref, whole: bool) -> None:
        """An object changed; `whole` says that more than its status did."""
        if whole or (ref.kind, ref.namespace, ref.name) == self._service_ref:
            self._debounce.touch()
        elif self._leading and ref in self._served:
            self.statuses.look(ref)

    @property
    def _service_ref(self) -> tuple[str, ...]:
        return ("Service", *(self._options.publish_service or ()))

    async def lead(self) -> None:
        """Lead until cancelled; returns only by that, or by a mistake of ours."""
        await self._caches.wait_synced()
        await self._take_over()
        self._leading = True
        try:
            async with asyncio.TaskGroup() as group:
                for name, part in (
                    ("cycle", self._cycles()),
                    ("status", self.statuses.run()),
                    ("events", self.recorder.run()),
                    ("applied", self.applied.run()),
                    ("standing", self._follow_standing()),
                    ("tick", self._tick()),
                ):
                    group.create_task(part, name=f"controller.{name}")
        finally:
            self._leading = False

    async def _take_over(self) -> None:
        """Learn what whoever led before has published."""
        while True:
            try:
                await self.publisher.load()
            except KubeError as e:
                self._failed("load", e)
                await asyncio.sleep(self._retry.failed())
            else:
                break
        self._looked_at = self._clock.monotonic()
        self._reporter.inherit(self.publisher.told)
        await self._adopt()
        self._debounce.touch()

    async def _adopt(self) -> None:
        sheet = self.publisher.sheet
        if sheet is not None:
            self._owners = sheet.owners
            document = await asyncio.to_thread(_document_in, sheet.content)
            self._routes, self._shown = count_routes(document), hosts_shown(document)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._debounce.touch()

    async def _cycles(self) -> None:
        while True:
            await self._debounce.wait()
            try:
                async with asyncio.timeout(CYCLE_S):
                    whole = await self._once()
            except (KubeError, TimeoutError) as e:
                self._failed("publish", e)
                whole = False
            if whole:
                self._retry.succeeded()
                # While changes never pause, half of a CPU at most goes into them.
                await asyncio.sleep(min(MAX_REST_S, self._took_s))
            else:
                await asyncio.sleep(self._retry.failed())
                self._debounce.touch()

    async def _once(self) -> bool:
        """Bring everything up to date; False when some of it should be tried again."""
        inventory = self._caches.snapshot()
        # Until it is known what the new generation depends on, everything may matter.
        self._caches.services = None
        generation = await self._translate(inventory)
        if generation is None:
            return True  # the same objects would fail again: a change, or the next tick
        self._caches.services = generation.translation.services
        proxy: Any = inventory.objects.proxies.get(self._options.settings.proxy)
        self._understand(generation)
        self._reporter.report(generation.translation.diagnostics)
        self._refuse(self._refusal(generation, proxy), proxy)
        leaving = await self._publish(generation, inventory, proxy)
        await self._issue(proxy)
        await self.statuses.look_all(leaving)
        await self.statuses.look_all(tuple(self._served))
        return not self._mirrors_missing

    async def _translate(self, inventory: Inventory) -> Generation | None:
        try:
            generation = await asyncio.to_thread(
                generate,
                inventory,
                self._options.settings,
                self._book,
                owners=self._owners,
                now=self._clock.now(),
                memory=self._memory,
            )
        except Exception:
            # Whatever this is, what is published stays in force, and others can still be renewed.
            log.exception("controller.translation_failed")
            self.failures["translate"] += 1
            return None
        self.translations += 1
        self._took_s = generation.seconds
        if generation.routes > max(LARGE, 2 * self._settled):
            # The caches have grown to what they will be; walking through them takes 200 ms.
            self._settled = generation.routes
            await asyncio.to_thread(settle)
        log.debug(
            "controller.translated",
            extra={"document": generation.digest, "seconds": round(generation.seconds, 3)},
        )
        return generation

    def _understand(self, generation: Generation) -> None:
        self.generation = generation
        self._addresses = published_at(
            self._options.publish_addresses,
            None
            if self._options.publish_service is None
            else self._caches.service(self._options.publish_service),
        )
        self._told = {}
        for one in generation.translation.diagnostics:
            self._told.setdefault(one.ref, []).append(one)

    async def _publish(
        self, generation: Generation, inventory: Inventory, proxy: Manifest | None
    ) -> list[Ref]:
        """Mirror, publish, sweep; returns the Ingresses that are not ours any more."""
        translation = generation.translation
        if self._clock.monotonic() - self._looked_at >= self._tick_s:
            if await self.publisher.refresh():
                await self._adopt()
            self._looked_at = self._clock.monotonic()
        todo = plan(inventory.own, self._book, translation.secrets, self._options, proxy)
        # Renewed certificates also while the rest is refused.
        self._mirrors_missing = not await self.mirrors.write(todo) and bool(todo.write)
        if not self.refused and generation.data is not None:
            wrote = await self.publisher.publish(
                generation.data, owner=proxy, told=self._reporter.mark
            )
            if wrote:
                log.info(
                    "controller.published",
                    extra={"document": generation.digest, "routes": generation.routes},
                )
                self._warn_of_lost_certificates(translation)
            self._owners = translation.owners
            self._routes = generation.routes
            self._programming.published(generation.digest, translation.served)
            self.applied.expect(generation.digest)
            self._programming.applied(self.applied.digest)
            await self.mirrors.sweep(todo)
            self._book.keep(translation.secrets)
        return self._leaving(generation)

    def _warn_of_lost_certificates(self, translation: Translation) -> None:
        """Say which hosts are served without the certificate that they had.

        A Secret that is replaced by one for other names is somebody's decision and not a mistake of
        the pair, so the last good one does not stay.
        """
        before, self._shown = self._shown, hosts_shown(translation.document)
        lost = sorted(host for host in before - self._shown if host in translation.owners)
        if lost:
            extra = {"hosts": lost[:MAX_TOLD], "count": len(lost)}
            log.warning("controller.certificate_lost", extra=extra)

    def _leaving(self, generation: Generation) -> list[Ref]:
        """Ingresses that say that they are reached here, and are not ours (any more)."""
        before, first = self._served, not self._served
        self._served = {one.ref: one for one in generation.translation.served}
        if not first:
            return [ref for ref in before if ref not in self._served and ref.kind == "Ingress"]
        # Of what an earlier leader wrote nothing is known; it wrote these very addresses.
        known = ((Ref("Ingress", *key), found) for key, found in self._caches.ingresses.items())
        return [ref for ref, found in known if ref not in self._served and self._is_here(found)]

    def _is_here(self, found: Manifest) -> bool:
        """Whether an Ingress says that it is reached at our addresses."""
        here = {"loadBalancer": {"ingress": self._addresses}}
        return has_address(found) and same_status(here, found)

    def _is_ours(self, ref: Ref, found: Manifest) -> bool:
        """Whether an address may be taken back: another Heim may have written its own since."""
        return ref in self._served or self._is_here(found)

    # What may not be published.

    def _refusal(self, generation: Generation, proxy: Manifest | None) -> str:
        if generation.data is None:
            return generation.complaint
        limit = mapping((proxy or {}).get("spec")).get("maxRouteDropPercent")
        lost = self._routes - generation.routes
        if isinstance(limit, int) and lost > 0 and lost * 100 > limit * self._routes:
            return (
                f"{lost} of {self._routes} routes would go at once, more than "
                f"maxRouteDropPercent: {limit} permits; what was published stays in force until "
                "it is raised or the routes are back"
            )
        return ""

    def _refuse(self, why: str, proxy: Manifest | None) -> None:
        if why and why != self.refused:
            log.error("controller.refused", extra={"reason": why})
            self._say(proxy, "ConfigurationRefused", why)
        self.refused = why

    async def _issue(self, proxy: Manifest | None) -> None:
        """See to the Proxy's own certificate, when it changed and with every tick."""
        metadata = mapping((proxy or {}).get("metadata"))
        state = (metadata.get("uid"), metadata.get("generation"), self._looked_at)
        if state == self._issued:
            return
        self._issued = state
        try:
            await self._issuing.ensure(proxy)
        except KubeError as e:
            # It stops nothing else: what is missing is one certificate.
            self._failed("certificate", e)
            self._say(proxy, "CertificateNotRequested", f"cert-manager's Certificate: {e}")

    def _say(self, proxy: Manifest | None, reason: str, note: str) -> None:
        if proxy is not None:
            self.recorder.record(proxy, type="Warning", reason=reason, note=note, action=ACTION)

    # What objects should say.

    def _wanted(self, ref: Ref, current: Manifest) -> Mapping[str, Any] | None:
        one = self._served.get(ref)
        if ref.kind == "Ingress":
            if one is None or not self._addresses:
                return None if has_address(current) else {}
            return {"loadBalancer": {"ingress": self._addresses}}
        if one is None:
            return {}
        told = self._told.get(ref, ())
        if ref.kind == "Proxy":
            made = proxy_conditions(one, told, self._standing, current)
            return {"conditions": made, **self._counts}
        status: dict[str, Any] = {
            "conditions": conditions_of(one, told, self._programming, current)
        }
        if ref.kind == "Backend":
            status["url"] = _url(one)
        return status

    @property
    def _counts(self) -> dict[str, Any]:
        """What is published, in numbers."""
        sheet = self.publisher.sheet
        kinds = Counter(ref.kind for ref in self._served)
        return {
            "documentHash": sheet.digest if sheet is not None else "",
            "ingresses": kinds["Ingress"],
            "backends": kinds["Backend"],
            "agents": kinds["Agent"],
            "routes": self._routes,
        }

    @property
    def _standing(self) -> Standing:
        sheet = self.publisher.sheet
        return Standing(
            sheet.digest if sheet is not None else "",
            self.applied.digest,
            self.applied.trouble,
            self.refused,
        )

    def _wrote(self, ref: Ref, before: Manifest, status: Mapping[str, Any]) -> None:
        one = self._served.get(ref)
        if ref.kind != "Ingress" or has_address(before) or one is None or not one.accepted:
            return
        places = ", ".join(
            str(entry.get("ip") or entry.get("hostname")) for entry in _entries(status)
        )
        self.recorder.record(
            before, type="Normal", reason="Synced", note=f"served at {places}", action=ACTION
        )

    async def _follow_standing(self) -> None:
        while True:
            await self._standing_changed.wait()
            self._standing_changed.clear()
            self._programming.applied(self.applied.digest)
            await self.statuses.look_all([ref for ref in self._served if ref.kind != "Ingress"])

    def _failed(self, step: str, error: Exception) -> None:
        self.failures[step] += 1
        told = str(error) or type(error).__name__
        log.warning("controller.step_failed", extra={"step": step, "error": told})

    def expiries(self) -> Iterator[tuple[tuple[str, str], float]]:
        """When each certificate in use expires, by its Secret."""
        if self.generation is None:
            return
        for key in self.generation.translation.secrets:
            pair = self._book.pair(key)
            if pair is not None and pair.facts.not_after is not None:
                yield key, pair.facts.not_after


def _url(one: Served) -> str:
    """Where people find a Backend; "" where there is no one place."""
    host = one.hosts[0] if one.accepted and one.hosts else "*"
    return "" if host.startswith("*") else f"https://{host}"


def _document_in(content: bytes) -> Mapping[str, Any]:
    """A published document; an empty one for what is none."""
    try:
        return mapping(json.loads(content))
    except ValueError:
        return {}


def _entries(status: Mapping[str, Any]) -> list[Any]:
    found: list[Any] = mapping(status.get("loadBalancer")).get("ingress") or []
    return found
