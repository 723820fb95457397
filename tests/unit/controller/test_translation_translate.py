"""Translations as a whole: what must hold for every cluster, whatever is in it."""

from __future__ import annotations

import copy
import gc
import random
from dataclasses import fields, replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_controller.translation.document import canonical
from heim_controller.translation.objects import Key, Objects
from heim_controller.translation.paths import identity
from heim_controller.translation.translate import Translation, translate
from tests.fakes.kube_objects import (
    SETTINGS,
    agent,
    at,
    backend,
    binding,
    certificate,
    challenge,
    cluster,
    endpoint_slice,
    ingress,
    loaded,
    namespace,
    path,
    proxy,
    reasons,
    role,
    routes,
    rule,
    service,
    solver,
    translated,
    web,
)
from tests.fakes.thorough import examples

SPACES: Final = ("shop", "bank", "heim")
HOSTS: Final = ("a.test", "b.test", "x.a.test", "*.test", "*.a.test", None, "auth.example.test",
                "A.Test.", "10.0.0.1", "not a host")  # fmt: skip
PATHS: Final = ("/", "/foo", "/foo/", "/foo/bar", "/a!", "/a%21", "/b(c", "/x/../y", "",
                "/.heim/x", "/ü", "/" + "z" * 3000)  # fmt: skip
TOKEN: Final = "t" * 20
NOTES: Final[tuple[dict[str, str] | None, ...]] = (
    {"roles": "viewers"}, {"roles": "viewers,shop/viewers,gone"}, None, {"auth": "none"},
    {"auth": "perhaps"}, {"tcp": "true", "roles": "viewers"}, {"typo": "x"},
    {"roles": "viewers", "backend-protocol": "HTTPS", "read-timeout": "1m"},
    {"roles": "viewers", "backend-protocol": "HTTPS", "backend-insecure": "true"},
    {"roles": "viewers", "nginx.ingress.kubernetes.io/rewrite-target": "/$2"},
    {"roles": "viewers", "session-max-age": "1h", "idle-timeout": "1h",
     "identity-headers": "none"},
)  # fmt: skip


@st.composite
def ingresses(draw: st.DrawFn) -> dict[str, Any]:
    paths = st.builds(
        path, st.sampled_from(PATHS), st.sampled_from(("web", "web", "gone", "empty", "out")),
        kind=st.sampled_from(("Prefix", "Prefix", "Exact", "ImplementationSpecific")),
        port=st.sampled_from((80, 80, 81, "http")),
    )  # fmt: skip
    solved = st.just(challenge(TOKEN))
    rules = st.builds(
        lambda host, some: rule(host, *some),
        st.sampled_from(HOSTS),
        st.lists(st.one_of(paths, paths, solved), max_size=3),
    )
    spec: dict[str, Any] = {}
    if draw(st.booleans()):
        spec["defaultBackend"] = {"service": {"name": "web", "port": {"number": 80}}}
    if draw(st.booleans()):
        hosts = draw(st.lists(st.sampled_from([one for one in HOSTS if one]), max_size=2))
        spec["tls"] = [{"hosts": hosts, "secretName": "tls"}]
    name = f"{draw(st.sampled_from(SPACES))}/i{draw(st.integers(0, 3))}"
    created = at(draw(st.integers(0, 5)))
    chosen = draw(st.lists(rules, max_size=3))
    return ingress(name, *chosen, notes=draw(st.sampled_from(NOTES)), created=created, **spec)


@st.composite
def backends(draw: st.DrawFn) -> dict[str, Any]:
    upstream = st.sampled_from([
        {"service": {"name": "web", "port": 80}}, {"service": {"name": "gone", "port": 80}},
        {"agent": {"name": "desk", "target": "ssh"}}, {"url": "http://10.9.9.9"}, {},
        {"url": "http://127.0.0.1"},
    ])  # fmt: skip
    spec: dict[str, Any] = {"host": draw(st.sampled_from(HOSTS))}
    if draw(st.booleans()):
        some = draw(st.lists(st.tuples(st.sampled_from(PATHS), upstream), max_size=2))
        spec["http"] = [{"path": one, "upstream": there} for one, there in some]
    if draw(st.booleans()):
        spec["tcp"] = {"upstream": draw(upstream)}
    if draw(st.booleans()):
        spec["permissions"] = [{"name": "read", "methods": ["GET"], "paths": ["/", "=/x"]}]
    if draw(st.booleans()):
        spec |= {"timeouts": {"firstByte": "2s", "idle": "1h"}, "identityHeaders": ["forwarded"]}
    name = f"{draw(st.sampled_from(SPACES))}/b{draw(st.integers(0, 2))}"
    return backend(name, created=at(draw(st.integers(0, 5))), **spec)


