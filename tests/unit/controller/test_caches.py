"""Copies of the cluster, and which changes matter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from heim_controller.caches import Caches, differs, trimmed_secret
from heim_controller.kube import resources
from heim_controller.options import Options
from heim_controller.translation.objects import Ref
from tests.fakes import kube_objects
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import basics, ingress, populate, tls_secret
from tests.fakes.kube_watched import QUICK
from tests.fakes.waiting import until

OPTIONS = Options(kube_objects.SETTINGS, publish_service=("heim", "heim"))


class Running:
    def __init__(self, kube: FakeKube, **options: Any) -> None:
        self.touched: list[tuple[str, bool]] = []
        self.caches = Caches(
            kube.client(),
            replace(OPTIONS, **options),
            touched=lambda ref, whole: self.touched.append((str(ref), whole)),
            pace=QUICK,
        )


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        populate(found.store, basics(), kube_objects.web("shop"), ingress("shop/web"))
        yield found


@asynccontextmanager
async def running(kube: FakeKube, *, wait: bool = True, **options: Any) -> AsyncIterator[Running]:
    found = Running(kube, **options)
    task = asyncio.ensure_future(found.caches.run())
    try:
        if wait:
            async with asyncio.timeout(4):
                await found.caches.wait_synced()
            expected = len(list(found.caches.informers)) - len(found.caches.denied)
            await until(lambda: kube.watching == expected)
            found.touched.clear()
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_everything_that_is_translated_is_there(kube: FakeKube) -> None:
    async with running(kube) as found:
        inventory = found.caches.snapshot()
        assert set(inventory.objects.ingresses) == {("shop", "web")}
        assert ("", "shop") in inventory.objects.namespaces
        assert ("heim", "staff") in inventory.objects.roles
        assert found.caches.synced
        assert found.caches.find(Ref("Ingress", "shop", "web"))
        assert found.caches.find(Ref("Secret", "shop", "web")) is None
        assert found.caches.service(("heim", "heim"))
        kube.store.remove(resources.INGRESSES, "web", "shop")
        await until(lambda: not found.caches.ingresses)
        assert set(inventory.objects.ingresses) == {("shop", "web")}


async def test_what_is_missing_is_named_with_the_reason(kube: FakeKube) -> None:
    kube.faults.answer(
        503, times=1000, when=lambda asked: asked.verb == "list" and asked.plural == "proxies"
    )
    async with running(kube, wait=False) as found:
        await until(lambda: len(found.caches.missing) == 1)
        await until(lambda: "503" in found.caches.missing[0])
        assert found.caches.missing[0].startswith("proxies: ")
        assert not found.caches.synced


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"secrets": "none"}, {("heim", "own")}),
        ({"secrets": "namespaces"}, {("heim", "own")}),
        (
            {"secrets": "namespaces", "secrets_namespaces": ("shop", "heim")},
            {("heim", "own"), ("shop", "web")},
        ),
        ({"secrets": "cluster"}, {("heim", "own"), ("shop", "web"), ("docs", "web")}),
    ],
    # A set has another order in every process.
    ids=lambda one: str(sorted(one)) if isinstance(one, set) else str(one),
)
async def test_secrets_are_read_where_that_was_said(
    kube: FakeKube, options: dict[str, Any], seen: set[tuple[str, str]]
) -> None:
    populate(kube.store, tls_secret("heim/own"), tls_secret("shop/web"), tls_secret("docs/web"))
    async with running(kube, **options) as found:
        inventory = found.caches.snapshot()
        assert set(inventory.secrets) == seen
        assert set(inventory.own) == {("heim", "own")}
        excuses = inventory.excuses
        assert excuses["heim"] is None
        unseen = {"heim", "shop", "docs"} - {key[0] for key in seen}
        assert all(excuses.get(one, excuses.get("")) for one in unseen)
        assert not any(excuses.get(key[0], excuses.get("")) for key in seen)


async def test_what_is_denied_in_one_namespace_stops_nothing(kube: FakeKube) -> None:
    kube.faults.answer(
        403, times=1000, when=lambda one: one.plural == "secrets" and one.namespace == "shop"
    )
    async with running(kube, secrets_namespaces=("shop",)) as found:
        assert found.caches.synced
        assert found.caches.denied == {"shop"}
        assert "403" in str(found.caches.snapshot().excuses["shop"])
        kube.faults.heal()
        await until(lambda: not found.caches.denied)
        assert found.caches.snapshot().excuses["shop"] is None


async def test_the_own_namespace_cannot_be_done_without(kube: FakeKube) -> None:
    kube.faults.forbidden.add(("list", "secrets"))
    async with running(kube, wait=False, secrets="cluster") as found:
        await until(lambda: len(found.caches.missing) == 1)
        await until(lambda: "secrets/heim" in found.caches.missing[0])
        assert not found.caches.synced


async def test_what_nobody_else_may_lead_to_is_told(kube: FakeKube) -> None:
    """The proxy's own pods, and the API server: see `translation.reserved`."""
    async with running(kube) as found:
        found.caches.services = frozenset({("shop", "web")})
        api = kube_objects.endpoint_slice("default/kubernetes", "10.0.0.1")
        api["metadata"]["name"] = "kubernetes"
        populate(
            kube.store,
            kube_objects.endpoint_slice("heim/heim", "10.1.0.9"),
            api,
            *kube_objects.web("default", "other"),
            kube_objects.endpoint_slice("shop/web", "10.1.0.7"),
        )
        await until(lambda: len(found.touched) >= 3)
        assert sorted(found.touched) == [
            ("EndpointSlice default/kubernetes", True),
            ("EndpointSlice heim/heim-x7k2p", True),
            ("EndpointSlice shop/web-x7k2p", True),
        ]


