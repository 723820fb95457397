"""What ingress-controller-conformance asks, from objects to the route that a proxy finds.

The scenarios over sockets are a suite of their own; here each request is asked of the route table
that a proxy builds, so that every row of the official tables takes microseconds.
"""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.translation.translate import Translation
from heim_proxy.snapshot import routes_of
from tests.fakes.kube_objects import (
    endpoint_slice,
    ingress,
    ingress_class,
    loaded,
    path,
    proxy,
    reasons,
    rule,
    service,
    translated,
    web,
)

# The class of the suite: its requests carry no login.
OPEN = proxy(defaultAuth="None", ingress={"allowPublic": {}, "allowCatchAll": True})
DEFAULT = {"service": {"name": "rest", "port": {"number": 80}}}


def asked(found: Translation, host: str, target: str) -> str | None:
    """The first upstream's address for a request; None for 404."""
    routes = routes_of(loaded(found)).lookup(host)
    route = None if routes is None else routes.match(target.encode())
    return None if route is None else route.endpoints[0].host


def serving(*names: str) -> dict[str, str]:
    """An address of its own for each Service."""
    return {name: f"10.1.1.{number}" for number, name in enumerate(names, 1)}


def with_services(where: dict[str, str], *made: Any) -> Translation:
    found = translated(OPEN, *(web("echo", name, there) for name, there in where.items()), *made)
    assert reasons(found) == []
    return found


# The path, the pathType, the request, and whether it matches (kubernetes.io, Ingress, path types).
ONE = [
    ("/", "Prefix", "/anything/at/all", True),
    ("/foo", "Exact", "/foo", True),
    ("/foo", "Exact", "/bar", False),
    ("/foo", "Exact", "/foo/", False),
    ("/foo", "Exact", "/FOO", False),
    ("/foo/", "Exact", "/foo", False),
    ("/foo", "Prefix", "/foo", True),
    ("/foo", "Prefix", "/foo/", True),
    ("/foo/", "Prefix", "/foo", True),
    ("/foo/", "Prefix", "/foo/", True),
    ("/foo", "Prefix", "/FOO", False),
    ("/aaa/bb", "Prefix", "/aaa/bbb", False),
    ("/aaa/bbb", "Prefix", "/aaa/bbb", True),
    ("/aaa/bbb/", "Prefix", "/aaa/bbb", True),
    ("/aaa/bbb", "Prefix", "/aaa/bbb/", True),
    ("/aaa/bbb", "Prefix", "/aaa/bbb/ccc", True),
    ("/aaa/bbb", "Prefix", "/aaa/bbbxyz", False),
    ("/aaa", "Prefix", "/ccc", False),
    ("/foo", "ImplementationSpecific", "/foo/x", True),
    ("", "ImplementationSpecific", "/foo", True),
]


@pytest.mark.parametrize(("written", "kind", "target", "matches"), ONE)
def test_one_path(written: str, kind: str, target: str, matches: bool) -> None:
    where = serving("web")
    made = ingress("echo/one", rule("a.test", path(written, kind=kind)))
    expected = where["web"] if matches else None
    assert asked(with_services(where, made), "a.test", target) == expected


SEVERAL = [
    ([("/", "Prefix", "a"), ("/aaa", "Prefix", "b")], "/aaa/ccc", "b"),
    ([("/aaa", "Prefix", "b"), ("/", "Prefix", "a")], "/ccc", "a"),
    ([("/", "Prefix", "a"), ("/aaa", "Prefix", "b"), ("/aaa/bbb", "Prefix", "c")], "/aaa/bbb", "c"),
    ([("/", "Prefix", "a"), ("/aaa", "Prefix", "b"), ("/aaa/bbb", "Prefix", "c")], "/aaa/x", "b"),
    ([("/foo", "Prefix", "a"), ("/foo", "Exact", "b")], "/foo", "b"),
    ([("/foo", "Prefix", "a"), ("/foo", "Exact", "b")], "/foo/", "a"),
    ([("/foo", "Prefix", "a"), ("/foo/", "Prefix", "b")], "/foo", "b"),
    ([("/foo", "Prefix", "a"), ("/aaa/bbb", "Prefix", "b"), ("/aaa", "Prefix", "c")],
     "/aaaccc", None),
]  # fmt: skip


@pytest.mark.parametrize(("paths", "target", "expected"), SEVERAL)
def test_several_paths(
    paths: list[tuple[str, str, str]], target: str, expected: str | None
) -> None:
    where = serving("a", "b", "c")
    rules = [path(written, name, kind=kind) for written, kind, name in paths]
    found = with_services(where, ingress("echo/many", rule("a.test", *rules)))
    assert asked(found, "a.test", target) == (where[expected] if expected else None)


HOSTS = [
    ("foo.bar.com", "named"),
    ("bar.foo.com", "wild"),
    ("baz.bar.foo.com", None),
    ("foo.com", None),
    ("subdomain.bar.com", None),
]


@pytest.mark.parametrize(("host", "expected"), HOSTS)
def test_host_rules(host: str, expected: str | None) -> None:
    where = serving("wild")
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    made = ingress(
        "echo/hosts",
        rule("*.foo.com", path("/", "wild")),
        rule("foo.bar.com", path("/", "named", port="http")),
        tls=[{"hosts": ["foo.bar.com"]}],
    )
    found = with_services(
        where, made, service("echo/named", port),
        endpoint_slice("echo/named", "10.1.1.99", port=3000, port_name="http"),
    )  # fmt: skip
    addresses = {**where, "named": "10.1.1.99"}
    assert asked(found, host, "/") == (addresses[expected] if expected else None)


@pytest.mark.parametrize("host", ["my-host", "some-host", "resource", "10.0.0.1", "a.b.c.d.test"])
@pytest.mark.parametrize("target", ["/", "/sub-path", "/resource"])
def test_default_backend(host: str, target: str) -> None:
    where = serving("rest")
    found = with_services(where, ingress("echo/rest", defaultBackend=DEFAULT))
    assert asked(found, host, target) == where["rest"]


def test_a_host_with_rules_does_not_fall_to_the_default_backend_of_others() -> None:
    where = serving("web", "rest")
    found = with_services(
        where, ingress("echo/rest", defaultBackend=DEFAULT),
        ingress("echo/app", rule("a.test", "/x"), rule("*.wild.test", "/y")),
    )  # fmt: skip
    assert asked(found, "a.test", "/x") == where["web"]
    assert asked(found, "a.test", "/other") is None
    assert asked(found, "b.wild.test", "/other") is None
    assert asked(found, "elsewhere.test", "/other") == where["rest"]


def test_ingress_class() -> None:
    made = ingress("echo/x", rule("a.test", "/"), ingressClassName="some-invalid-class-name")
    found = translated(OPEN, web("echo"), ingress_class("heim"), made)
    assert "Ingress" not in {one.ref.kind for one in found.served}
    assert found.document["backends"] == []


def test_load_balancing() -> None:
    ten = [f"10.1.2.{number}" for number in range(10)]
    found = translated(
        OPEN, service("echo/rest"), endpoint_slice("echo/rest", *ten),
        ingress("echo/rest", defaultBackend=DEFAULT),
    )  # fmt: skip
    routes = routes_of(loaded(found)).lookup("any.test")
    assert routes is not None
    route = routes.match(b"/")
    assert route is not None
    assert sorted(one.host for one in route.endpoints) == ten