COMMON: Final = [
    one
    for space in SPACES
    for one in (
        *web(space), *solver(space), service(f"{space}/empty"),
        service(f"{space}/out", type="ExternalName", externalName="api.example.com"),
        role(f"{space}/viewers", {"backend": "b0", "permission": "read"}, {"backend": "b1"}),
        binding(f"{space}/viewers", "viewers", {"user": "a@example.test"}, {"user": "nobody"}),
        agent(f"{space}/desk", "ssh", "web"), certificate(f"{space}/tls", "a.test", "*.test"),
        endpoint_slice(f"{space}/web", "127.0.0.1", suffix="bad"),
    )
]  # fmt: skip
PROXIES: Final = (
    proxy(),
    proxy(ingress={"allowPublic": {}, "allowCatchAll": True}, defaultRoles=["viewers"]),
    proxy(ingress={"hostOwnership": "InterNamespaceAllowed", "externalName": "Allowed"}),
    proxy(
        defaultAuth="None", ingress={"allowPublic": {}, "hostSuffixes": [{"suffixes": ["test"]}]}
    ),
)
ASKED: Final = st.lists(st.one_of(ingresses(), ingresses(), backends()), max_size=8)
CLUSTERS: Final = st.builds(
    lambda asked, chosen: cluster(COMMON, asked, chosen), ASKED, st.sampled_from(PROXIES)
)
STRICT: Final = st.builds(lambda asked: cluster(COMMON, asked, PROXIES[1]), ASKED)


def shuffled(objects: Objects, seed: int) -> Objects:
    """The same objects, in another order of every mapping."""
    chance = random.Random(seed)
    found: dict[str, dict[Key, Any]] = {}
    for field in fields(objects):
        items = list(getattr(objects, field.name).items())
        chance.shuffle(items)
        found[field.name] = dict(items)
    return Objects(**found)


def with_one(objects: Objects, made: dict[str, Any]) -> Objects:
    """The objects with one Ingress more, or instead of the one of its name."""
    key = (made["metadata"]["namespace"], made["metadata"]["name"])
    namespaces = {**objects.namespaces, ("", key[0]): namespace(key[0])}
    return replace(objects, ingresses={**objects.ingresses, key: made}, namespaces=namespaces)


def spaces_of(found: Translation) -> dict[str, set[str]]:
    """The namespaces that answer on each host."""
    spaces: dict[str, set[str]] = {}
    for made in found.document["backends"]:
        parts = made["name"].split(".")
        space = parts[1] if parts[0].startswith("ingress") else parts[0]
        for host in made["hosts"]:
            spaces.setdefault(host, set()).add(space)
    return spaces


@settings(max_examples=examples(40), deadline=None)
@given(CLUSTERS, st.integers(0, 99))
def test_the_order_of_objects_does_not_matter(objects: Objects, seed: int) -> None:
    assert translate(shuffled(objects, seed), SETTINGS) == translate(objects, SETTINGS)


@settings(max_examples=examples(40), deadline=None)
@given(CLUSTERS)
def test_translating_again_changes_nothing(objects: Objects) -> None:
    before = copy.deepcopy(objects)
    first = translate(objects, SETTINGS)
    again = translate(objects, SETTINGS, owners=first.owners)
    assert again == first
    assert canonical(again.document) == canonical(first.document)
    assert objects == before


@settings(max_examples=examples(40), deadline=None)
@given(CLUSTERS)
def test_what_comes_out_is_a_configuration(objects: Objects) -> None:
    found = translate(objects, SETTINGS)
    assert loaded(found).backends is not None
    # No two routes of a host could be taken for each other.
    seen = set()
    for made in found.document["backends"]:
        for route in made.get("http", ()):
            for host in [route["host"]] if "host" in route else made["hosts"]:
                key = (host, identity(route["path"], exact=route.get("match") == "exact"))
                assert key not in seen
                seen.add(key)
    streams = [host for made in found.document["backends"] if "tcp" in made
               for host in made["hosts"]]  # fmt: skip
    assert len(streams) == len(set(streams)) or not streams
    names = [made["name"] for made in found.document["backends"]]
    assert names == sorted(set(names))


@settings(max_examples=examples(40), deadline=None)
@given(STRICT)
def test_under_strict_ownership_a_host_is_one_namespaces(objects: Objects) -> None:
    found = translate(objects, SETTINGS)
    for host, spaces in spaces_of(found).items():
        assert spaces == {found.owners[host]}
    assert "auth.example.test" not in spaces_of(found)


@settings(max_examples=examples(40), deadline=None)
@given(STRICT, ingresses(), st.sampled_from(SPACES))
def test_no_later_object_takes_a_host_whatever_its_age(
    objects: Objects, made: dict[str, Any], space: str
) -> None:
    before = translate(objects, SETTINGS)
    made["metadata"] |= {"namespace": space, "name": "late", "creationTimestamp": at(0)}
    after = translate(with_one(objects, made), SETTINGS, owners=before.owners)
    theirs = {
        host: spaces for host, spaces in spaces_of(after).items() if host in spaces_of(before)
    }
    assert theirs == spaces_of(before)


@settings(max_examples=examples(40), deadline=None)
@given(CLUSTERS)
def test_an_unrelated_ingress_loses_no_route(objects: Objects) -> None:
    before = translate(objects, SETTINGS)
    made = ingress("far/away", rule("far.away.example", "/"), created=at(0))
    after = translate(with_one(objects, made), SETTINGS)
    kept = [one for one in after.document["backends"] if one["name"] != "ingress.far.away"]
    assert kept == before.document["backends"]
    assert after.document["roles"] == before.document["roles"] or "viewers" in str(
        after.document["roles"]
    )
    assert [one for one in after.diagnostics if one.namespace != "far"] == list(before.diagnostics)


