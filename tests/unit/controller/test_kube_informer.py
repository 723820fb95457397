"""The cycle of list and watch; what breaks it is in tests/hostile/test_y_kube_faults.py."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from heim_controller.kube.informer import Informer
from heim_controller.kube.resources import (
    BACKENDS,
    CONFIG_MAPS,
    INGRESS_CLASSES,
    SECRETS,
    version_of,
)
from tests.fakes.kube import FakeKube
from tests.fakes.kube_watched import QUICK, Watched, running, watched
from tests.fakes.waiting import until


def put(kube: FakeKube, name: str, value: str = "", **metadata: Any) -> dict[str, Any]:
    return kube.store.put(
        CONFIG_MAPS, {"metadata": {"name": name, **metadata}, "data": {"v": value}}
    )


async def test_the_copy_is_complete_once_it_is_synced() -> None:
    async with FakeKube() as kube:
        for number in range(3):
            put(kube, f"c{number}")
        informer = Informer(kube.client(), CONFIG_MAPS)
        assert not informer.synced
        assert dict(informer.objects) == {}
        task = asyncio.ensure_future(informer.run())
        async with asyncio.timeout(3):
            await informer.wait_synced()
        assert [name for _, name in informer.objects] == ["c0", "c1", "c2"]
        task.cancel()


async def test_changes_are_told_with_what_was_before() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a", "1")
        put(kube, "a", "2")
        kube.store.remove(CONFIG_MAPS, "a")
        await until(lambda: len(found.changes) == 3)
        assert found.told == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]
        added, modified, deleted = found.changes
        assert added.before is None
        assert modified.before is added.object
        assert deleted.before is modified.object
        assert deleted.object["data"] == {"v": "2"}
        assert dict(found.informer.objects) == {}


async def test_a_change_is_in_the_copy_when_it_is_told() -> None:
    async with FakeKube() as kube:
        seen: list[bool] = []
        informer = Informer(
            kube.client(),
            CONFIG_MAPS,
            on_change=lambda change: seen.append(
                (informer.objects.get(change.key) is change.object) == (change.type != "DELETED")
            ),
        )
        put(kube, "a")
        put(kube, "b")
        task = asyncio.ensure_future(informer.run())
        await until(lambda: kube.watching)
        put(kube, "a", "2")
        kube.store.remove(CONFIG_MAPS, "b")
        await until(lambda: len(seen) == 4)
        assert all(seen)
        task.cancel()


async def test_objects_are_alike_from_lists_and_watches_and_stripped() -> None:
    last = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    async with FakeKube() as kube:
        put(kube, "listed", annotations=last)
        async with watched(kube) as found:
            put(kube, "watched", annotations=last)
            await until(lambda: len(found.informer.objects) == 2)
            for manifest in found.informer.objects.values():
                assert (manifest["apiVersion"], manifest["kind"]) == ("v1", "ConfigMap")
                assert "managedFields" not in manifest["metadata"]
                assert manifest["metadata"]["annotations"] == {}


async def test_nobody_writes_into_the_copy() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        with pytest.raises(TypeError):
            found.informer.objects["default", "a"] = {}  # type: ignore[index]


async def test_an_informer_keeps_to_its_namespace_and_selectors() -> None:
    async with FakeKube() as kube:
        for namespace in ("one", "two"):
            for kind in ("kubernetes.io/tls", "Opaque"):
                name = kind.rpartition("/")[2].lower()
                kube.store.put(
                    SECRETS,
                    {"metadata": {"name": name, "namespace": namespace, "labels": {"a": namespace}},
                     "type": kind},
                )  # fmt: skip
        async with (
            watched(kube, SECRETS, namespace="one") as one,
            watched(kube, SECRETS, fields="type=kubernetes.io/tls") as tls,
            watched(kube, SECRETS, selector="a=two") as two,
        ):
            assert set(one.informer.objects) == {("one", "tls"), ("one", "opaque")}
            assert set(tls.informer.objects) == {("one", "tls"), ("two", "tls")}
            assert set(two.informer.objects) == {("two", "tls"), ("two", "opaque")}


async def test_objects_of_the_cluster_have_no_namespace() -> None:
    async with FakeKube() as kube:
        kube.store.put(INGRESS_CLASSES, {"metadata": {"name": "heim"}})
        async with watched(kube, INGRESS_CLASSES) as found:
            assert list(found.informer.objects) == [("", "heim")]


async def test_the_first_list_may_come_from_the_cache_and_later_ones_must_not() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        kube.store.compact()
        put(kube, "b")
        # Compacted past what the watch has seen, so that only a list can go on.
        kube.faults.silent = True
        put(kube, "c")
        kube.store.compact()
        kube.cut()
        kube.faults.silent = False
        await until(lambda: len(found.informer.objects) == 3)
        lists = [asked.query.get("resourceVersion") for asked in kube.asked if asked.verb == "list"]
        assert lists == ["0", None]
        assert (found.informer.gone, found.informer.lists) == (1, 2)


async def test_a_watch_asks_for_bookmarks_and_an_end() -> None:
    async with FakeKube() as kube, watched(kube):
        (query,) = [asked.query for asked in kube.asked if asked.verb == "watch"]
        assert query["allowWatchBookmarks"] == "true"
        assert 240 <= int(query["timeoutSeconds"]) <= 480
        assert query["resourceVersion"] == str(kube.store.revision)


async def test_a_watch_that_ended_goes_on_from_the_last_event() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        made = put(kube, "a")
        await until(lambda: len(found.changes) == 1)
        kube.end_watches()
        await until(lambda: found.informer.restarts == 1)
        await until(lambda: kube.watching)
        put(kube, "b")
        await until(lambda: len(found.changes) == 2)
        assert found.told == [("ADDED", "a"), ("ADDED", "b")]
        assert kube.asked[-1].query["resourceVersion"] == version_of(made)
        assert (found.informer.lists, found.informer.errors) == (1, 0)


async def test_a_watch_that_ended_goes_on_from_the_last_bookmark() -> None:
    async with FakeKube() as kube:
        kube.faults.bookmark_s = 0.02
        async with watched(kube) as found:
            kube.store.put(SECRETS, {"metadata": {"name": "of-another-kind"}})
            moment = found.informer.last_event_at
            await until(lambda: (found.informer.last_event_at or 0) > (moment or 0) + 0.05)
            kube.end_watches()
            await until(lambda: found.informer.restarts == 1)
            await until(lambda: kube.watching)
            assert kube.asked[-1].query["resourceVersion"] == str(kube.store.revision)
            assert found.changes == []


async def test_a_kind_that_may_be_missing_counts_as_empty_until_it_comes() -> None:
    async with FakeKube() as kube:
        kind = kube.store.kinds.pop(BACKENDS)
        found = Watched(kube.client(), BACKENDS, optional=True)
        task = asyncio.ensure_future(found.informer.run())
        async with asyncio.timeout(3):
            await found.informer.wait_synced()
        assert found.informer.problem is None
        kube.store.kinds[BACKENDS] = kind
        kube.store.put(BACKENDS, {"metadata": {"name": "web"}})
        await until(lambda: found.told == [("ADDED", "web")])
        task.cancel()


async def test_a_kind_that_must_be_there_is_waited_for() -> None:
    async with FakeKube() as kube:
        kube.store.kinds.pop(BACKENDS)
        informer = Informer(kube.client(), BACKENDS, pace=QUICK)
        task = asyncio.ensure_future(informer.run())
        await until(lambda: informer.errors >= 2)
        assert not informer.synced
        assert "404" in str(informer.problem)
        task.cancel()


async def test_an_informer_tells_how_it_is() -> None:
    async with FakeKube() as kube, watched(kube) as found:
        put(kube, "a")
        await until(lambda: found.changes)
        assert repr(found.informer) == "<Informer configmaps synced objects=1>"


async def test_what_is_denied_is_settled_and_not_synced() -> None:
    async with FakeKube() as kube:
        kube.faults.forbidden.add(("list", "configmaps"))
        async with running(kube.client()) as found:
            async with asyncio.timeout(4):
                await found.informer.wait_settled()
            assert (found.informer.denied, found.informer.synced) == (True, False)
            kube.faults.forbidden.clear()
            await until(lambda: found.informer.synced and not found.informer.denied)


async def test_only_what_is_to_be_kept_is_kept() -> None:
    def bare(manifest: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": manifest["metadata"]}

    async with FakeKube() as kube:
        kube.store.put(CONFIG_MAPS, {"metadata": {"name": "listed"}, "data": {"a": "b"}})
        async with watched(kube, keep=bare) as found:
            kube.store.put(CONFIG_MAPS, {"metadata": {"name": "watched"}, "data": {"a": "b"}})
            await until(lambda: len(found.informer.objects) == 2)
            assert not any("data" in one for one in found.informer.objects.values())
