from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from heim_controller.kube.client import Client
from heim_controller.kube.events import Rates, Recorder
from heim_controller.kube.resources import EVENTS, INGRESS_CLASSES, INGRESSES
from tests.fakes.kube import FakeKube, Known
from tests.fakes.sessions import ManualClock
from tests.fakes.waiting import until


class Noted:
    """A recorder that runs, with a clock of ours."""

    def __init__(self, kube: FakeKube, **rates: Any) -> None:
        self.kube = kube
        self.clock = ManualClock()
        self.recorder = Recorder(
            kube.client(), instance="heim-0", clock=self.clock, rates=Rates(**rates)
        )

    def say(self, about: dict[str, Any], note: str = "it is broken", **changes: Any) -> None:
        said = {"type": "Warning", "reason": "Broken", "action": "Sync", **changes}
        self.recorder.record(about, note=note, **said)

    async def settled(self, requests: int) -> list[dict[str, Any]]:
        """The Events there are, after so many writes."""
        await until(lambda: self.recorder.written + self.recorder.failed >= requests)
        return self.kube.store.all(EVENTS)


@asynccontextmanager
async def noted(kube: FakeKube, **rates: Any) -> AsyncIterator[Noted]:
    found = Noted(kube, **rates)
    task = asyncio.ensure_future(found.recorder.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ingress(kube: FakeKube, name: str = "web") -> dict[str, Any]:
    return kube.store.put(INGRESSES, {"metadata": {"name": name, "namespace": "shop"}})


async def test_an_event_is_about_its_object() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        about = ingress(kube)
        notes.say(about)
        (event,) = await notes.settled(1)
        assert event["regarding"] == {
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "namespace": "shop",
            "name": "web", "uid": about["metadata"]["uid"],
            "resourceVersion": about["metadata"]["resourceVersion"],
        }  # fmt: skip
        assert event["metadata"]["namespace"] == "shop"
        assert event["metadata"]["name"].startswith("web.")
        assert event["reportingController"] == "heim.dev/ingress-controller"
        assert event["reportingInstance"] == "heim-0"
        assert "series" not in event


async def test_an_event_about_the_cluster_has_a_place() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        notes.say(kube.store.put(INGRESS_CLASSES, {"metadata": {"name": "heim"}}))
        (event,) = await notes.settled(1)
        assert event["metadata"]["namespace"] == "kube-system"
        assert "namespace" not in event["regarding"]


async def test_the_same_said_again_is_a_count_and_written_seldom() -> None:
    async with FakeKube() as kube, noted(kube, repeat_s=60) as notes:
        about = ingress(kube)
        for _ in range(50):
            notes.say(about)
        await notes.settled(1)
        for _ in range(50):
            notes.say(about)
        notes.clock.time += 61
        notes.say(about)
        (event,) = await notes.settled(2)
        assert event["series"]["count"] == 101
        assert notes.recorder.written == 2


@pytest.mark.parametrize(
    "changes", [{"note": "another"}, {"reason": "Other"}, {"type": "Normal"}], ids=str
)
async def test_something_else_is_another_event(changes: dict[str, str]) -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        about = ingress(kube)
        notes.say(about)
        notes.say(about, **changes)
        assert len(await notes.settled(2)) == 2


async def test_an_object_made_anew_is_another_one() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        notes.say(ingress(kube))
        kube.store.remove(INGRESSES, "web", "shop")
        notes.say(ingress(kube))
        assert len(await notes.settled(2)) == 2


async def test_what_the_server_forgot_is_told_anew() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        about = ingress(kube)
        notes.say(about)
        (event,) = await notes.settled(1)
        kube.store.remove(EVENTS, event["metadata"]["name"], "shop")
        notes.clock.time += 61
        notes.say(about)
        assert len(await notes.settled(2)) == 1


async def test_what_was_said_long_ago_is_told_anew() -> None:
    async with FakeKube() as kube, noted(kube, forget_s=100) as notes:
        about = ingress(kube)
        notes.say(about)
        await notes.settled(1)
        notes.clock.time += 101
        notes.say(about)
        assert len(await notes.settled(2)) == 2


async def test_one_object_cannot_have_them_all() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        noisy, quiet = ingress(kube, "noisy"), ingress(kube, "quiet")
        for number in range(100):
            notes.say(noisy, f"mistake {number}")
        notes.say(quiet)
        events = await notes.settled(26)
        assert len(events) == 26
        assert notes.recorder.dropped == 75
        notes.clock.time += 300  # one more
        for number in range(10):
            notes.say(noisy, f"other mistake {number}")
        assert len(await notes.settled(27)) == 27


async def test_an_outage_does_not_fill_the_memory() -> None:
    recorder = Recorder(Client(Known("http://127.0.0.1:1", "t")), instance="heim-0")
    for number in range(10_000):
        recorder.record(
            {"metadata": {"name": f"web-{number}"}, "kind": "Ingress"},
            type="Warning", reason="Broken", note="it is", action="Sync",
        )  # fmt: skip
    assert recorder.dropped == 10_000 - 1024
    assert len(recorder._memory.said) == 4096
    assert len(recorder._memory.buckets) == 4096


@pytest.mark.parametrize("status", [403, 422, 500, 503, 429])
async def test_an_event_that_is_refused_is_no_trouble(status: int) -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        kube.faults.answer(status)
        notes.say(ingress(kube), "first")
        notes.say(ingress(kube), "second")
        (event,) = await notes.settled(2)
        assert event["note"] == "second"
        assert notes.recorder.failed == 1


async def test_a_long_note_is_cut_between_characters() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        notes.say(ingress(kube), "ä" * 1000)
        (event,) = await notes.settled(1)
        assert event["note"] == "ä" * 510 + "…"
        assert len(event["note"].encode()) <= 1024


async def test_a_long_name_is_cut() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        notes.say(ingress(kube, "x" * 235 + "." + "y" * 17))
        (event,) = await notes.settled(1)
        assert len(event["metadata"]["name"]) <= 253


async def test_a_recorder_tells_how_it_is() -> None:
    async with FakeKube() as kube, noted(kube) as notes:
        notes.say(ingress(kube))
        await notes.settled(1)
        assert repr(notes.recorder) == "<Recorder written=1 dropped=0 failed=0>"
