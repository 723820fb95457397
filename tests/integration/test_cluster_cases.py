"""What the conformance suite does not ask: conflicts, what is missing, what must not be opened."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from heim_controller.kube import resources
from tests.fakes import kube_objects
from tests.fakes.heim import user
from tests.fakes.kube_objects import at, ingress, path, rule
from tests.integration.cluster import Cluster, cluster, comes, secret, tls_secret
from tests.integration.cluster_churn import Churn

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

Made = dict[str, Any]

HOST = "web.example.test"
PUBLIC = {"auth": "none"}
HERE = {"ingress": [{"ip": "192.0.2.1"}]}
SPACES = ("shop", "bank")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    spec = {"ingress": {"allowPublic": {}}, "certificates": ["default"]}
    async with cluster(tmp_path_factory.mktemp("cluster"), proxy=spec) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def kube(shared: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, with `shop/one`, `shop/two` and `bank/one` to lead to, and no Ingress."""
    shared.kube.store.objects[resources.EVENTS].clear()
    for name in ("shop/one", "shop/two", "bank/one"):
        await shared.echo(name)
    yield shared
    await shared.clear(*SPACES)
    await shared.stop_pods(*SPACES)


def public(name: str, *rules: Made, **keys: Any) -> Made:
    return ingress(name, *rules, notes=PUBLIC, **keys)


def to(service: str, prefix: str = "/", kind: str = "Prefix") -> Made:
    return path(prefix, service, kind=kind, port=8080)


async def told(kube: Cluster, name: str, reason: str) -> None:
    await kube.heim.until(lambda: reason in kube.told(name))


# -- who may come -------------------------------------------------------------------------------


async def test_who_is_not_signed_in_gets_nothing_and_members_get_everything(kube: Cluster) -> None:
    await kube.apply(ingress("shop/web", rule(HOST, to("one"))))
    assert (await kube.get("/", HOST)).status == 401
    # A session is worth something on https only.
    assert (await kube.get("/", HOST, plain=True)).status == 308
    staff = await kube.heim.signed_in(user("alice", groups=("staff",)), HOST)
    other = await kube.heim.signed_in(user("mallory"), HOST)
    assert await kube.leads_to(HOST, plain=False, cookie=staff) == "shop/one"
    assert (await kube.get("/", HOST, cookie=other)).status == 403


async def test_an_ingress_that_names_a_role_is_for_its_members_alone(kube: Cluster) -> None:
    await kube.apply(
        kube_objects.role("shop/sellers"),
        kube_objects.binding("shop/sellers", "sellers", {"user": "bob@example.com"}),
        ingress("shop/web", rule(HOST, to("one")), notes={"roles": "sellers"}),
    )
    staff = await kube.heim.signed_in(user("alice", groups=("staff",)), HOST)
    bob = await kube.heim.signed_in(user("bob"), HOST)
    assert (await kube.get("/", HOST, cookie=staff)).status == 403
    assert await kube.leads_to(HOST, plain=False, cookie=bob) == "shop/one"


async def test_an_annotation_that_is_not_understood_closes_the_ingress_and_no_other(
    kube: Cluster,
) -> None:
    await kube.apply(
        ingress("shop/wrong", rule(HOST, to("one")), notes={"auth": "none", "alow-ips": "10/8"}),
        public("shop/right", rule("right.example.test", to("two"))),
    )
    assert (await kube.get("/", HOST)).status == 503
    assert await kube.leads_to("right.example.test") == "shop/two"
    await told(kube, "wrong", "InvalidAnnotation")


# -- hosts and paths that several have ----------------------------------------------------------


async def test_two_ingresses_share_a_host_and_each_keeps_its_policy(kube: Cluster) -> None:
    await kube.apply(
        public("shop/open", rule(HOST, to("one"))),
        ingress("shop/closed", rule(HOST, to("two", "/admin")), created=at(5)),
    )
    assert await kube.leads_to(HOST, "/x") == "shop/one"
    assert (await kube.get("/admin/x", HOST)).status == 401
    staff = await kube.heim.signed_in(user("alice", groups=("staff",)), HOST)
    assert await kube.leads_to(HOST, "/admin/x", plain=False, cookie=staff) == "shop/two"


