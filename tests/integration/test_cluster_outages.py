"""What people notice when the control plane is in trouble: nothing.

In most tests somebody asks all the time, over new connections and over one that is kept, and every
answer has to be the right one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from heim_controller.kube import resources
from tests.fakes.kube_cluster import CONFIG_MAP, document
from tests.fakes.kube_faults import Faults
from tests.fakes.kube_objects import ingress, path, rule
from tests.integration.cluster import Cluster, cluster, comes
from tests.integration.cluster_churn import Churn
from tests.integration.process import admin

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

Made = dict[str, Any]

HOST = "web.example.test"
LATE = "late.example.test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    spec = {"ingress": {"allowPublic": {}}, "certificates": ["default"]}
    directory = tmp_path_factory.mktemp("cluster")
    async with cluster(directory, proxy=spec) as started:
        await started.echo("shop/one")
        await started.echo("shop/two")
        await started.apply(made("web", HOST, "one"))
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def kube(shared: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, in which nothing is wrong yet."""
    yield shared
    shared.kube.faults = Faults()
    if shared.kube.store.get(resources.INGRESSES, "late", "shop"):
        shared.kube.store.remove(resources.INGRESSES, "late", "shop")
    await shared.settled(within_s=25)


@pytest_asyncio.fixture(loop_scope="module")
async def people(kube: Cluster) -> AsyncIterator[Churn]:
    """Who asks while the test runs, and never gets a wrong answer."""
    async with Churn(kube, HOST, "shop/one") as churn:
        yield churn
        await asyncio.sleep(0.1)
    assert churn.asked > 10
    assert churn.wrong == []


def made(name: str, host: str, service: str) -> Made:
    return ingress(
        f"shop/{name}", rule(host, path("/", service, port=8080)), notes={"auth": "none"}
    )


def change(kube: Cluster) -> None:
    """Somebody creates an Ingress."""
    kube.kube.store.put(resources.INGRESSES, made("late", LATE, "two"))


async def caught_up(kube: Cluster, within_s: float = 25.0) -> None:
    """Wait until what `change` made is served."""

    async def served() -> bool:
        return await kube.leads_to(LATE) == "shop/two"

    await comes(served, within_s)


def published(kube: Cluster, since: int) -> Iterator[set[str]]:
    """The hosts of every document that was published after a revision."""
    for record in kube.kube.store.history:
        if record.revision <= since or record.key != ("heim", CONFIG_MAP):
            continue
        if record.resource == resources.CONFIG_MAPS:
            assert record.type != "DELETED"
            found = json.loads(record.object["data"]["document.json"])
            yield {host for one in found["backends"] for host in one["hosts"]}


# -- the API server -----------------------------------------------------------------------------


async def test_an_api_server_that_is_gone_is_not_noticed(kube: Cluster, people: Churn) -> None:
    await kube.kube.down()
    change(kube)
    await asyncio.sleep(1.0)
    assert await kube.leads_to(LATE) == "404"
    assert (await admin(kube.directory, "/readyz")).status == 200
    assert await kube.controller.ready()
    await kube.kube.up()
    await caught_up(kube)


async def test_connections_that_are_half_open_keep_what_was_known(
    kube: Cluster, people: Churn
) -> None:
    kube.kube.faults.silent = True
    change(kube)
    await asyncio.sleep(1.0)
    assert await kube.leads_to(LATE) == "404"
    kube.kube.faults.silent = False
    # What deadlines find after minutes.
    kube.kube.cut()
    await caught_up(kube)


@pytest.mark.parametrize("how", ["event", pytest.param("status", marks=pytest.mark.slow)])
async def test_a_compacted_history_is_no_deletion(kube: Cluster, people: Churn, how: str) -> None:
    since = kube.kube.store.revision
    kube.kube.faults.gone_by_status = how == "status"
    change(kube)
    kube.kube.store.compact()
    kube.kube.cut()
    await caught_up(kube)
    assert all(HOST in hosts for hosts in published(kube, since))


@pytest.mark.parametrize(
    ("status", "retry_after"),
    [
        (500, None),
        (429, 1),
        pytest.param(503, None, marks=pytest.mark.slow),
        pytest.param(401, None, marks=pytest.mark.slow),
    ],
)
async def test_errors_of_the_api_server_are_outlived(
    kube: Cluster, people: Churn, status: int, retry_after: int | None
) -> None:
    since = kube.kube.store.revision
    kube.kube.faults.answer(status, times=20, retry_after=retry_after)
    kube.kube.cut()
    change(kube)
    await caught_up(kube)
    assert all(HOST in hosts for hosts in published(kube, since))


async def test_a_slow_api_server_makes_changes_late_and_nothing_wrong(
    kube: Cluster, people: Churn
) -> None:
    kube.kube.faults.slow_s = 1.0
    kube.kube.faults.chunk = 7
    kube.kube.cut()
    change(kube)
    await caught_up(kube)


