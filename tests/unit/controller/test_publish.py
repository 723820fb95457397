"""The document in ConfigMaps of the fake API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from heim_controller.kube import resources
from heim_controller.kube.errors import Busy, Conflict, Forbidden
from heim_controller.options import Options
from heim_controller.publish import TOLD, Publisher
from heim_controller.sharding import split
from tests.fakes import kube_objects
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import CONFIG_MAP, populate

OPTIONS = Options(kube_objects.SETTINGS)
NAMES = [CONFIG_MAP, *(f"{CONFIG_MAP}-{number}" for number in range(1, 9))]


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        populate(found.store, kube_objects.proxy())
        yield found


def sheets(content: bytes, *, size: int = 100) -> list[dict[str, str]]:
    return split(content, {"a.example.test": "shop"}, shard_bytes=size)


async def loaded(kube: FakeKube) -> Publisher:
    found = Publisher(kube.client(), OPTIONS)
    await found.load()
    return found


async def publish(publisher: Publisher, content: bytes, **more: Any) -> bool:
    return await publisher.publish(
        sheets(content), owner=more.get("owner"), told=more.get("told", "")
    )


def there(kube: FakeKube) -> list[str]:
    return [name for name in NAMES if kube.store.get(resources.CONFIG_MAPS, name, "heim")]


def owner(kube: FakeKube) -> dict[str, Any]:
    found = kube.store.get(resources.PROXIES, "main", "heim")
    assert found is not None
    return found


async def test_what_is_published_is_found_by_whoever_comes_next(kube: FakeKube) -> None:
    first = await loaded(kube)
    assert first.sheet is None
    assert await publish(first, b"x" * 250, owner=owner(kube), told="mark")
    assert there(kube) == NAMES[:3]
    second = await loaded(kube)
    assert second.sheet is not None
    assert second.sheet.content == b"x" * 250
    assert second.sheet.owners == {"a.example.test": "shop"}
    assert second.told == "mark"
    made = kube.store.get(resources.CONFIG_MAPS, NAMES[2], "heim")
    assert made is not None
    assert made["metadata"]["labels"] == {"heim.dev/part-of": CONFIG_MAP}
    assert made["metadata"]["ownerReferences"][0]["uid"] == owner(kube)["metadata"]["uid"]


async def test_the_same_again_is_not_written(kube: FakeKube) -> None:
    await publish(await loaded(kube), b"x" * 250, owner=owner(kube), told="mark")
    kube.asked.clear()
    again = await loaded(kube)
    assert not await publish(again, b"x" * 250, owner=owner(kube), told="mark")
    assert {asked.verb for asked in kube.asked} == {"get"}


async def test_only_what_changed_is_written_and_the_index_last(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x" * 250)
    kube.asked.clear()
    await publish(publisher, b"x" * 249 + b"y")
    assert [asked.name for asked in kube.asked] == [NAMES[2], NAMES[0]]


async def test_shards_that_are_too_many_go_after_the_index(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x" * 250)
    kube.asked.clear()
    await publish(publisher, b"x")
    assert [(asked.verb, asked.name) for asked in kube.asked] == [
        ("apply", NAMES[0]), ("delete", NAMES[1]), ("delete", NAMES[2]),
    ]  # fmt: skip
    assert there(kube) == NAMES[:1]


async def test_a_config_map_of_somebody_else_is_not_removed(kube: FakeKube) -> None:
    kube.store.put(
        resources.CONFIG_MAPS, {"metadata": {"name": NAMES[1], "namespace": "heim"}, "data": {}}
    )
    await publish(await loaded(kube), b"x")
    assert there(kube) == NAMES[:2]


async def test_one_that_may_not_be_removed_stops_nothing(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x" * 150)
    kube.faults.forbidden.add(("delete", "configmaps"))
    assert await publish(publisher, b"x")
    assert publisher.sheet is not None
    assert publisher.sheet.content == b"x"


async def test_the_write_of_a_former_leader_that_comes_late_is_refused(kube: FakeKube) -> None:
    await publish(await loaded(kube), b"first")
    former, current = await loaded(kube), await loaded(kube)
    await publish(current, b"current")
    with pytest.raises(Conflict):
        await publish(former, b"former")
    assert (await loaded(kube)).sheet == current.sheet
    # It has read anew, so that the same call again is no conflict, should it lead after all.
    assert await publish(former, b"former")


async def test_half_of_a_write_is_finished_the_next_time(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x" * 250)
    before = publisher.sheet
    kube.faults.answer(503, when=lambda asked: asked.name == NAMES[0])
    with pytest.raises(Busy):
        await publish(publisher, b"y" * 250)
    assert publisher.sheet == before
    # As well by whoever leads next, who finds only half of it.
    following = await loaded(kube)
    assert following.sheet is None
    await publish(following, b"y" * 250)
    found = (await loaded(kube)).sheet
    assert found is not None
    assert found.content == b"y" * 250


async def test_what_may_not_be_written_is_an_error(kube: FakeKube) -> None:
    kube.faults.forbidden.add(("apply", "configmaps"))
    with pytest.raises(Forbidden):
        await publish(await loaded(kube), b"x")


async def test_what_somebody_edited_is_noticed_and_written_again(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x", told="mark")
    assert not await publisher.refresh()
    kube.store.patch(
        resources.CONFIG_MAPS, ("heim", CONFIG_MAP), {"data": {"document.json": "y"}}, "kubectl", ""
    )
    assert await publisher.refresh()
    assert await publish(publisher, b"x", told="mark")
    assert (await loaded(kube)).sheet == publisher.sheet


async def test_one_that_was_deleted_comes_back(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x")
    kube.store.remove(resources.CONFIG_MAPS, CONFIG_MAP, "heim")
    assert await publisher.refresh()
    assert publisher.sheet is None
    assert await publish(publisher, b"x")


async def test_keys_of_a_document_that_was_larger_do_not_stay(kube: FakeKube) -> None:
    publisher = await loaded(kube)
    await publish(publisher, b"x" * 150)
    await publish(publisher, b"x")
    found = kube.store.get(resources.CONFIG_MAPS, CONFIG_MAP, "heim")
    assert found is not None
    assert set(found["data"]) == {"index.json", "owners.json", "document.json"}
    assert TOLD not in found["metadata"].get("annotations", {})