@pytest.mark.parametrize(
    ("first", "second"),
    [(("shop/b", at(0)), ("shop/a", at(1))), (("shop/a", at(0)), ("shop/b", at(0)))],
    ids=["the-older-wins", "at-one-age-the-name-decides"],
)
async def test_of_two_equal_paths_one_wins_and_the_other_is_told(
    kube: Cluster, first: tuple[str, str], second: tuple[str, str]
) -> None:
    winner = public(first[0], rule(HOST, to("one")), created=first[1])
    loser = public(second[0], rule(HOST, to("two")), created=second[1])
    await kube.apply(loser)
    assert await kube.leads_to(HOST) == "shop/two"
    await kube.apply(winner)
    assert await kube.leads_to(HOST) == "shop/one"
    await told(kube, second[0].rpartition("/")[2], "HostPathConflict")
    await kube.remove(resources.INGRESSES, first[0])
    assert await kube.leads_to(HOST) == "shop/two"


async def test_a_host_belongs_to_the_namespace_that_named_it_first(kube: Cluster) -> None:
    await kube.apply(public("shop/web", rule(HOST, to("one"))))
    await kube.apply(public("bank/graft", rule(HOST, to("one", "/login")), created=at(9)))
    assert await kube.leads_to(HOST, "/login") == "shop/one"
    await told(kube, "graft", "HostNotOwned")


@pytest.mark.parametrize("target", ["/open/%2e%2e/admin", "/open/..%2fadmin", "/open/../admin"])
async def test_no_spelling_of_a_path_leads_past_who_may_see_it(kube: Cluster, target: str) -> None:
    pods = [one for one in kube.running if one.service.startswith("shop/")]
    await kube.apply(
        public("shop/open", rule(HOST, to("one", "/open"))),
        ingress("shop/closed", rule(HOST, to("two", "/admin"))),
    )
    found = await kube.get(target, HOST)
    assert found.status in (400, 401)
    assert not any(one.asked for one in pods)


# -- what is not there --------------------------------------------------------------------------


async def test_an_ingress_without_http_leads_to_its_default_backend_or_nowhere(
    kube: Cluster,
) -> None:
    fallback = {"service": {"name": "one", "port": {"number": 8080}}}
    await kube.apply(
        public("shop/with", rule(HOST), defaultBackend=fallback),
        public("shop/without", rule("nowhere.example.test")),
    )
    assert await kube.leads_to(HOST, "/any/thing") == "shop/one"
    assert (await kube.get("/", "nowhere.example.test")).status == 503
    await told(kube, "without", "NoBackend")


async def test_what_a_host_has_no_path_for_goes_to_its_default_backend(kube: Cluster) -> None:
    fallback = {"service": {"name": "two", "port": {"number": 8080}}}
    await kube.apply(public("shop/web", rule(HOST, to("one", "/a")), defaultBackend=fallback))
    assert await kube.leads_to(HOST, "/a/b") == "shop/one"
    assert await kube.leads_to(HOST, "/ab") == "shop/two"


async def test_a_missing_service_or_port_answers_503_and_hides_nothing_broader(
    kube: Cluster,
) -> None:
    await kube.apply(
        public(
            "shop/web",
            rule(
                HOST,
                to("one"),
                to("missing", "/missing"),
                path("/port", "one", port=81),
            ),
        )
    )
    assert await kube.leads_to(HOST, "/x") == "shop/one"
    for target in ("/missing/x", "/port"):
        found = await kube.get(target, HOST)
        assert (found.status, json.loads(found.body)["code"]) == (503, "backend_unavailable")
        # Names of Services are nobody's business.
        assert b"missing" not in found.body
    await told(kube, "web", "ServiceNotFound")
    await told(kube, "web", "PortNotFound")
    await kube.apply((await kube.pods("shop/missing")).objects())
    assert await kube.leads_to(HOST, "/missing/x") == "shop/missing"


