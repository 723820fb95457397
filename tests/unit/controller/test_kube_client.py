"""What the client adds to the API; the API itself is tests/contracts/test_kube_api.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heim_controller.kube.client import FIELD_MANAGER, PAGE
from heim_controller.kube.errors import Garbled, LeadershipLost, NotFound
from heim_controller.kube.resources import CONFIG_MAPS, INGRESSES, LEASES, NAMESPACES
from tests.fakes.kube import FakeKube
from tests.fakes.kube_raw import answering, serving


async def test_a_long_list_is_read_in_pages() -> None:
    async with FakeKube() as kube:
        for number in range(PAGE + 1):
            kube.store.put(CONFIG_MAPS, {"metadata": {"name": f"c-{number}"}})
        listing = await kube.client().list(CONFIG_MAPS)
        assert len(listing.items) == PAGE + 1
        assert kube.counted()["list", "configmaps"] == 2


async def test_every_write_names_us() -> None:
    async with FakeKube() as kube:
        client = kube.client()
        manifest = {"metadata": {"name": "a", "namespace": "default"}}
        made = await client.create(CONFIG_MAPS, manifest)
        await client.replace(CONFIG_MAPS, made)
        await client.patch(CONFIG_MAPS, "a", {"data": {}}, namespace="default")
        await client.apply(CONFIG_MAPS, manifest)
        writes = [asked for asked in kube.asked if asked.verb != "list"]
        assert [asked.query["fieldManager"] for asked in writes] == [FIELD_MANAGER] * 4
        assert writes[-1].query["force"] == "true"


async def test_an_object_needs_a_namespace_where_its_kind_has_one() -> None:
    async with FakeKube() as kube:
        client = kube.client()
        with pytest.raises(ValueError, match="no namespace"):
            await client.create(CONFIG_MAPS, {"metadata": {"name": "a"}})
        await client.create(NAMESPACES, {"metadata": {"name": "a"}})
        assert kube.counted() == {("create", "namespaces"): 1}


async def test_what_is_given_to_write_is_not_changed() -> None:
    async with FakeKube() as kube:
        manifest = {"metadata": {"name": "a", "namespace": "default"}}
        await kube.client().apply(CONFIG_MAPS, manifest)
        assert manifest == {"metadata": {"name": "a", "namespace": "default"}}


@pytest.mark.parametrize(
    "answer",
    [
        {}, {"items": 7, "metadata": {}}, {"items": [], "metadata": None},
        {"items": [7], "metadata": {}}, {"items": [{}], "metadata": {}},
        {"items": [{"metadata": {"name": ""}}], "metadata": {}},
    ],
    ids=["nothing", "number", "no metadata", "no object", "bare object", "no name"],
)  # fmt: skip
async def test_a_list_that_is_none_is_garbled(answer: dict[str, Any]) -> None:
    async with serving(answering(answer)) as client:
        with pytest.raises(Garbled):
            await client.list(CONFIG_MAPS)


async def test_a_list_of_nothing_may_be_null() -> None:
    answer = {"items": None, "metadata": {"resourceVersion": "7"}}
    async with serving(answering(answer)) as client:
        assert (await client.list(CONFIG_MAPS)).items == ()


async def test_a_watch_that_is_left_is_closed() -> None:
    async with FakeKube() as kube:
        client = kube.client()
        async with client.watch(LEASES, version=str(kube.store.revision)) as events:
            kube.store.put(LEASES, {"metadata": {"name": "a"}})
            async for event in events:
                assert event.type == "ADDED"
                break
            assert kube.watching == 1
        async with asyncio.timeout(3):
            while kube.watching:
                await asyncio.sleep(0.002)


async def test_a_status_goes_to_its_own_place() -> None:
    async with FakeKube() as kube:
        with pytest.raises(NotFound):
            await kube.client().apply_status(
                INGRESSES, {"metadata": {"name": "a", "namespace": "default"}, "status": {}}
            )
        assert kube.counted() == {("apply", "ingresses/status"): 1}


async def test_a_client_does_not_tell_its_token() -> None:
    async with FakeKube() as kube:
        assert "secret-token" not in repr(kube.client())


async def test_who_does_not_lead_reads_and_writes_nothing() -> None:
    leads = True
    async with FakeKube() as kube:
        client = kube.client().while_leading(lambda: leads)
        made = {"metadata": {"name": "a", "namespace": "default"}}
        stored = await client.create(CONFIG_MAPS, made)
        leads = False
        for write in (
            client.create(CONFIG_MAPS, made),
            client.replace(CONFIG_MAPS, stored),
            client.patch(CONFIG_MAPS, "a", {}, namespace="default"),
            client.apply(CONFIG_MAPS, made),
            client.apply_status(CONFIG_MAPS, made),
            client.delete(CONFIG_MAPS, "a", namespace="default"),
        ):
            with pytest.raises(LeadershipLost, match="not sent"):
                await write
        assert await client.get(CONFIG_MAPS, "a", namespace="default") == stored
        assert {asked.verb for asked in kube.asked} == {"create", "get"}