async def test_writes_that_are_never_answered_are_made_again(kube: Cluster, people: Churn) -> None:
    kube.kube.faults.stall_answers = stalled = asyncio.Event()
    change(kube)
    # It was written all the same, and the proxy does not need the answer.
    await caught_up(kube)
    stalled.set()
    kube.kube.faults.stall_answers = None
    kube.kube.store.remove(resources.INGRESSES, "late", "shop")
    await comes(lambda: gone(kube), 25)


async def gone(kube: Cluster) -> bool:
    return await kube.leads_to(LATE) == "404"


async def test_objects_that_are_not_of_this_world_cost_nobody_else_anything(
    kube: Cluster, people: Churn
) -> None:
    store = kube.kube.store
    for number, spec in enumerate(
        (
            {"ingressClassName": "heim", "rules": "none"},
            {"ingressClassName": "heim", "rules": [{"http": {"paths": [None, 7]}}], "tls": {}},
            {"ingressClassName": ["heim"], "rules": [[]]},
            {"ingressClassName": "heim", "rules": [{"host": HOST * 40, "http": []}]},
        )
    ):
        store.put(
            resources.INGRESSES,
            {"metadata": {"name": f"odd-{number}", "namespace": "odd"}, "spec": spec},
        )
    large = made("large", "large.example.test", "one")
    large["metadata"] |= {"namespace": "odd", "annotations": {"note": "x" * 3 * 2**20}}
    store.put(resources.INGRESSES, large)
    change(kube)
    await caught_up(kube)
    await kube.clear("odd")


# -- the controller -----------------------------------------------------------------------------


async def test_a_controller_that_is_killed_and_comes_back_never_empties_the_configuration(
    kube: Cluster, people: Churn
) -> None:
    since = kube.kube.store.revision
    await kube.kill(kube.controller)
    kube.kube.faults.slow_s = 0.5
    # One kind is not there for a while; all others are, and would make half a configuration.
    kube.kube.faults.answer(
        503,
        times=5,
        when=lambda asked: (asked.verb, asked.plural) == ("list", "endpointslices"),
    )
    await kube.start_controller("killed")
    change(kube)
    await caught_up(kube)
    assert all(HOST in hosts for hosts in published(kube, since))
    kube.kube.faults.slow_s = 0.0


async def test_without_any_controller_all_goes_on_and_the_next_one_catches_up(
    kube: Cluster, people: Churn
) -> None:
    assert await kube.controller.end() == 0
    change(kube)
    await asyncio.sleep(0.5)
    assert await kube.leads_to(LATE) == "404"
    await kube.start_controller("next")
    await caught_up(kube)


@pytest.mark.parametrize("how", [pytest.param("asked", marks=pytest.mark.slow), "killed"])
async def test_another_leader_takes_over_while_people_go_on(
    kube: Cluster, people: Churn, how: str
) -> None:
    leader = kube.controller
    await kube.heim.until(lambda: leader.leads, 12)
    second = await kube.start_controller(f"second-{how}")
    await comes(second.ready)
    assert not second.leads
    since = kube.kube.store.revision
    if how == "killed":
        await kube.kill(leader)
    else:
        assert await leader.end() == 0
    change(kube)
    await caught_up(kube)
    assert second.leads
    assert all(HOST in hosts for hosts in published(kube, since))


@pytest.mark.slow
async def test_a_document_that_somebody_deletes_is_written_again_and_not_missed(
    kube: Cluster, people: Churn
) -> None:
    kube.kube.store.remove(resources.CONFIG_MAPS, CONFIG_MAP, "heim")
    await asyncio.sleep(0.5)
    await kube.controller.end()
    await kube.start_controller("writes-again")
    await kube.heim.until(lambda: document(kube.kube.store), 25)


# -- the proxy ----------------------------------------------------------------------------------


async def test_a_proxy_that_restarts_without_api_server_serves_what_it_served(
    kube: Cluster,
) -> None:
    certificate = await kube.certificate(HOST)
    await kube.heim.until((kube.directory / "state" / "configuration-document").exists, 12)
    await kube.kube.down()
    await kube.heim.stop()
    await kube.heim.launch()
    assert await kube.leads_to(HOST) == "shop/one"
    assert await kube.leads_to(HOST, plain=False) == "shop/one"
    assert await kube.certificate(HOST) == certificate
    change(kube)
    await kube.kube.up()
    await caught_up(kube)


async def test_everything_at_once_comes_back(kube: Cluster) -> None:
    await kube.heim.until((kube.directory / "state" / "configuration-document").exists, 12)
    since = kube.kube.store.revision
    await kube.kube.down()
    await kube.kill(kube.controller)
    await kube.heim.stop()
    await kube.heim.launch()
    assert await kube.leads_to(HOST) == "shop/one"
    starting = asyncio.ensure_future(kube.start_controller("after-all"))
    change(kube)
    async with Churn(kube, HOST, "shop/one") as churn:
        await kube.kube.up()
        await starting
        await caught_up(kube)
    assert churn.wrong == []
    assert all(HOST in hosts for hosts in published(kube, since))