async def test_endpoints_that_go_and_come_are_followed(kube: Cluster) -> None:
    pods = await kube.pods("shop/web", 201, 202)

    def slices(conditions: Made, *addresses: str) -> Made:
        return kube_objects.endpoint_slice(
            "shop/web", *addresses, port=pods.port, conditions=conditions
        )

    own = pods.objects()[0]
    leaving = {"ready": False, "serving": True, "terminating": True}
    served = public("shop/web", rule(HOST, to("web")))
    await kube.apply(own, slices({"ready": True}, *pods.addresses), served)
    assert await kube.leads_to(HOST) == "shop/web"
    await kube.apply(slices({"ready": True}))
    assert await kube.leads_to(HOST) == "503"
    await told(kube, "web", "NoEndpoints")
    await kube.apply(slices({"ready": False}, pods.addresses[0]))
    assert await kube.leads_to(HOST) == "503"
    # Those that end serve until others are ready.
    await kube.apply(slices(leaving, pods.addresses[0]))
    assert await kube.leads_to(HOST) == "shop/web"
    ready = kube_objects.endpoint_slice(
        "shop/web", pods.addresses[1], port=pods.port, suffix="second"
    )
    await kube.apply(ready)
    pods.asked.clear()
    for _ in range(4):
        assert await kube.leads_to(HOST) == "shop/web"
    assert {pod for pod, _ in pods.asked} == {pods.addresses[1]}


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("Refused", "localhost"),
        ("Allowed", "localhost"),
        ("Allowed", "127.0.0.1"),
        ("Allowed", "metadata.google.internal"),
    ],
)
async def test_an_external_name_never_leads_to_the_proxys_own_machine(
    kube: Cluster, mode: str, name: str
) -> None:
    admin = await kube.pods("shop/admin")
    made = kube_objects.service(
        "shop/out", {"port": admin.port}, type="ExternalName", externalName=name
    )
    with kube.proxy_with(ingress={"allowPublic": {}, "externalName": mode}):
        await kube.apply(made, public("shop/web", rule(HOST, path("/", "out", port=admin.port))))
        assert await kube.leads_to(HOST) == "503"
        await told(kube, "web", "ExternalNameNotAllowed")
        assert admin.asked == []


async def test_an_endpoint_on_loopback_is_not_dialled(kube: Cluster) -> None:
    admin = await kube.pods("shop/admin")
    [own, made] = admin.objects()
    made["endpoints"] = [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}]
    await kube.apply(own, made, public("shop/web", rule(HOST, to("admin"))))
    assert await kube.leads_to(HOST) == "503"
    await told(kube, "web", "EndpointNotAllowed")


async def test_what_answers_for_any_host_needs_the_proxys_permission(kube: Cluster) -> None:
    fallback = {"service": {"name": "one", "port": {"number": 8080}}}
    await kube.apply(
        public("shop/everything", defaultBackend=fallback),
        public("shop/anyhost", rule(None, to("two"))),
    )
    assert await kube.leads_to("whoever.example.test") == "404"
    await told(kube, "everything", "CatchAllNotAllowed")
    await told(kube, "anyhost", "CatchAllNotAllowed")


async def test_no_object_gets_the_login_host(kube: Cluster) -> None:
    login = "auth.example.test"
    await kube.apply(public("shop/login", rule(login, to("one"), to("one", "/.heim/login"))))
    assert (await kube.get("/x", login)).status == 404
    await kube.get("/.heim/login", login)
    assert not [one for pods in kube.running for one in pods.asked if "shop" in pods.service]
    await told(kube, "login", "LoginHostClaimed")


# -- classes ------------------------------------------------------------------------------------


async def test_a_class_that_is_removed_takes_its_ingresses_and_gives_them_back(
    kube: Cluster,
) -> None:
    def address() -> object:
        return kube.status(resources.INGRESSES, "shop/web").get("loadBalancer")

    another = kube_objects.ingress_class("another")
    made = public("shop/web", rule(HOST, to("one")), ingressClassName="another")
    await kube.apply(another, made)
    assert await kube.leads_to(HOST) == "shop/one"
    await kube.heim.until(lambda: address() == HERE)
    kube.kube.store.remove(resources.INGRESS_CLASSES, "another")
    await comes(lambda: leads(kube, "404"))
    await kube.heim.until(lambda: not address())
    await kube.apply(another)
    await comes(lambda: leads(kube, "shop/one"))


