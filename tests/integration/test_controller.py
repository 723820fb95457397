"""The real heim-controller, against the fake API server."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from heim_controller.kube import resources
from heim_controller.kube.resources import Resource
from tests.fakes import kube_objects
from tests.fakes.certificates import make_pair
from tests.fakes.kube import FakeKube
from tests.fakes.kube_cluster import (
    CONFIG_MAP,
    FakeProxy,
    basics,
    document,
    ingress,
    populate,
    tls_secret,
)
from tests.fakes.kube_faults import Asked
from tests.fakes.waiting import until
from tests.integration.controller import running, writes
from tests.unit.charts.render import NAMESPACE as RELEASE_NAMESPACE
from tests.unit.charts.render import objects, values_of

# Processes start in half a second; on a machine that runs everything else as well, in several.
WITHIN_S = 20.0

Made = dict[str, Any]


@pytest.fixture
async def kube() -> AsyncIterator[FakeKube]:
    """A cluster with a Proxy, and one Ingress that is served."""
    async with FakeKube() as found:
        populate(found.store, basics(), kube_objects.web("shop"), ingress("shop/web"))
        yield found


async def true(condition: Callable[[], object]) -> None:
    await until(condition, within_s=WITHIN_S)


async def comes(ask: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not await ask():
            await asyncio.sleep(0.02)


def hosts(kube: FakeKube) -> set[str]:
    """Hosts of the published document."""
    found = document(kube.store)
    return {host for one in (found or {"backends": []})["backends"] for host in one["hosts"]}


def status(kube: FakeKube, resource: Resource, name: str) -> Made:
    namespace, _, bare = name.rpartition("/")
    found = kube.store.get(resource, bare, namespace)
    return dict(found.get("status") or {}) if found else {}


def address(kube: FakeKube, name: str) -> object:
    return status(kube, resources.INGRESSES, name).get("loadBalancer")


def condition(kube: FakeKube, resource: Resource, name: str, kind: str) -> Made:
    found = status(kube, resource, name).get("conditions", ())
    return next((one for one in found if one["type"] == kind), {})


def told(kube: FakeKube, name: str) -> list[str]:
    """Reasons of the Events about an object."""
    events = kube.store.all(resources.EVENTS)
    return sorted(one["reason"] for one in events if one["regarding"]["name"] == name)


HERE = {"ingress": [{"ip": "192.0.2.1"}]}


async def test_an_ingress_is_published_and_says_where_it_is_reached(
    kube: FakeKube, tmp_path: Path
) -> None:
    async with running(kube, tmp_path) as controller:
        await true(lambda: hosts(kube) == {"web.example.test"})
        await true(lambda: address(kube, "shop/web") == HERE)
        populate(kube.store, ingress("shop/wiki"))
        await true(lambda: hosts(kube) == {"web.example.test", "wiki.example.test"})
        kube.store.remove(resources.INGRESSES, "web", "shop")
        await true(lambda: hosts(kube) == {"wiki.example.test"})
        assert await controller.ready()
        assert await controller.metric("heim_controller_leader") == 1
        assert await controller.end() == 0
    lease = kube.store.get(resources.LEASES, "main-controller", "heim")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""


async def test_nothing_is_published_before_everything_was_seen(
    kube: FakeKube, tmp_path: Path
) -> None:
    kube.faults.answer(
        503, times=10_000, when=lambda asked: asked.verb == "list" and asked.plural == "backends"
    )
    async with running(kube, tmp_path) as controller:
        await true(lambda: kube.counted()["list", "backends"] > 2)
        assert writes(kube) == []
        assert not controller.leads
        code, text = await controller.get("/readyz")
        assert code == 503
        assert "backends" in text
        kube.faults.heal()
        await true(lambda: hosts(kube) == {"web.example.test"})
        assert await controller.ready()


async def test_a_restart_with_an_unchanged_cluster_writes_nothing(
    kube: FakeKube, tmp_path: Path
) -> None:
    populate(
        kube.store,
        ingress("shop/broken", notes={"nonsense": "1"}),
        ingress("shop/safe", tls=[{"hosts": ["safe.example.test"], "secretName": "safe"}]),
        tls_secret("shop/safe"),
        kube_objects.backend("shop/own", host="own.example.test"),
    )
    async with FakeProxy(kube.store) as proxy:
        flags = ("--secrets=cluster", f"--proxy-status-url={proxy.url}")
        async with running(kube, tmp_path, *flags) as first:
            await true(
                lambda: (
                    condition(kube, resources.PROXIES, "heim/main", "Ready").get("status") == "True"
                )
            )
            await true(lambda: "InvalidAnnotation" in told(kube, "broken"))
            await true(lambda: address(kube, "shop/broken") == HERE)
            await true(lambda: kube.store.get(resources.SECRETS, "shop.safe", "heim"))
            await asyncio.sleep(1)  # whatever it still wants to write
            await first.end()
        kube.asked.clear()
        async with running(kube, tmp_path, *flags, pod="pod-2") as second:
            await comes(lambda: _at_least(second.metric("heim_controller_applied"), 1))
            await asyncio.sleep(0.5)
            assert writes(kube) == []


async def _at_least(value: Awaitable[float], limit: float) -> bool:
    return await value >= limit


async def test_what_concerns_nobody_is_not_even_translated(kube: FakeKube, tmp_path: Path) -> None:
    populate(kube.store, kube_objects.namespace("other"))
    async with running(kube, tmp_path) as controller:
        await true(lambda: told(kube, "web") == ["Synced"])
        await true(lambda: status(kube, resources.PROXIES, "heim/main").get("conditions"))
        before = await controller.metric("heim_controller_translations_total")
        kube.asked.clear()
        populate(
            kube.store,
            kube_objects.endpoint_slice("other/busy", "10.9.9.9"),
            kube_objects.service("other/busy"),
            {"kind": "Secret", "metadata": {"name": "x", "namespace": "heim"}, "data": {"a": ""}},
        )
        # What comes over the same connection later has been looked at later.
        kube.store.put(
            resources.SERVICES, {**kube_objects.service("other/more"), "spec": {"ports": []}}
        )
        await comes(
            lambda: _at_least(controller.metric('heim_controller_objects{resource="services"}'), 4)
        )
        await asyncio.sleep(0.7)
        assert writes(kube) == []
        assert await controller.metric("heim_controller_translations_total") == before


async def test_only_ours_is_written_to_and_what_left_is_given_up(
    kube: FakeKube, tmp_path: Path
) -> None:
    theirs = ingress("shop/theirs", ingressClassName="nginx")
    theirs["status"] = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    populate(kube.store, theirs)
    async with running(kube, tmp_path):
        await true(lambda: address(kube, "shop/web") == HERE)
        moved = ingress("shop/web", ingressClassName="nginx")
        moved["status"] = {"loadBalancer": HERE}
        kube.store.patch(
            resources.INGRESSES, ("shop", "web"), {"spec": moved["spec"]}, "kubectl", ""
        )
        await true(lambda: not (address(kube, "shop/web") or {}))
        assert hosts(kube) == set()
        assert address(kube, "shop/theirs") == HERE
        assert [one for one in writes(kube) if one[2] == "theirs"] == []


async def test_an_event_is_told_once(kube: FakeKube, tmp_path: Path) -> None:
    populate(kube.store, ingress("shop/broken", notes={"nonsense": "1"}))
    async with running(kube, tmp_path):
        await true(lambda: "InvalidAnnotation" in told(kube, "broken"))
        for number in range(3):
            populate(kube.store, ingress(f"shop/more-{number}"))
            await true(lambda: len(hosts(kube)) == number + 3)  # noqa: B023 - asked at once
        await true(lambda: told(kube, "more-2") == ["Synced"])
        assert told(kube, "broken") == ["InvalidAnnotation"]
        assert told(kube, "web") == ["Synced"]


async def test_conditions_follow_generations_and_what_the_proxy_has_applied(
    kube: FakeKube, tmp_path: Path
) -> None:
    upstream = {"service": {"name": "web", "port": 80}}
    populate(
        kube.store,
        kube_objects.backend(
            "shop/own",
            host="own.example.test",
            http=[{"path": "/", "upstream": upstream}],
            permissions=[{"name": "all", "paths": ["/"]}],
        ),
    )
    async with FakeProxy() as proxy, running(kube, tmp_path, f"--proxy-status-url={proxy.url}"):

        def programmed() -> Made:
            return condition(kube, resources.BACKENDS, "shop/own", "Programmed")

        await true(lambda: programmed().get("status") == "Unknown")
        accepted = condition(kube, resources.BACKENDS, "shop/own", "Accepted")
        assert (accepted["status"], accepted["observedGeneration"]) == ("True", 1)
        assert status(kube, resources.BACKENDS, "shop/own")["url"] == "https://own.example.test"
        proxy.store = kube.store
        await true(lambda: programmed().get("status") == "True")
        await true(
            lambda: condition(kube, resources.PROXIES, "heim/main", "Ready").get("status") == "True"
        )
        kube.store.patch(
            resources.BACKENDS, ("shop", "own"), {"spec": {"host": "*.nothing.*"}}, "kubectl", ""
        )
        await true(lambda: programmed().get("status") == "False")
        accepted = condition(kube, resources.BACKENDS, "shop/own", "Accepted")
        assert (accepted["reason"], accepted["observedGeneration"]) == ("InvalidHost", 2)
        assert status(kube, resources.BACKENDS, "shop/own")["url"] == ""
        counts = status(kube, resources.PROXIES, "heim/main")
        assert (counts["ingresses"], counts["backends"]) == (1, 1)


async def test_a_secret_is_mirrored_kept_when_it_turns_bad_and_removed_when_unused(
    kube: FakeKube, tmp_path: Path
) -> None:
    store = kube.store
    first = tls_secret("shop/safe", ca_crt=b"not ours", extra=b"secret")
    section = [{"hosts": ["safe.example.test"], "secretName": "safe"}]
    populate(store, first, ingress("shop/safe", tls=section))

    def mirror() -> Made:
        return store.get(resources.SECRETS, "shop.safe", "heim") or {}

    async with running(kube, tmp_path, "--secrets=namespaces", "--secrets-namespace=shop"):
        await true(lambda: mirror() and document(store))
        assert mirror()["data"] == {key: first["data"][key] for key in ("tls.crt", "tls.key")}
        assert mirror()["metadata"]["labels"] == {"heim.dev/part-of": CONFIG_MAP}
        assert mirror()["metadata"]["ownerReferences"][0]["name"] == "main"
        found = document(store)
        assert found is not None
        assert found["tls"]["certificates"] == [
            {"hosts": ["safe.example.test"], "secret": "shop.safe"}
        ]

        renewed = tls_secret("shop/safe")
        populate(store, renewed)
        await true(lambda: mirror()["data"] == renewed["data"])

        other = make_pair("safe.example.test")
        populate(store, tls_secret("shop/safe", tls_key=other.key))
        await true(lambda: "TLSSecretInvalid" in told(kube, "safe"))
        store.remove(resources.SECRETS, "safe", "shop")
        await true(lambda: len(told(kube, "safe")) > 2)
        assert mirror()["data"] == renewed["data"]

        populate(store, ingress("shop/safe"))
        await true(lambda: not mirror())
        assert hosts(kube) == {"web.example.test", "safe.example.test"}


async def test_secrets_that_are_denied_cost_their_certificate_and_nothing_else(
    kube: FakeKube, tmp_path: Path
) -> None:
    section = [{"hosts": ["safe.example.test"], "secretName": "safe"}]
    populate(kube.store, ingress("shop/safe", tls=section), tls_secret("shop/safe"))
    kube.faults.answer(
        403, times=10_000, when=lambda one: one.plural == "secrets" and one.namespace == "shop"
    )
    async with running(kube, tmp_path, "--secrets-namespace=shop") as controller:
        await true(lambda: hosts(kube) == {"web.example.test", "safe.example.test"})
        await true(lambda: told(kube, "safe") == ["Synced", "TLSSecretInvalid"])
        [event] = [
            one for one in kube.store.all(resources.EVENTS) if one["reason"] == "TLSSecretInvalid"
        ]
        assert "403" in event["note"]
        denied = 'heim_controller_denied{resource="secrets/shop"}'
        assert await controller.metric(denied) == 1
        assert await controller.ready()


async def test_of_two_one_leads_and_when_it_is_killed_the_other_does(
    kube: FakeKube, tmp_path: Path
) -> None:
    short = "--lease-duration=2"
    async with (
        running(kube, tmp_path, short, pod="pod-1") as one,
        running(kube, tmp_path, short, pod="pod-2") as two,
    ):
        await true(lambda: address(kube, "shop/web") == HERE)
        await comes(two.ready)
        leader, other = (one, two) if one.leads else (two, one)
        assert not other.leads
        kube.asked.clear()
        populate(kube.store, ingress("shop/more"))
        await true(lambda: told(kube, "more") == ["Synced"])
        # One wrote, once.
        assert [plural for verb, plural, _ in writes(kube) if plural == "configmaps"] == [
            "configmaps"
        ]

        await leader.end(signal.SIGKILL)
        populate(kube.store, ingress("shop/late"))
        await true(lambda: other.leads)
        await true(lambda: "late.example.test" in hosts(kube))
        await true(lambda: address(kube, "shop/late") == HERE)


async def test_one_that_does_not_see_everything_does_not_stand_in_the_way(
    kube: FakeKube, tmp_path: Path
) -> None:
    kube.faults.answer(503, times=10_000, when=lambda asked: asked.plural == "agents")
    async with running(kube, tmp_path, pod="pod-1") as blind:
        await true(lambda: kube.counted()["list", "agents"] > 2)
        assert not await blind.ready()
        assert kube.store.all(resources.LEASES) == []


async def test_a_leader_that_ends_gives_way_at_once(kube: FakeKube, tmp_path: Path) -> None:
    async with (
        running(kube, tmp_path, pod="pod-1") as one,
        running(kube, tmp_path, pod="pod-2") as two,
    ):
        await true(lambda: one.leads or two.leads)
        leader, other = (one, two) if one.leads else (two, one)
        await comes(other.ready)
        assert await leader.end() == 0
        # Two seconds between two tries, and a lease of 15 that nobody has to wait for.
        await true(lambda: other.leads)


async def test_who_loses_the_lease_ends_and_writes_nothing_more(
    kube: FakeKube, tmp_path: Path
) -> None:
    async with running(kube, tmp_path, "--lease-duration=2") as controller:
        await true(lambda: address(kube, "shop/web") == HERE)
        lease = kube.store.get(resources.LEASES, "main-controller", "heim")
        assert lease is not None
        spec = {**lease["spec"], "holderIdentity": "somebody", "leaseDurationSeconds": 60}
        kube.store.put(resources.LEASES, {**lease, "spec": spec})
        async with asyncio.timeout(WITHIN_S):
            assert await controller.process.wait() == 1
        kube.asked.clear()
        populate(kube.store, ingress("shop/late"))
        assert writes(kube) == []
        assert controller.events("controller.lease_lost")


async def test_a_leader_killed_in_the_middle_of_a_write_is_followed_by_one_that_finishes(
    kube: FakeKube, tmp_path: Path
) -> None:
    async with running(kube, tmp_path, "--lease-duration=2") as first:
        await true(lambda: address(kube, "shop/web") == HERE)
        kube.faults.stall_writes = asyncio.Event()
        kube.asked.clear()
        populate(kube.store, ingress("shop/late"))
        await true(lambda: ("apply", "configmaps", CONFIG_MAP) in writes(kube))
        await first.end(signal.SIGKILL)
    kube.store.remove(resources.INGRESSES, "web", "shop")
    # What it sent arrives although it is gone.
    stalled, kube.faults.stall_writes = kube.faults.stall_writes, None
    stalled.set()
    await true(lambda: hosts(kube) == {"web.example.test", "late.example.test"})
    async with running(kube, tmp_path, pod="pod-2"):
        await true(lambda: hosts(kube) == {"late.example.test"})
        await true(lambda: address(kube, "shop/late") == HERE)


async def test_an_outage_of_the_api_server_is_survived(kube: FakeKube, tmp_path: Path) -> None:
    async with running(kube, tmp_path) as controller:
        await true(lambda: address(kube, "shop/web") == HERE)
        await kube.down()
        kube.store.remove(resources.INGRESSES, "web", "shop")
        populate(kube.store, ingress("shop/late"))
        kube.store.compact()
        await asyncio.sleep(0.5)
        assert await controller.ready()
        await kube.up()
        await true(lambda: hosts(kube) == {"late.example.test"})
        await true(lambda: address(kube, "shop/late") == HERE)
        assert controller.process.returncode is None


async def test_a_document_beyond_one_config_map_is_sharded_and_shrinks_again(
    kube: FakeKube, tmp_path: Path
) -> None:
    names = [f"shop/large-{number}" for number in range(60)]
    for name in names:
        paths = [f"/{place:04}{'x' * 200}" for place in range(100)]
        host = f"{name.rpartition('/')[2]}.example.test"
        populate(kube.store, kube_objects.ingress(name, kube_objects.rule(host, *paths)))

    def second() -> Made | None:
        return kube.store.get(resources.CONFIG_MAPS, f"{CONFIG_MAP}-1", "heim")

    async with running(kube, tmp_path):
        await true(lambda: len(hosts(kube)) == 61)
        assert second()
        for name in names:
            kube.store.remove(resources.INGRESSES, name.rpartition("/")[2], "shop")
        await true(lambda: hosts(kube) == {"web.example.test"})
        await true(lambda: not second())
        first = kube.store.get(resources.CONFIG_MAPS, CONFIG_MAP, "heim")
        assert first is not None
        assert json.loads(first["data"]["index.json"])["shards"] == ["document.json"]


async def test_many_routes_do_not_vanish_at_once_where_the_proxy_forbids_it(
    kube: FakeKube, tmp_path: Path
) -> None:
    populate(kube.store, basics(maxRouteDropPercent=50))
    for number in range(4):
        populate(kube.store, ingress(f"shop/more-{number}"))
    async with running(kube, tmp_path) as controller:
        await true(lambda: len(hosts(kube)) == 5)
        for number in range(4):
            kube.store.remove(resources.INGRESSES, f"more-{number}", "shop")
        await true(lambda: "ConfigurationRefused" in told(kube, "main"))
        assert len(hosts(kube)) == 5
        assert await controller.metric("heim_controller_refused") == 1
        await true(
            lambda: (
                condition(kube, resources.PROXIES, "heim/main", "Ready").get("reason")
                == "NotPublished"
            )
        )
        populate(kube.store, basics(maxRouteDropPercent=100))
        await true(lambda: hosts(kube) == {"web.example.test"})


async def test_a_certificate_is_asked_for_when_the_proxy_names_an_issuer(
    kube: FakeKube, tmp_path: Path
) -> None:
    populate(kube.store, basics(certificateIssuer={"name": "letsencrypt"}))
    async with running(kube, tmp_path):
        await true(lambda: kube.store.get(resources.CERTIFICATES, "main-tls", "heim"))
        made = kube.store.get(resources.CERTIFICATES, "main-tls", "heim")
        assert made is not None
        assert made["spec"]["dnsNames"] == ["auth.example.test"]
        assert made["spec"]["issuerRef"]["kind"] == "ClusterIssuer"
        populate(kube.store, tls_secret("heim/main-tls", make_pair("auth.example.test")))
        await true(lambda: kube.store.get(resources.SECRETS, "heim.main-tls", "heim"))
        await true(
            lambda: (
                (document(kube.store) or {})["tls"]["certificates"] == [{"secret": "heim.main-tls"}]
            )
        )


class Rights:
    """What the chart lets the controller do."""

    def __init__(self, found: list[Made]) -> None:
        account = "heim-controller"
        roles = {
            (one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]): one
            for one in found
            if one["apiVersion"].startswith("rbac.") and "rules" in one
        }
        self._rules: list[tuple[str, Made]] = []
        for one in found:
            if one["kind"] in ("RoleBinding", "ClusterRoleBinding") and "subjects" in one:
                where = one["metadata"].get("namespace", "")
                if one["apiVersion"].startswith("rbac.") and any(
                    subject.get("name") == account for subject in one["subjects"]
                ):
                    role = roles[one["roleRef"]["kind"], where, one["roleRef"]["name"]]
                    self._rules += [(where, rule) for rule in role["rules"]]

    def permit(self, asked: Asked, group: str) -> bool:
        # To apply something that is not there takes both.
        verbs = {"apply": {"create", "patch"}}.get(asked.verb, {asked.verb})
        if asked.plural.endswith("/status"):
            verbs = {"patch"}
        return all(self._has(verb, asked, group) for verb in verbs)

    def _has(self, verb: str, asked: Asked, group: str) -> bool:
        return any(
            where in ("", asked.namespace)
            and group in rule["apiGroups"]
            and asked.plural in rule["resources"]
            and verb in rule["verbs"]
            # `create` names nothing yet, as far as RBAC can see.
            and ("resourceNames" not in rule or asked.name in rule["resourceNames"])
            for where, rule in self._rules
        )


async def test_the_flags_and_rights_of_the_chart_are_what_it_needs(tmp_path: Path) -> None:
    """Everything it does, with the flags that the chart gives it: each request is permitted."""
    chart = objects(values_of("everything"))
    [deployment] = [
        one
        for one in chart
        if one["kind"] == "Deployment" and one["metadata"]["name"] == "heim-controller"
    ]
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[:2] == ["heim-controller", "run"]
    rights = Rights(chart)
    space = RELEASE_NAMESPACE
    async with FakeKube() as kube, FakeProxy() as proxy:
        groups = {one.plural: one.group for one in kube.store.kinds}
        [made] = [one for one in chart if one["kind"] == "Proxy"]
        populate(kube.store, made, *(one for one in chart if one["kind"] == "IngressClass"))
        section = [{"hosts": ["web.x.example.com"], "secretName": "web"}]
        for number in range(60):
            paths = [f"/{place:04}{'x' * 200}" for place in range(100)]
            rule = kube_objects.rule(f"large-{number}.x.example.com", *paths)
            populate(kube.store, kube_objects.ingress(f"large/large-{number}", rule))
        populate(
            kube.store,
            kube_objects.web("grafana"),
            ingress("grafana/web", "web.x.example.com", tls=section),
            tls_secret("grafana/web", make_pair("web.x.example.com")),
            kube_objects.backend("wiki/own"),
            kube_objects.role("wiki/readers"),
            kube_objects.binding("wiki/readers", "readers", {"user": "a@example.com"}),
            kube_objects.agent("wiki/nas", "web"),
        )
        flags = (
            f"--proxy-status-url={proxy.url}", "--health-address=127.0.0.1:0",
            "--lease-duration=15",
        )  # fmt: skip
        async with running(kube, tmp_path, *args[2:], *flags):
            store = kube.store
            await true(lambda: store.get(resources.CONFIG_MAPS, f"{CONFIG_MAP}-1", space))
            await true(lambda: store.get(resources.SECRETS, "grafana.web", space))
            await true(lambda: store.get(resources.CERTIFICATES, "heim-tls", space))
            await true(lambda: told(kube, "own") and told(kube, "web"))
            await true(lambda: status(kube, resources.AGENTS, "wiki/nas"))
            await true(lambda: status(kube, resources.ROLE_BINDINGS, "wiki/readers"))
            for number in range(60):
                store.remove(resources.INGRESSES, f"large-{number}", "large")
            store.remove(resources.INGRESSES, "web", "grafana")
            await true(lambda: not store.get(resources.CONFIG_MAPS, f"{CONFIG_MAP}-1", space))
            await true(lambda: not store.get(resources.SECRETS, "grafana.web", space))
        refused = {
            (asked.verb, asked.plural, asked.namespace, asked.name)
            for asked in kube.asked
            if not rights.permit(asked, groups[asked.plural.partition("/")[0]])
        }
        assert refused == set()
        verbs = {(asked.verb, asked.plural) for asked in kube.asked}
        assert {("delete", "configmaps"), ("delete", "secrets"), ("apply", "certificates")} <= verbs