@settings(max_examples=examples(40), deadline=None)
@given(CLUSTERS, ingresses(), st.booleans())
def test_deletion_returns_to_what_was(
    objects: Objects, made: dict[str, Any], remembering: bool
) -> None:
    made["metadata"]["name"] = "passing"
    before = translate(objects, SETTINGS)
    owners = before.owners if remembering else None
    between = translate(with_one(objects, made), SETTINGS, owners=owners)
    after = translate(objects, SETTINGS, owners=between.owners if remembering else None)
    assert after == before


@settings(max_examples=examples(40), deadline=None)
@given(CLUSTERS, st.data())
def test_an_ingress_that_breaks_costs_nobody_else(objects: Objects, data: st.DataObject) -> None:
    if not objects.ingresses:
        return
    key = data.draw(st.sampled_from(sorted(objects.ingresses)))
    mine = f"ingress.{key[0]}.{key[1]}"
    plain = copy.deepcopy(objects.ingresses[key])
    plain["metadata"].pop("annotations", None)
    broken = copy.deepcopy(plain)
    broken["metadata"]["annotations"] = {"heim.dev/typo": "x"}

    def others(made: dict[str, Any]) -> list[Any]:
        found = translate(with_one(objects, made), SETTINGS)
        return [one for one in found.document["backends"] if one["name"] != mine]

    if "defaultAuth" not in str(objects.proxies):
        assert others(broken) == others(plain)


GARBAGE: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.text(max_size=4)
    | st.sampled_from(["web", "a.test", "/", "Prefix"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["rules", "host", "http", "paths", "path", "pathType", "backend", "service", "port",
             "name", "number", "tls", "hosts", "secretName", "defaultBackend", "upstream",
             "permissions", "subjects", "roleRef", "targets", "ingress", "allowPublic", "tcp",
             "certificates", "hostSuffixes", "suffixes", "ports", "type", "externalName"]
        ),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=examples(80), deadline=None)
@given(GARBAGE, st.sampled_from(["Ingress", "Backend", "Role", "RoleBinding", "Agent", "Proxy",
                                 "Service", "EndpointSlice", "IngressClass"]))  # fmt: skip
def test_garbage_of_any_kind_stops_nothing(spec: object, kind: str) -> None:
    good = ingress("shop/good", rule("good.test", "/"), notes={"roles": "viewers"})
    name = "main" if kind == "Proxy" else "garbage"
    space = "heim" if kind == "Proxy" else "shop"
    bad: dict[str, Any] = {"kind": kind, "metadata": {"name": name, "namespace": space},
                           "spec": spec}  # fmt: skip
    if kind == "IngressClass":
        bad["metadata"] = {"name": name}
    if kind == "EndpointSlice":
        bad |= {
            "endpoints": spec,
            "ports": spec,
            "metadata": {**bad["metadata"], "labels": {"kubernetes.io/service-name": "bad"}},
        }
    if kind == "Ingress" and isinstance(spec, dict):
        spec["ingressClassName"] = "heim"
    leads = ingress("shop/leads", rule("bad.test", path("/", "bad"), path("/x", "garbage")))
    found = translated(*COMMON, good, bad, leads, service("shop/bad"), proxy("heim/main"))
    if kind == "Proxy":
        found = translated(*COMMON, good, bad)
    if kind == "IngressClass":
        assert ("", "heim") not in cluster(bad).ingress_classes
        return
    assert routes(found).get("good.test /") == ["http://10.1.0.1:8080"] or kind == "Proxy"
    loaded(found)


def test_every_object_of_ours_is_told_what_became_of_it() -> None:
    found = translated(
        COMMON, ingress("shop/good", rule("good.test", "/"), notes={"roles": "viewers"}),
        ingress("bank/bad", rule("good.test", "/"), created=at(9), notes={"roles": "viewers"}),
    )  # fmt: skip
    told = {str(one.ref): (one.accepted, one.resolved, one.hosts, one.generation)
            for one in found.served}  # fmt: skip
    assert told["Ingress shop/good"] == (True, False, ("good.test",), 1)
    assert told["Ingress bank/bad"] == (False, False, (), 1)
    assert told["Proxy heim/main"] == (True, True, (), 1)
    assert told["Agent shop/desk"] == (True, True, (), 1)
    assert told["RoleBinding shop/viewers"][0] is True
    assert list(told) == [str(one) for one in sorted(one.ref for one in found.served)]


def test_an_empty_cluster_is_an_empty_document() -> None:
    found = translate(Objects(), SETTINGS)
    assert found.document == {
        "acme_challenges": [], "agents": [], "backends": [], "roles": [],
        "tls": {"certificates": [], "self_signed": True},
    }  # fmt: skip
    assert reasons(found) == ["ProxyNotFound"]
    loaded(found)


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_as_it_was(collecting: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        translate(Objects(), SETTINGS)
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if was else gc.disable)()
