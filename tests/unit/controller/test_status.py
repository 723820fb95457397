"""Status of objects, on the fake API server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from heim_controller.kube import resources
from heim_controller.kube.apply import condition, same_status
from heim_controller.kube.resources import Manifest, Resource, version_of
from heim_controller.status import Statuses, has_address
from heim_controller.translation.objects import Ref
from tests.fakes import kube_objects
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import ingress, populate
from tests.fakes.waiting import until

INGRESS = Ref("Ingress", "shop", "web")
BACKEND = Ref("Backend", "shop", "own")
HERE = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
KINDS: dict[str, Resource] = {"Ingress": resources.INGRESSES, "Backend": resources.BACKENDS}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        populate(found.store, ingress("shop/web"), kube_objects.backend("shop/own", host="x.test"))
        yield found


class Wants:
    """What objects should say, and what was written."""

    def __init__(self, kube: FakeKube, **wanted: Any) -> None:
        self.kube = kube
        self.wanted: dict[str, Mapping[str, Any] | None] = wanted
        self.wrote: list[tuple[Ref, bool]] = []
        # Caches that have not heard of anything yet.
        self.stale: dict[Ref, Manifest] = {}
        self.ours = True
        self.statuses = Statuses(
            kube.client(),
            find=self.find,
            wanted=self.says,
            ours=lambda ref, found: self.ours,
            wrote=self.note,
        )

    def find(self, ref: Ref) -> Manifest | None:
        return self.stale.get(ref) or self.kube.store.get(KINDS[ref.kind], ref.name, ref.namespace)

    def says(self, ref: Ref, current: Manifest) -> Mapping[str, Any] | None:
        return self.wanted[ref.kind]

    def note(self, ref: Ref, before: Manifest, status: Mapping[str, Any]) -> None:
        self.wrote.append((ref, has_address(before)))

    def status(self, ref: Ref) -> Any:
        found = self.kube.store.get(KINDS[ref.kind], ref.name, ref.namespace)
        return (found or {}).get("status")

    @property
    def writes(self) -> int:
        return sum(asked.verb == "apply" for asked in self.kube.asked)


@asynccontextmanager
async def running(wants: Wants) -> AsyncIterator[Statuses]:
    task = asyncio.ensure_future(wants.statuses.run())
    try:
        yield wants.statuses
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def done(statuses: Statuses) -> None:
    await until(lambda: len(statuses.queue) == 0)


async def test_an_address_is_written_once(kube: FakeKube) -> None:
    wants = Wants(kube, Ingress=HERE)
    async with running(wants) as statuses:
        for _ in range(3):
            await statuses.look_all([INGRESS])
            await done(statuses)
    assert wants.status(INGRESS) == HERE
    assert wants.writes == 1
    assert wants.wrote == [(INGRESS, False)]


async def test_what_the_cache_does_not_know_yet_is_not_written_again(kube: FakeKube) -> None:
    wants = Wants(kube, Backend={"conditions": [condition("Accepted", "True", reason="Yes")]})
    found = wants.find(BACKEND)
    assert found is not None
    wants.stale[BACKEND] = found
    async with running(wants) as statuses:
        for _ in range(3):
            await statuses.look_all([BACKEND])
            await done(statuses)
    assert wants.writes == 1


async def test_what_somebody_wrote_over_is_written_again(kube: FakeKube) -> None:
    wants = Wants(kube, Ingress=HERE)
    async with running(wants) as statuses:
        statuses.look(INGRESS)
        await done(statuses)
        other = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}
        kube.store.patch(resources.INGRESSES, ("shop", "web"), other, "other", "status")
        statuses.look(INGRESS)
        await done(statuses)
    assert wants.status(INGRESS) == HERE


async def test_what_says_what_it_should_is_compared_once_until_it_changes(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> None:
    wants, compared = Wants(kube, Ingress=HERE), list[str]()

    def counting(wanted: Any, current: Manifest) -> bool:
        compared.append(version_of(current))
        return same_status(wanted, current)

    async with running(wants) as statuses:
        await statuses.look_all([INGRESS])
        await done(statuses)
        found = wants.find(INGRESS)
        assert found is not None
        wants.stale[INGRESS] = found
        monkeypatch.setattr("heim_controller.status.same_status", counting)
        for _ in range(3):
            await statuses.look_all([INGRESS])
        assert len(compared) == 1
        wants.wanted["Ingress"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}
        await statuses.look_all([INGRESS])
        await done(statuses)
    assert wants.status(INGRESS) == wants.wanted["Ingress"]


async def test_conditions_have_a_generation_and_keep_their_time(kube: FakeKube) -> None:
    wants = Wants(kube, Backend={"conditions": [condition("Accepted", "True", reason="Yes")]})
    async with running(wants) as statuses:
        statuses.look(BACKEND)
        await done(statuses)
        [first] = wants.status(BACKEND)["conditions"]
        wants.wanted["Backend"] = {"conditions": [condition("Accepted", "True", reason="Other")]}
        statuses.look(BACKEND)
        await done(statuses)
    [second] = wants.status(BACKEND)["conditions"]
    assert (second["reason"], second["observedGeneration"]) == ("Other", 1)
    assert second["lastTransitionTime"] == first["lastTransitionTime"]


async def test_what_we_wrote_is_taken_back_and_what_others_wrote_is_not(kube: FakeKube) -> None:
    wants = Wants(kube, Ingress=HERE)
    theirs = ingress("shop/theirs")
    kube.store.put(resources.INGRESSES, {**theirs, "status": HERE})
    async with running(wants) as statuses:
        statuses.look(INGRESS)
        await done(statuses)
        wants.wanted["Ingress"] = None
        await statuses.look_all([INGRESS, Ref("Ingress", "shop", "theirs")])
        await done(statuses)
    assert not has_address({"kind": "Ingress", "status": wants.status(INGRESS)})
    assert wants.status(Ref("Ingress", "shop", "theirs")) == HERE


async def test_what_another_heim_wrote_is_left_and_not_asked_for_again(kube: FakeKube) -> None:
    wants = Wants(kube, Ingress=HERE)
    async with running(wants) as statuses:
        statuses.look(INGRESS)
        await done(statuses)
        wants.ours = False
        wants.wanted["Ingress"] = None
        for _ in range(3):
            await statuses.look_all([INGRESS])
            await done(statuses)
    assert wants.status(INGRESS) == HERE
    assert sum(asked.verb == "get" for asked in kube.asked) == 1


async def test_what_is_not_ours_and_says_nothing_is_not_even_asked_for(kube: FakeKube) -> None:
    wants = Wants(kube, Ingress=None)
    async with running(wants) as statuses:
        statuses.look(INGRESS)
        statuses.look(Ref("Service", "shop", "web"))
        await done(statuses)
    assert kube.asked == []


async def test_an_object_that_is_gone_is_nobodys_problem(kube: FakeKube) -> None:
    wants = Wants(kube, Ingress=HERE, Backend={})
    found = wants.find(INGRESS)
    assert found is not None
    wants.stale[INGRESS] = found
    kube.store.remove(resources.INGRESSES, "web", "shop")
    async with running(wants) as statuses:
        statuses.look(INGRESS)
        await done(statuses)
        assert statuses.queue.failed == 0
        wants.stale.clear()
        statuses.look(INGRESS)
        wants.stale[INGRESS] = {**found, "status": HERE}
        wants.wanted["Ingress"] = None
        statuses.look(INGRESS)
        await done(statuses)
    assert statuses.queue.failed == 0
    assert wants.wrote == []


async def test_one_that_is_refused_does_not_stop_the_others(kube: FakeKube) -> None:
    kube.faults.answer(422, when=lambda asked: asked.name == "web")
    wants = Wants(kube, Ingress=HERE)
    populate(kube.store, ingress("shop/more"))
    more = Ref("Ingress", "shop", "more")
    async with running(wants) as statuses:
        await statuses.look_all([INGRESS, more])
        await done(statuses)
        assert wants.status(more) == HERE
        assert statuses.queue.refused == 1
