from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_controller.kube.resources import CONFIG_MAPS
from heim_proxy.sources.account import Account
from heim_proxy.sources.answers import Selection
from heim_proxy.sources.api import Api, Pace
from heim_proxy.sources.follower import Follower
from heim_runtime.tasks import cancel, spawn
from tests.fakes.kube import FakeKube
from tests.fakes.kube_document import NAMESPACE, account_folder, api_tls
from tests.fakes.waiting import until

QUICK = Pace(
    connect=1.0, answer=1.0, silence=0.3, first=0.01, ceiling=0.05, healthy=0.0, denied=0.05
)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube(tls=api_tls()) as started:
        started.faults.bookmark_s = 0.05
        yield started


class Copy:
    """A follower of all ConfigMaps of the namespace, running."""

    def __init__(self, kube: FakeKube, folder: Path) -> None:
        self.kube = kube
        self.changes = 0
        port = kube.url.rpartition(":")[2]
        environment = {
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": port,
        }
        self.api = Api(Account(account_folder(folder), environment), pace=QUICK)
        wanted = Selection("configmaps", NAMESPACE)
        self.follower = Follower(self.api, wanted, changed=self.changed)
        self.task = spawn("follower", self.follower.run())

    def changed(self) -> None:
        self.changes += 1

    def put(self, name: str, value: str) -> None:
        manifest = {"metadata": {"name": name, "namespace": NAMESPACE}, "data": {"key": value}}
        self.kube.store.put(CONFIG_MAPS, manifest)

    def remove(self, name: str) -> None:
        self.kube.store.remove(CONFIG_MAPS, name, NAMESPACE)

    async def holds(self, **wanted: str) -> None:
        """Wait until the copy is this."""
        await until(
            lambda: (
                self.follower.synced
                and {name: data["key"] for name, data in self.follower.data.items()} == wanted
            )
        )

    @property
    def lists(self) -> int:
        return self.kube.counted()["list", "configmaps"]

    @property
    def watches(self) -> int:
        return self.kube.counted()["watch", "configmaps"]


@pytest.fixture
async def copy(kube: FakeKube, tmp_path: Path) -> AsyncIterator[Copy]:
    found = Copy(kube, tmp_path / "account")
    yield found
    await cancel([found.task])
    await found.api.close()


async def test_what_is_there_and_every_change_reaches_the_copy(copy: Copy) -> None:
    copy.put("a", "1")
    await copy.holds(a="1")
    await until(lambda: copy.kube.watching)
    copy.put("b", "2")
    copy.put("a", "3")
    copy.remove("b")
    await copy.holds(a="3")
    assert copy.lists == 1
    assert copy.changes >= 4


async def test_a_bookmark_is_no_change(copy: Copy) -> None:
    await copy.holds()
    await until(lambda: copy.kube.watching)
    changes = copy.changes
    watches = copy.watches
    # Bookmarks keep the watch alive for longer than the silence that would end it.
    await until(lambda: copy.changes == changes and copy.kube.watching)
    assert copy.watches == watches


async def test_what_was_missed_while_cut_off_is_made_up_for_deletions_included(
    copy: Copy,
) -> None:
    copy.put("a", "1")
    copy.put("b", "1")
    await copy.holds(a="1", b="1")
    await copy.kube.down()
    await until(lambda: copy.follower.trouble)
    copy.remove("a")
    copy.put("c", "1")
    copy.kube.store.compact()
    assert set(copy.follower.data) == {"a", "b"}
    await copy.kube.up()
    await copy.holds(b="1", c="1")
    await until(lambda: not copy.follower.trouble)


@pytest.mark.parametrize("by_status", [True, False], ids=["as a status", "as an event"])
async def test_a_version_that_was_compacted_is_listed_anew_and_not_from_the_cache(
    copy: Copy, by_status: bool
) -> None:
    copy.kube.faults.gone_by_status = by_status
    await copy.holds()
    await copy.kube.down()
    copy.put("a", "1")
    copy.put("a", "2")
    copy.kube.store.compact()
    await copy.kube.up()
    await copy.holds(a="2")
    asked = [one.query for one in copy.kube.asked if one.verb == "list"]
    assert asked[0]["resourceVersion"] == "0"
    assert all("resourceVersion" not in query for query in asked[1:])


async def test_a_watch_that_falls_silent_is_replaced(copy: Copy) -> None:
    await copy.holds()
    await until(lambda: copy.kube.watching)
    before = copy.watches
    copy.kube.faults.silent = True
    copy.put("a", "lost in the watch")
    await until(lambda: copy.watches > before)
    copy.kube.faults.silent = False
    copy.kube.cut()
    await copy.holds(a="lost in the watch")


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_refusals_are_told_and_outlived(copy: Copy, status: int) -> None:
    copy.put("a", "1")
    await copy.holds(a="1")
    await until(lambda: copy.kube.watching)
    copy.kube.faults.answer(status, times=6)
    copy.kube.cut()
    await until(lambda: str(status) in copy.follower.trouble)
    assert set(copy.follower.data) == {"a"}
    copy.put("a", "2")
    await copy.holds(a="2")
    await until(lambda: not copy.follower.trouble)


async def test_garbage_on_a_watch_leads_to_a_list(copy: Copy) -> None:
    copy.put("a", "1")
    await copy.holds(a="1")
    await until(lambda: copy.kube.watching)
    lists = copy.lists
    await copy.kube.say(b"not JSON\n")
    await until(lambda: copy.lists > lists)
    copy.put("a", "2")
    await copy.holds(a="2")


async def test_objects_without_data_are_empty(copy: Copy) -> None:
    copy.kube.store.put(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": NAMESPACE}})
    await until(lambda: copy.follower.data == {"a": {}})


def test_a_repr_shows_no_data(tmp_path: Path) -> None:
    follower = Follower(
        Api(Account(tmp_path)), Selection("secrets", NAMESPACE), changed=lambda: None
    )
    follower.data = {"a": {"tls.key": "private"}}
    assert repr(follower) == "<Follower secrets synced=False objects=1>"
