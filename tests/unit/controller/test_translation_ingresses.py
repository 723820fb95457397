"""One Ingress: what it asks for, and what it gets."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.translation.document import canonical
from tests.fakes.kube_objects import (
    backend_named,
    endpoint_slice,
    ingress,
    ingress_class,
    loaded,
    namespace,
    path,
    proxy,
    reasons,
    role,
    routes,
    rule,
    service,
    translated,
    web,
)

UP = ["http://10.1.0.1:8080"]
VIEWERS = role("shop/viewers")
SIGNED_IN = {"roles": "viewers"}
OPEN = proxy(ingress={"allowPublic": {}, "allowCatchAll": True})


def served(*made: Any, notes: Any = SIGNED_IN, **spec: Any) -> Any:
    """The translation of an Ingress shop/web with rules or other objects."""
    rules = [one for one in made if "kind" not in one]
    others = [one for one in made if "kind" in one]
    return translated(*web("shop"), VIEWERS, ingress("shop/web", *rules, notes=notes, **spec),
                      *others)  # fmt: skip


def test_a_rule_becomes_a_backend_that_roles_open() -> None:
    found = served(rule("a.test", "/"))
    assert backend_named(found, "ingress.shop.web") == {
        "name": "ingress.shop.web",
        "hosts": ["a.test"],
        "http": [{"path": "/", "upstreams": UP}],
        "permissions": [{"name": "all", "locations": [{"any": "/"}]}],
    }
    assert found.document["roles"] == [
        {"name": "shop.viewers", "members": [],
         "bindings": [{"backend": "ingress.shop.web", "permission": "all"}]}
    ]  # fmt: skip
    assert found.diagnostics == ()


@pytest.mark.parametrize(
    ("kind", "written", "expected"),
    [
        ("Prefix", "/", "/"),
        ("Prefix", "/foo", "/foo"),
        ("Prefix", "/foo/", "/foo"),
        ("Exact", "/foo", "=/foo"),
        ("Exact", "/foo/", "=/foo/"),
        ("ImplementationSpecific", "", "/"),
        ("ImplementationSpecific", "/foo/", "/foo"),
        ("Prefix", "", "/"),
    ],
)
def test_path_types(kind: str, written: str, expected: str) -> None:
    found = served(rule("a.test", path(written, kind=kind)))
    assert routes(found) == {f"a.test {expected}": UP}


@pytest.mark.parametrize(
    ("written", "kind", "closed"),
    [
        ("/api/(.*)", "ImplementationSpecific", "/api"),
        ("/a%2fb", "ImplementationSpecific", "/"),
        ("/x/../y", "Prefix", "/x"),
        ("/foo", "Regex", "/foo"),
        ("", "Exact", "/"),
    ],
)
def test_a_path_that_cannot_be_served_closes_what_is_clear_of_it(
    written: str, kind: str, closed: str
) -> None:
    found = served(rule("a.test", path(written, kind=kind)))
    assert reasons(found) == ["InvalidPath"]
    [(where, leads)] = routes(found).items()
    assert where == f"a.test {closed}"
    assert leads[0].startswith("InvalidPath")


def test_a_closed_path_displaces_nobody() -> None:
    found = served(rule("a.test", "/api", path("/api/(.*)", kind="ImplementationSpecific")))
    assert routes(found) == {"a.test /api": UP}


def test_several_hosts_share_what_is_the_same() -> None:
    found = served(rule("b.test", "/", "/b"), rule("a.test", "/"))
    assert backend_named(found, "ingress.shop.web")["http"] == [
        {"path": "/", "upstreams": UP},
        {"host": "b.test", "path": "/b", "upstreams": UP},
    ]
    assert set(routes(found)) == {"a.test /", "b.test /", "b.test /b"}


@pytest.mark.parametrize(
    ("path_", "reason"),
    [
        (path("/x", "gone"), "ServiceNotFound"),
        (path("/x", port=81), "PortNotFound"),
        ({"path": "/x", "pathType": "Prefix", "backend": {"resource": {"kind": "B"}}},
         "UnsupportedBackend"),
        ({"path": "/x", "pathType": "Prefix"}, "UnsupportedBackend"),
        (path("/x", "empty"), "NoEndpoints"),
    ],
)  # fmt: skip
def test_what_leads_nowhere_answers_503_and_falls_to_nothing_broader(
    path_: dict[str, Any], reason: str
) -> None:
    found = served(rule("a.test", "/", path_), service("shop/empty"))
    assert reasons(found) == [reason]
    leads = routes(found)
    assert leads["a.test /"] == UP
    assert leads["a.test /x"][0].startswith(f"{reason}: ")
    [served_] = [one for one in found.served if one.ref.kind == "Ingress"]
    assert served_.accepted is (reason != "UnsupportedBackend")
    assert served_.resolved is (reason == "UnsupportedBackend")


def test_without_roles_nobody_may_and_an_event_says_so() -> None:
    found = served(rule("a.test", "/"), notes=None)
    assert reasons(found) == ["NoRoles"]
    assert routes(found) == {"a.test /": UP}
    assert found.document["roles"] == []


def test_default_roles_are_the_proxys() -> None:
    found = served(
        rule("a.test", "/"), role("heim/staff"), proxy(defaultRoles=["staff"]), notes=None
    )
    assert reasons(found) == []
    assert [one["name"] for one in found.document["roles"]] == ["heim.staff"]


def test_a_role_that_is_not_there_gives_nothing() -> None:
    found = served(rule("a.test", "/"), notes={"roles": "viewers,gone"})
    assert reasons(found) == ["RoleNotFound"]
    assert [one["name"] for one in found.document["roles"]] == ["shop.viewers"]


def test_public_needs_permission() -> None:
    found = served(rule("a.test", "/"), notes={"auth": "none"})
    assert reasons(found) == ["PublicNotAllowed"]
    [leads] = routes(found).values()
    assert leads[0].startswith("PublicNotAllowed: ")
    assert "public" not in backend_named(found, "ingress.shop.web")


def test_public_is_served_without_tls_too_unless_there_is_tls() -> None:
    found = served(
        rule("a.test", "/"), rule("b.test", "/"), OPEN,
        notes={"auth": "none"}, tls=[{"hosts": ["a.test"]}],
    )  # fmt: skip
    assert reasons(found) == []
    secured = backend_named(found, "ingress.shop.web")
    plain = backend_named(found, "ingress-plain.shop.web")
    assert (secured["hosts"], secured["public"], "allow_http" in secured) == (
        ["a.test"], True, False)  # fmt: skip
    assert (plain["hosts"], plain["public"], plain["allow_http"]) == (["b.test"], True, True)
    assert "permissions" not in plain


@pytest.mark.parametrize(("redirect", "name"), [("true", "ingress"), ("false", "ingress-plain")])
def test_the_redirect_can_be_chosen(redirect: str, name: str) -> None:
    notes = {"auth": "none", "ssl-redirect": redirect}
    found = served(rule("a.test", "/"), OPEN, notes=notes)
    assert [one["name"] for one in found.document["backends"]] == [f"{name}.shop.web"]


def test_a_class_for_public_things_is_the_proxys_to_make() -> None:
    both = proxy(defaultAuth="None", ingress={"allowPublic": {}})
    assert backend_named(served(rule("a.test", "/"), both, notes=None), "ingress-plain.shop.web")
    found = served(rule("a.test", "/"), both, notes={"auth": "required"})
    assert "public" not in backend_named(found, "ingress.shop.web")
    # Roles are a wish for a login.
    assert "public" not in backend_named(served(rule("a.test", "/"), both), "ingress.shop.web")
    alone = served(rule("a.test", "/"), proxy(defaultAuth="None"), notes=None)
    assert reasons(alone) == ["NoRoles"]


def test_an_annotation_that_cannot_be_understood_closes_everything() -> None:
    found = served(rule("a.test", "/", "/x"), rule("b.test", "/"), notes={"rolez": "viewers"})
    assert reasons(found) == ["InvalidAnnotation"]
    leads = routes(found)
    assert len(leads) == 3
    assert all(one[0].startswith("InvalidAnnotation: ") for one in leads.values())
    assert "permissions" not in backend_named(found, "ingress.shop.web")


def test_options_reach_the_backend() -> None:
    notes = {
        **SIGNED_IN, "session-max-age": "8h", "identity-headers": "forwarded",
        "connect-timeout": "2s", "read-timeout": "90s", "idle-timeout": "1h",
    }  # fmt: skip
    found = backend_named(served(rule("a.test", "/"), notes=notes), "ingress.shop.web")
    assert found["max_session_age"] == "8h"
    assert found["identity_headers"] == ["forwarded"]
    assert found["timeouts"] == {"connect": "2s", "first_byte": "90s", "idle": "1h"}


def test_https_is_verified_by_the_services_name() -> None:
    notes = {**SIGNED_IN, "backend-protocol": "HTTPS"}
    found = served(rule("a.test", "/"), notes=notes)
    assert routes(found) == {"a.test /": ["https://web.shop.svc:80"]}
    assert "upstream_tls" not in backend_named(found, "ingress.shop.web")


@pytest.mark.parametrize(
    ("note", "tls"),
    [
        ({"backend-server-name": "web.internal"}, {"server_name": "web.internal"}),
        ({"backend-insecure": "true"}, {"insecure": True}),
    ],
)
def test_https_to_pods_needs_a_name_or_trust(note: dict[str, str], tls: dict[str, Any]) -> None:
    notes = {**SIGNED_IN, "backend-protocol": "HTTPS", **note}
    found = served(rule("a.test", "/"), notes=notes)
    assert routes(found) == {"a.test /": ["https://10.1.0.1:8080"]}
    assert backend_named(found, "ingress.shop.web")["upstream_tls"] == tls
    plain = served(rule("a.test", "/"), notes={**SIGNED_IN, **note})
    assert "upstream_tls" not in backend_named(plain, "ingress.shop.web")


def test_a_mesh_gets_the_services_name() -> None:
    found = served(rule("a.test", "/"), notes={**SIGNED_IN, "upstream": "service"})
    assert routes(found) == {"a.test /": ["http://web.shop.svc:80"]}


def test_what_nobody_covers_is_the_default_backends() -> None:
    found = served(
        rule("a.test", "/x"), rule("b.test", "/"), rule("c.test"),
        *web("shop", "rest", "10.1.0.2"),
        defaultBackend={"service": {"name": "rest", "port": {"number": 80}}},
    )  # fmt: skip
    rest = ["http://10.1.0.2:8080"]
    assert routes(found) == {
        "a.test /x": UP, "a.test /": rest, "b.test /": UP, "c.test /": rest,
    }  # fmt: skip


def test_a_rule_that_leads_nowhere_keeps_its_host() -> None:
    found = served(rule("a.test"))
    assert reasons(found) == ["NoBackend"]
    assert list(routes(found)) == ["a.test /"]


DEFAULT = {"service": {"name": "web", "port": {"number": 80}}}


@pytest.mark.parametrize(
    "spec", [{"defaultBackend": DEFAULT}, {"rules": [rule(None, "/")]}], ids=["default", "rule"]
)
def test_a_catch_all_is_deliberate_and_public(spec: dict[str, Any]) -> None:
    public = {"auth": "none"}
    assert routes(served(OPEN, notes=public, **spec)) == {"* /": UP}
    refused = served(proxy(ingress={"allowPublic": {}}), notes=public, **spec)
    assert (reasons(refused), routes(refused)) == (["CatchAllNotAllowed"], {})
    private = served(OPEN, **spec)
    assert (reasons(private), routes(private)) == (["CatchAllNotAllowed"], {})


def test_tcp_leads_to_the_services_own_address() -> None:
    found = served(rule("ssh.test", path("", kind="ImplementationSpecific")),
                   notes={**SIGNED_IN, "tcp": "true", "idle-timeout": "2h", "read-timeout": "9s",
                          "connect-timeout": "3s", "identity-headers": "none"})  # fmt: skip
    assert backend_named(found, "ingress.shop.web") == {
        "name": "ingress.shop.web",
        "hosts": ["ssh.test"],
        "tcp": {"upstream": "10.96.0.10:80", "idle": "2h"},
        "timeouts": {"connect": "3s"},
    }
    [viewers] = found.document["roles"]
    assert viewers["bindings"] == [{"backend": "ingress.shop.web"}]


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ([rule("a.test", "/x")], "InvalidAnnotation"),
        ([rule("a.test", path("/", "gone"))], "ServiceNotFound"),
        ([rule("a.test")], "NoBackend"),
        ([rule("a.test", "/"), rule("b.test", path("/", "two"))], "InvalidAnnotation"),
    ],
)
def test_tcp_that_cannot_be_served_is_closed(rules: list[Any], reason: str) -> None:
    found = served(*rules, *web("shop", "two", "10.1.0.2"), notes={**SIGNED_IN, "tcp": "true"})
    assert reasons(found) == [reason]
    assert all("tcp" not in one for one in found.document["backends"])
    assert all(leads[0].startswith(reason) for leads in routes(found).values())


def test_tcp_needs_a_host() -> None:
    found = served(rule(None, "/"), OPEN, notes={**SIGNED_IN, "tcp": "true"})
    assert reasons(found) == ["CatchAllNotAllowed"]
    assert found.document["backends"] == []


def test_annotations_of_ingress_nginx_are_read() -> None:
    nginx = "nginx.ingress.kubernetes.io"
    found = served(
        rule("a.test", path("/app(/|$)(.*)", kind="ImplementationSpecific")),
        notes={**SIGNED_IN, f"{nginx}/rewrite-target": "/$2", f"{nginx}/use-regex": "true",
               f"{nginx}/auth-url": "https://oauth2/auth", f"{nginx}/limit-rps": "5"},
    )  # fmt: skip
    assert reasons(found) == ["ReplacedByHeim", "UnsupportedAnnotation"]
    assert backend_named(found, "ingress.shop.web")["http"] == [
        {"path": "/app", "upstreams": UP, "strip_prefix": True}
    ]


def test_a_rewrite_that_is_not_understood_is_not_half_done() -> None:
    found = served(
        rule("a.test", "/plain"),
        notes={**SIGNED_IN, "nginx.ingress.kubernetes.io/rewrite-target": "/$2"},
    )
    assert reasons(found) == ["RoutingNotKept"]
    assert routes(found)["a.test /plain"][0].startswith("RoutingNotKept")


def test_restrictions_by_address_close() -> None:
    key = "nginx.ingress.kubernetes.io/whitelist-source-range"
    found = served(rule("a.test", "/"), notes={**SIGNED_IN, key: "10.0.0.0/8"})
    assert reasons(found) == ["RestrictionNotKept"]


def test_endpoints_that_are_left_out_are_said() -> None:
    bad = endpoint_slice("shop/web", "127.0.0.1", suffix="bad")
    found = served(rule("a.test", "/"), bad)
    assert reasons(found) == ["EndpointNotAllowed"]
    assert routes(found) == {"a.test /": UP}


def test_another_class_is_not_touched() -> None:
    found = served(rule("a.test", "/"), ingress_class("heim"), ingressClassName="nginx")
    assert found.document["backends"] == []
    assert [one.ref.kind for one in found.served] == ["Proxy", "Role"]


def test_a_name_that_no_object_has_is_refused() -> None:
    made = ingress("shop/web", rule("a.test", "/"))
    made["metadata"]["name"] = "We b"
    found = translated(*web("shop"), made, namespace("shop"))
    assert reasons(found) == ["InvalidObject"]
    assert found.document["backends"] == []


@pytest.mark.parametrize("headless", [False, True])
def test_thousands_of_paths_to_a_large_service_stay_small(headless: bool) -> None:
    """One Ingress must not make the document too large for everybody."""
    addresses = [f"10.{number // 250}.{number % 250}.7" for number in range(1000)]
    paths = [f"/{number}" for number in range(1000)]
    found = translated(
        service("shop/web", **({"clusterIP": "None"} if headless else {})),
        endpoint_slice("shop/web", *addresses),
        role("shop/viewers"),
        ingress("shop/web", rule("a.test", *paths), notes={"roles": "viewers"}),
    )
    routes = backend_named(found, "ingress.shop.web")["http"]
    assert len(routes) == 1000
    assert sum(len(route.get("upstreams", ())) == 1000 for route in routes) == 20
    rest = [route for route in routes if len(route.get("upstreams", ())) != 1000]
    if headless:
        assert all(route["unavailable"].startswith("InvalidSpec: ") for route in rest)
        assert reasons(found) == ["InvalidSpec"]
    else:
        assert {tuple(route["upstreams"]) for route in rest} == {("http://web.shop.svc:80",)}
        assert reasons(found) == []
    assert len(canonical(found.document)) < 1_000_000
    loaded(found)
