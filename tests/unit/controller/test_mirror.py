"""Copies of TLS Secrets."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from heim_controller.certificates import Book
from heim_controller.kube import resources
from heim_controller.kube.errors import Busy
from heim_controller.kube.resources import Key
from heim_controller.mirror import Mirrors, Plan, mirrors_of, plan
from heim_controller.options import Options
from heim_controller.translation.certificates import mirror_name
from tests.fakes import kube_objects
from tests.fakes.certificates import NOW
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import populate, tls_secret

OPTIONS = Options(kube_objects.SETTINGS)
KEY: Key = ("shop", "web")
NAME = mirror_name(KEY)


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        populate(found.store, kube_objects.proxy(), tls_secret("shop/web"))
        yield found


def own(kube: FakeKube) -> dict[Key, Any]:
    return {
        ("heim", one["metadata"]["name"]): one
        for one in kube.store.all(resources.SECRETS)
        if one["metadata"]["namespace"] == "heim"
    }


def todo(kube: FakeKube, *needed: Key, owned: bool = True) -> Plan:
    book = Book()
    secrets = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one
        for one in kube.store.all(resources.SECRETS)
    }
    known = book.look(secrets, mirrors_of(own(kube)), now=NOW.timestamp())
    for key in needed:
        known.get(key)
    owner = kube.store.get(resources.PROXIES, "main", "heim") if owned else None
    return plan(own(kube), book, needed, OPTIONS, owner)


def mirror(kube: FakeKube) -> dict[str, Any] | None:
    return kube.store.get(resources.SECRETS, NAME, "heim")


async def test_a_mirror_holds_the_pair_and_says_what_it_is_of(kube: FakeKube) -> None:
    mirrors = Mirrors(kube.client(), OPTIONS)
    assert await mirrors.write(todo(kube, KEY))
    made, source = mirror(kube), kube.store.get(resources.SECRETS, "web", "shop")
    assert made is not None
    assert source is not None
    assert made["data"] == source["data"]
    assert made["type"] == "kubernetes.io/tls"
    assert mirrors_of(own(kube)) == {KEY: made}
    assert todo(kube, KEY) == Plan()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"data": tls_secret("x/y")["data"]}, id="another pair"),
        pytest.param({"metadata": {"annotations": {"heim.dev/mirror-of": "a/b"}}}, id="its note"),
        pytest.param({"metadata": {"ownerReferences": []}}, id="its owner"),
    ],
)
async def test_a_mirror_that_somebody_changed_is_made_right(
    kube: FakeKube, change: dict[str, Any]
) -> None:
    mirrors = Mirrors(kube.client(), OPTIONS)
    await mirrors.write(todo(kube, KEY))
    before = mirror(kube)
    kube.store.patch(resources.SECRETS, ("heim", NAME), change, "kubectl", "")
    assert await mirrors.write(todo(kube, KEY))
    after = mirror(kube)
    assert before is not None
    assert after is not None
    assert after["data"] == before["data"]
    assert todo(kube, KEY) == Plan()


async def test_what_nothing_needs_is_removed(kube: FakeKube) -> None:
    mirrors = Mirrors(kube.client(), OPTIONS)
    await mirrors.write(todo(kube, KEY))
    other = {"metadata": {"name": "other", "namespace": "heim"}, "data": {}}
    kube.store.put(resources.SECRETS, other)
    await mirrors.sweep(todo(kube))
    assert list(own(kube)) == [("heim", "other")]
    assert mirrors.removed == 1


async def test_one_that_is_another_by_now_is_left(kube: FakeKube) -> None:
    mirrors = Mirrors(kube.client(), OPTIONS)
    await mirrors.write(todo(kube, KEY))
    late = todo(kube)
    kube.store.remove(resources.SECRETS, NAME, "heim")
    kube.store.put(resources.SECRETS, {"metadata": {"name": NAME, "namespace": "heim"}})
    await mirrors.sweep(late)
    assert mirror(kube)
    kube.store.remove(resources.SECRETS, NAME, "heim")
    await mirrors.sweep(late)


async def test_a_secret_of_somebody_else_is_never_written_over(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    mirrors = Mirrors(kube.client(), OPTIONS)
    early = todo(kube, KEY)
    theirs = {**tls_secret(f"heim/{NAME}"), "type": "kubernetes.io/tls"}
    kube.store.put(resources.SECRETS, theirs)
    before = mirror(kube)
    assert not await mirrors.write(early)  # planned before it was there
    with caplog.at_level(logging.WARNING):
        assert not await mirrors.write(todo(kube, KEY))
        assert not await mirrors.write(todo(kube, KEY))
    assert mirror(kube) == before
    told = [one.message for one in caplog.records]
    assert told.count("controller.mirror_name_taken") == 1


async def test_one_that_is_refused_does_not_stop_the_others(kube: FakeKube) -> None:
    populate(kube.store, tls_secret("shop/zeta"))
    kube.faults.answer(422, when=lambda asked: asked.name == NAME)
    mirrors = Mirrors(kube.client(), OPTIONS)
    assert not await mirrors.write(todo(kube, KEY, ("shop", "zeta")))
    assert list(own(kube)) == [("heim", "shop.zeta")]
    assert (mirrors.failed, mirrors.written) == (1, 1)
    kube.faults.answer(422, when=lambda asked: asked.verb == "delete")
    await mirrors.sweep(todo(kube))
    assert mirrors.failed == 2


async def test_without_an_api_server_there_is_nothing_to_go_on_with(kube: FakeKube) -> None:
    mirrors = Mirrors(kube.client(), OPTIONS)
    kube.faults.answer(503, times=1)
    with pytest.raises(Busy):
        await mirrors.write(todo(kube, KEY))
    await mirrors.write(todo(kube, KEY))
    kube.faults.answer(503, times=1)
    with pytest.raises(Busy):
        await mirrors.sweep(todo(kube))


def test_a_name_alone_makes_no_mirror() -> None:
    def made(name: str, **meta: Any) -> dict[Key, Any]:
        return {("heim", name): {"metadata": {"name": name, "namespace": "heim", **meta}}}

    labels = {"heim.dev/part-of": "x"}
    note = {"heim.dev/mirror-of": "shop/web"}
    assert mirrors_of(made(NAME, labels=labels, annotations=note))
    assert not mirrors_of(made(NAME, labels=labels))
    assert not mirrors_of(made(NAME, annotations=note))
    assert not mirrors_of(made("other", labels=labels, annotations=note))


async def test_without_a_proxy_mirrors_have_no_owner(kube: FakeKube) -> None:
    await Mirrors(kube.client(), OPTIONS).write(todo(kube, KEY, owned=False))
    made = mirror(kube)
    assert made is not None
    assert "ownerReferences" not in made["metadata"]
    # They get one as soon as there is one.
    assert todo(kube, KEY).write
