"""The running controller, in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from heim_controller.app import App
from heim_controller.kube import resources
from heim_controller.kube.lease import Terms
from heim_controller.metrics import FAMILIES
from heim_controller.options import Options
from heim_runtime.complaints import Complaint
from tests.fakes import kube_objects
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import basics, document, ingress, populate, tls_secret
from tests.fakes.kube_watched import QUICK
from tests.fakes.waiting import until

OPTIONS = Options(
    kube_objects.SETTINGS, publish_service=("heim", "heim"), health=("127.0.0.1", 0), pod="pod-1"
)
TERMS = Terms(lease=1.0, renew=0.6, retry=0.1)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        populate(found.store, basics(), kube_objects.web("shop"), ingress("shop/web"))
        yield found


def app(kube: FakeKube, options: Options = OPTIONS) -> App:
    return App(kube.client(), options, terms=TERMS, pace=QUICK)


async def ended(task: asyncio.Future[int]) -> int:
    async with asyncio.timeout(4):
        return await task


async def test_it_leads_and_gives_the_lease_back_when_it_stops(kube: FakeKube) -> None:
    found = app(kube)
    task = asyncio.ensure_future(found.run())
    await until(lambda: document(kube.store))
    found.stop()
    assert await ended(task) == 0
    lease = kube.store.get(resources.LEASES, "main-controller", "heim")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


async def test_it_stops_while_somebody_else_leads(kube: FakeKube) -> None:
    first, second = app(kube), app(kube)
    tasks = [asyncio.ensure_future(first.run())]
    await until(lambda: document(kube.store))
    tasks.append(asyncio.ensure_future(second.run()))
    await until(lambda: second.readings()["heim_controller_synced"] == {(): True})
    assert second.readings()["heim_controller_leader"] == {(): False}
    second.stop()
    assert await ended(tasks[1]) == 0
    assert first.readings()["heim_controller_leader"] == {(): True}
    first.stop()
    assert await ended(tasks[0]) == 0


async def test_a_lost_lease_is_the_end(kube: FakeKube) -> None:
    found = app(kube)
    task = asyncio.ensure_future(found.run())
    await until(lambda: document(kube.store))
    kube.faults.forbidden.add(("*", "leases"))
    assert await ended(task) == 1


async def test_it_can_be_stopped_before_there_is_an_api_server() -> None:
    async with FakeKube() as kube:
        await kube.down()
        found = app(kube)
        task = asyncio.ensure_future(found.run())
        await until(lambda: found.health.place[1] != 0)
        host, port = found.health.place
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://{host}:{port}/livez") as response:
                assert response.status == 200
            async with session.get(f"http://{host}:{port}/readyz") as response:
                assert response.status == 503
        found.stop()
        assert await ended(task) == 0


async def test_a_health_address_that_is_taken_is_the_end(kube: FakeKube) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    place = server.sockets[0].getsockname()
    options = Options(kube_objects.SETTINGS, health=(place[0], place[1]))
    with pytest.raises(Complaint):
        await app(kube, options).run()
    server.close()
    await server.wait_closed()
    assert kube.asked == []


async def test_everything_that_is_counted_is_in_the_table(kube: FakeKube) -> None:
    section: list[dict[str, Any]] = [{"hosts": ["safe.example.test"], "secretName": "safe"}]
    populate(kube.store, ingress("heim/safe", tls=section), tls_secret("heim/safe"))
    found = app(kube)
    task = asyncio.ensure_future(found.run())
    await until(lambda: kube.store.get(resources.SECRETS, "heim.safe", "heim"))
    await until(lambda: document(kube.store))
    readings = found.readings()
    families = {one.name: len(one.labels) for one in FAMILIES}
    assert readings.keys() <= families.keys()
    assert all(
        len(labels) == families[name] for name, values in readings.items() for labels in values
    )
    # What there is nothing of has no sample; everything else is told.
    assert {name for name in families if not readings.get(name)} <= {
        "heim_controller_failures_total"
    }
    found.stop()
    await ended(task)