async def test_only_what_something_depends_on_is_told(kube: FakeKube) -> None:
    async with running(kube) as found:
        found.caches.services = frozenset({("shop", "web")})
        store = kube.store
        populate(
            store,
            kube_objects.web("shop", "other"),
            kube_objects.endpoint_slice("shop/web", "10.1.0.9"),
            kube_objects.service("shop/web", labels={"a": "b"}),
        )
        balancer = store.get(resources.SERVICES, "heim", "heim")
        assert balancer is not None
        store.put(resources.SERVICES, {**balancer, "status": {"loadBalancer": {}}})
        store.put(
            resources.SECRETS, {"metadata": {"name": "x", "namespace": "heim"}, "data": {"a": ""}}
        )
        populate(store, tls_secret("heim/last"))
        await until(lambda: ("Secret heim/last", True) in found.touched)
        await until(lambda: len(found.touched) >= 4)
        assert sorted(found.touched) == [
            ("EndpointSlice shop/web-x7k2p", True),
            ("Secret heim/last", True),
            ("Service heim/heim", False),
            ("Service shop/web", True),
        ]


async def test_a_status_alone_is_told_as_that(kube: FakeKube) -> None:
    async with running(kube) as found:
        kube.store.patch(
            resources.INGRESSES, ("shop", "web"), {"status": {"loadBalancer": {}}}, "x", "status"
        )
        await until(lambda: found.touched == [("Ingress shop/web", False)])
        kube.store.remove(resources.INGRESSES, "web", "shop")
        await until(lambda: ("Ingress shop/web", True) in found.touched)


BEFORE: dict[str, Any] = {
    "kind": "Ingress",
    "metadata": {"name": "web", "resourceVersion": "1", "labels": {"a": "b"}},
    "spec": {"x": 1},
}


@pytest.mark.parametrize(
    ("change", "matters"),
    [
        ({"metadata": {**BEFORE["metadata"], "resourceVersion": "2"}}, False),
        ({"status": {"x": 1}}, False),
        ({"spec": {"x": 2}}, True),
        ({"endpoints": []}, True),
        ({"metadata": {"name": "web"}}, True),
        ({"metadata": {**BEFORE["metadata"], "annotations": {"a": "b"}}}, True),
        ({"metadata": {**BEFORE["metadata"], "uid": "another"}}, True),
    ],
)
def test_what_we_write_ourselves_never_counts(change: dict[str, Any], matters: bool) -> None:
    assert differs(BEFORE, {**BEFORE, **change}) == matters
    assert differs(None, BEFORE)


def test_of_a_secret_nothing_is_kept_but_certificate_and_key() -> None:
    found = trimmed_secret(
        {
            "metadata": {"name": "x", "annotations": {"a": "b"}, "managedFields": []},
            "data": {"tls.crt": "1", "tls.key": "2", "password": "3"},
            "stringData": {"x": "y"},
        }
    )
    assert found == {
        "metadata": {"name": "x", "annotations": {"a": "b"}},
        "data": {"tls.crt": "1", "tls.key": "2"},
    }
    assert trimmed_secret({"metadata": {"name": "x", "annotations": {}}, "data": None}) == {
        "metadata": {"name": "x", "annotations": {}}, "data": {},
    }  # fmt: skip
    release = {"metadata": {"name": "x", "annotations": {"a": "b"}}, "data": {"release": "1"}}
    assert trimmed_secret(release) == {"metadata": {"name": "x"}, "data": {}}