async def leads(kube: Cluster, where: str, host: str = HOST) -> bool:
    return await kube.leads_to(host) == where


# -- certificates -------------------------------------------------------------------------------


async def test_a_secret_is_followed_and_what_is_bad_changes_nothing(kube: Cluster) -> None:
    section = [{"hosts": [HOST], "secretName": "tls"}]
    default = await kube.certificate(HOST)
    await kube.apply(public("shop/web", rule(HOST, to("one")), tls=section))
    # Missing: the default one is shown, and the route serves.
    assert await kube.certificate(HOST) == default
    assert await kube.leads_to(HOST, plain=False) == "shop/one"
    await told(kube, "web", "TLSSecretMissing")

    first = tls_secret("shop/tls", HOST)
    await kube.apply(first)
    await comes(lambda: shows_another(kube, default))
    before = await kube.certificate(HOST)

    for broken in (
        {"tls.crt": b"garbage", "tls.key": b"garbage"},
        # A certificate with somebody else's key.
        {**kube_data(first), "tls.key": kube_data(tls_secret("shop/x", HOST))["tls.key"]},
    ):
        kube.kube.store.objects[resources.EVENTS].clear()
        await kube.apply(secret("shop/tls", broken))
        assert await kube.certificate(HOST) == before
        await told(kube, "web", "TLSSecretInvalid")

    await kube.remove(resources.SECRETS, "shop/tls")
    assert await kube.certificate(HOST) == before
    # A good one for other names is no bad one: it is just not for this host.
    await kube.apply(tls_secret("shop/tls", "somebody.else.test"))
    await comes(lambda: shows_another(kube, before))
    assert await kube.certificate(HOST) == default
    await kube.apply(tls_secret("shop/tls", HOST))
    await comes(lambda: shows_another(kube, default))
    assert await kube.certificate(HOST) != before


async def shows_another(kube: Cluster, before: bytes) -> bool:
    return await kube.certificate(HOST) != before


def kube_data(made: Made) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in made["data"].items()}


async def test_a_secret_with_somebody_elses_name_is_not_shown_there(kube: Cluster) -> None:
    theirs = "bank.example.test"
    await kube.apply(
        public("bank/web", rule(theirs, to("one"))),
        public(
            "shop/web",
            rule(HOST, to("one")),
            tls=[{"hosts": [HOST], "secretName": "tls"}],
            created=at(5),
        ),
    )
    default = await kube.certificate(theirs)
    await kube.apply(tls_secret("shop/tls", HOST, theirs))
    await comes(lambda: shows_another(kube, default))
    assert await kube.certificate(theirs) == default


# -- the answer to kubectl ----------------------------------------------------------------------


async def test_a_backend_says_when_the_proxy_has_it_in_force(kube: Cluster) -> None:
    def conditions() -> dict[str, str]:
        found = kube.status(resources.BACKENDS, "shop/own").get("conditions", ())
        return {one["type"]: one["status"] for one in found}

    await kube.apply(
        kube_objects.backend(
            "shop/own",
            host=HOST,
            http=[{"path": "/", "upstream": {"service": {"name": "one", "port": 8080}}}],
            permissions=[{"name": "all", "paths": ["/"]}],
        )
    )
    await kube.heim.until(
        lambda: conditions() == dict.fromkeys(("Accepted", "ResolvedRefs", "Programmed"), "True"),
        12,
    )
    assert (await kube.get("/", HOST)).status == 401


# -- challenges ---------------------------------------------------------------------------------

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
CHALLENGE = f"/.well-known/acme-challenge/{TOKEN}"


