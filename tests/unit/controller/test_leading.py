"""What the leading replica does, in this process and on the fake API server."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from heim_controller.caches import Caches
from heim_controller.kube import resources
from heim_controller.leading import Leader
from heim_controller.options import Options
from heim_runtime.clock import SystemClock
from tests.fakes import kube_objects
from tests.fakes.certificates import make_pair
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import (
    CONFIG_MAP,
    basics,
    document,
    ingress,
    populate,
    tls_secret,
)
from tests.fakes.kube_watched import QUICK
from tests.fakes.waiting import until

OPTIONS = Options(kube_objects.SETTINGS, publish_service=("heim", "heim"))


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    async with FakeKube() as found:
        populate(found.store, basics(), kube_objects.web("shop"), ingress("shop/web"))
        yield found


@asynccontextmanager
async def leading(
    kube: FakeKube, *, clock: Any = None, tick_s: float = 60, **options: Any
) -> AsyncIterator[Leader]:
    client = kube.client()
    told = replace(OPTIONS, **options)
    hooks: list[Leader] = []
    caches = Caches(
        client, told, touched=lambda ref, whole: hooks[0].touched(ref, whole), pace=QUICK
    )
    leader = Leader(client, told, caches, clock=clock, tick_s=tick_s)
    hooks.append(leader)
    tasks = [asyncio.ensure_future(caches.run()), asyncio.ensure_future(leader.lead())]
    try:
        yield leader
        assert not tasks[1].done(), "a leader never ends by itself"
    finally:
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def hosts(kube: FakeKube) -> set[str]:
    found = document(kube.store) or {"backends": []}
    return {host for one in found["backends"] for host in one["hosts"]}


def told(kube: FakeKube, name: str) -> list[str]:
    events = kube.store.all(resources.EVENTS)
    return sorted(one["reason"] for one in events if one["regarding"]["name"] == name)


async def test_a_publication_that_fails_is_tried_again(kube: FakeKube) -> None:
    kube.faults.answer(503, when=lambda asked: asked.plural == "configmaps", times=2)
    async with leading(kube) as leader:
        await until(lambda: hosts(kube) == {"web.example.test"})
        assert leader.failures["load"] == 2
        kube.faults.answer(503, when=lambda asked: asked.plural == "configmaps")
        populate(kube.store, ingress("shop/more"))
        await until(lambda: "more.example.test" in hosts(kube))
        assert leader.failures["publish"] == 1


async def test_what_somebody_edits_is_put_right_by_the_next_tick(kube: FakeKube) -> None:
    async with leading(kube, tick_s=0.2):
        await until(lambda: hosts(kube) == {"web.example.test"})
        kube.store.patch(
            resources.CONFIG_MAPS, ("heim", CONFIG_MAP), {"data": {"document.json": "{}"}}, "x", ""
        )
        await until(lambda: document(kube.store) != {})
        kube.store.remove(resources.CONFIG_MAPS, CONFIG_MAP, "heim")
        await until(lambda: hosts(kube) == {"web.example.test"})


async def test_a_service_that_matters_from_now_on_is_followed(kube: FakeKube) -> None:
    async with leading(kube) as leader:
        await until(lambda: hosts(kube) == {"web.example.test"})
        populate(kube.store, kube_objects.web("shop", "late"))
        rule = kube_objects.rule("late.example.test", kube_objects.path("/", "late"))
        populate(kube.store, kube_objects.ingress("shop/late", rule))
        await until(lambda: "late.example.test" in hosts(kube))
        populate(kube.store, kube_objects.endpoint_slice("shop/late", "10.7.7.7"))
        await until(lambda: "10.7.7.7" in str(document(kube.store)))
        assert leader.failures == {}


class Broken(SystemClock):
    """A clock that raises, which stands for any mistake of ours in a translation."""

    broken = False

    def now(self) -> float:
        if self.broken:
            self.broken = False
            raise RuntimeError("no time")
        return SystemClock.now()


async def test_a_mistake_of_ours_leaves_what_is_published(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Broken()
    async with leading(kube, clock=clock, tick_s=0.2) as leader:
        await until(lambda: told(kube, "web") == ["Synced"])
        clock.broken = True
        populate(kube.store, ingress("shop/more"))
        with caplog.at_level(logging.CRITICAL):
            await until(lambda: leader.failures["translate"] > 0)
        assert hosts(kube) == {"web.example.test"}
        await until(lambda: "more.example.test" in hosts(kube))


async def test_an_issuer_without_cert_manager_stops_nothing(kube: FakeKube) -> None:
    kube.faults.forbidden.add(("get", "certificates"))
    populate(kube.store, basics(certificateIssuer={"name": "letsencrypt"}))
    async with leading(kube) as leader:
        await until(lambda: hosts(kube) == {"web.example.test"})
        await until(lambda: "CertificateNotRequested" in told(kube, "main"))
        assert leader.failures["certificate"] == 1


async def test_the_first_address_of_an_ingress_is_an_event(kube: FakeKube) -> None:
    balancer = kube_objects.service("heim/heim", type="LoadBalancer")
    kube.store.put(resources.SERVICES, balancer)
    async with leading(kube):
        await until(lambda: hosts(kube) == {"web.example.test"})
        assert told(kube, "web") == []
        balancer["status"] = {"loadBalancer": {"ingress": [{"hostname": "lb.test"}]}}
        kube.store.put(resources.SERVICES, balancer)
        await until(lambda: told(kube, "web") == ["Synced"])
        balancer["status"] = {"loadBalancer": {"ingress": [{"hostname": "other.test"}]}}
        kube.store.put(resources.SERVICES, balancer)

        def address() -> Any:
            found = kube.store.get(resources.INGRESSES, "web", "shop")
            return (found or {})["status"]["loadBalancer"]["ingress"]

        await until(lambda: address() == [{"hostname": "other.test"}])
        assert told(kube, "web") == ["Synced"]


async def test_addresses_that_are_given_need_no_service(kube: FakeKube) -> None:
    async with leading(kube, publish_service=None, publish_addresses=("lb.test",)):
        await until(lambda: told(kube, "web") == ["Synced"])


async def test_a_certificate_is_renewed_while_the_rest_is_refused(kube: FakeKube) -> None:
    section = [{"hosts": ["safe.example.test"], "secretName": "safe"}]
    populate(
        kube.store,
        basics(maxRouteDropPercent=0),
        ingress("shop/safe", tls=section),
        tls_secret("shop/safe"),
    )

    def mirrored() -> bytes:
        found = kube.store.get(resources.SECRETS, "shop.safe", "heim")
        return base64.b64decode(found["data"]["tls.crt"]) if found else b""

    async with leading(kube, secrets="cluster") as leader:
        await until(lambda: len(hosts(kube)) == 2)
        kube.store.remove(resources.INGRESSES, "web", "shop")
        await until(lambda: bool(leader.refused))
        renewed = make_pair("safe.example.test")
        populate(kube.store, tls_secret("shop/safe", renewed))
        await until(lambda: mirrored() == renewed.cert)
        assert len(hosts(kube)) == 2
        assert [key for key, _ in leader.expiries()] == [("shop", "safe")]


async def test_hosts_that_lose_their_certificate_are_named(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    def lost() -> list[tuple[list[str], int]]:
        return [
            (vars(one)["hosts"], vars(one)["count"])
            for one in caplog.records
            if one.getMessage() == "controller.certificate_lost"
        ]

    def shown() -> list[str]:
        found = document(kube.store) or {}
        return [one["secret"] for one in found.get("tls", {}).get("certificates", ())]

    section = [{"hosts": ["safe.example.test"], "secretName": "safe"}]
    populate(kube.store, ingress("shop/safe", tls=section), tls_secret("shop/safe"))
    async with leading(kube, secrets="cluster"):
        await until(lambda: "shop.safe" in shown())
        populate(kube.store, tls_secret("shop/safe", make_pair("other.example.test")))
        await until(lambda: "shop.safe" not in shown())
        await until(lambda: lost() == [(["safe.example.test"], 1)])
        await until(lambda: "TLSSecretInvalid" in told(kube, "safe"))
        populate(kube.store, tls_secret("shop/safe"))
        await until(lambda: "shop.safe" in shown())
    # Whoever leads next knows what was shown.
    kube.store.remove(resources.SECRETS, "safe", "shop")
    populate(kube.store, tls_secret("shop/safe", make_pair("third.example.test")))
    async with leading(kube, secrets="cluster"):
        await until(lambda: len(lost()) == 2)
        # With its Ingress a host goes for good, and there is nothing to warn of.
        populate(kube.store, tls_secret("shop/safe"))
        await until(lambda: "shop.safe" in shown())
        kube.store.remove(resources.INGRESSES, "safe", "shop")
        await until(lambda: "safe.example.test" not in hosts(kube))
        assert len(lost()) == 2


async def test_hosts_stay_with_their_namespace_across_leaders(kube: FakeKube) -> None:
    async with leading(kube):
        await until(lambda: hosts(kube) == {"web.example.test"})
    # An object that is older is edited to name somebody else's host while nobody looks.
    early = ingress("other/early", "web.example.test", created="2020-01-01T00:00:00Z")
    populate(kube.store, kube_objects.web("other"), early)
    async with leading(kube):
        await until(lambda: told(kube, "early") == ["HostNotOwned"])
        found = document(kube.store)
        assert found is not None
        assert [one["name"] for one in found["backends"]] == ["ingress.shop.web"]


async def test_what_an_earlier_leader_wrote_is_given_up_by_the_next(kube: FakeKube) -> None:
    async with leading(kube):
        await until(lambda: told(kube, "web") == ["Synced"])
    kube.store.patch(
        resources.INGRESSES, ("shop", "web"), {"spec": {"ingressClassName": "x"}}, "kubectl", ""
    )

    def address() -> Any:
        found = kube.store.get(resources.INGRESSES, "web", "shop")
        return (found or {}).get("status", {}).get("loadBalancer")

    assert address()
    async with leading(kube):
        await until(lambda: not address())


async def test_without_a_proxy_object_its_defaults_are_served(kube: FakeKube) -> None:
    kube.store.remove(resources.PROXIES, "main", "heim")
    async with leading(kube):
        await until(lambda: hosts(kube) == {"web.example.test"})
        populate(kube.store, basics())

        def owned() -> bool:
            found = kube.store.get(resources.CONFIG_MAPS, CONFIG_MAP, "heim")
            return bool(found and found["metadata"].get("ownerReferences"))

        await until(owned)