async def solver(kube: Cluster, namespace: str, *, edit: bool = False) -> Made:
    """What cert-manager makes for a challenge of HOST; `edit`: the path alone."""
    pods = await kube.pods(f"{namespace}/cm-acme-http-solver-x")
    port = {"name": "http", "port": 8089, "targetPort": 8089, "protocol": "TCP"}
    labels = {"acme.cert-manager.io/http01-solver": "true"}
    challenge = path(CHALLENGE, "cm-acme-http-solver-x", kind="Exact", port=8089)
    made = ingress(f"{namespace}/cm-acme-http-solver-y", rule(HOST, challenge))
    await kube.apply(pods.objects(port, labels=labels), *([] if edit else [made]))
    return challenge


@pytest.mark.parametrize("how", ["an-ingress-of-its-own", "edit-in-place", "host-unknown"])
async def test_a_challenge_is_answered_on_plain_http_without_a_login(
    kube: Cluster, how: str
) -> None:
    challenge = await solver(kube, "shop", edit=how == "edit-in-place")
    if how != "host-unknown":
        paths = [to("one"), *([challenge] if how == "edit-in-place" else [])]
        section = [{"hosts": [HOST], "secretName": "to-be"}]
        await kube.apply(ingress("shop/web", rule(HOST, *paths), tls=section))
    plain = await kube.get(
        CHALLENGE, HOST, plain=True, cookie="a=b", headers=(("X-Auth-Id", "root"),)
    )
    assert plain.status == 200
    saw = json.loads(plain.body)
    assert (saw["service"], saw["path"], saw["host"]) == ("cm-acme-http-solver-x", CHALLENGE, HOST)
    assert not {"Cookie", "X-Auth-Id", "X-Forwarded-For"} & saw["headers"].keys()
    assert (await kube.get(CHALLENGE, HOST, plain=True, method="HEAD")).status == 200
    for target, method in (
        (CHALLENGE, "POST"),
        (f"{CHALLENGE}/x", "GET"),
        (f"{CHALLENGE}x", "GET"),
        ("/.well-known/acme-challenge/", "GET"),
        (CHALLENGE.replace("-challenge", "%2Dchallenge"), "GET"),
    ):
        other = await kube.get(target, HOST, plain=True, method=method)
        assert other.status in (308, 404), (target, method)
    # Nothing of it is there on https.
    assert (await kube.get(CHALLENGE, HOST)).status in (401, 404)


async def test_another_namespace_answers_no_challenge_of_a_host(kube: Cluster) -> None:
    await kube.apply(ingress("shop/web", rule(HOST, to("one"))))
    await solver(kube, "bank")
    assert (await kube.get(CHALLENGE, HOST, plain=True)).status == 308
    await told(kube, "cm-acme-http-solver-y", "ACMEHostNotOwned")


async def test_a_service_without_the_label_answers_no_challenge(kube: Cluster) -> None:
    challenge = path(CHALLENGE, "one", kind="Exact", port=8080)
    await kube.apply(
        ingress(
            "shop/web",
            rule(HOST, challenge),
            labels={"acme.cert-manager.io/http01-solver": "true"},
        )
    )
    assert (await kube.get(CHALLENGE, HOST, plain=True)).status == 308
    assert (await kube.get(CHALLENGE, HOST)).status == 401


# -- churn --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count", [100, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
async def test_ingresses_that_come_and_go_give_no_wrong_answer(kube: Cluster, count: int) -> None:
    await kube.apply(public("shop/kept", rule(HOST, to("one"))))
    async with Churn(kube, HOST, "shop/one") as churn:
        for number in range(count):
            name = f"churn-{number}"
            made = public(f"shop/{name}", rule(f"{name}.example.test", to("two")))
            kube.kube.store.put(resources.INGRESSES, made)
            if number >= 20:
                kube.kube.store.remove(resources.INGRESSES, f"churn-{number - 20}", "shop")
            await asyncio.sleep(0.02)
        await kube.settled()
        # Every one that is there, and none that is gone.
        for number in (count - 1, count - 20):
            assert await kube.leads_to(f"churn-{number}.example.test") == "shop/two"
        assert await kube.leads_to(f"churn-{count - 21}.example.test") == "404"
    assert churn.asked > count / 2
    assert churn.wrong == []
