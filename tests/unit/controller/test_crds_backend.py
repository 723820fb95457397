from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kube_objects import backend
from tests.fakes.kube_schema import complaints

SERVICE = {"service": {"name": "web", "port": 80}}
DESKTOP = {"name": "desktop", "target": "ssh"}


def route(path: str = "/", upstream: Any = SERVICE, **keys: Any) -> dict[str, Any]:
    return {"path": path, "upstream": upstream, **keys}


def web(*routes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"http": list(routes) or [route()], **spec}


GOOD: dict[str, dict[str, Any]] = {
    "one route": web(),
    "a port by name": web(route(upstream={"service": {"name": "web", "port": "http"}})),
    "https": web(route(upstream={"service": {"name": "web", "port": 443, "scheme": "HTTPS"}})),
    "an address": web(route(upstream={"url": "https://10.0.0.5:8443"})),
    "an agent": web(route(upstream={"agent": {**DESKTOP, "scheme": "HTTP"}})),
    "https through an agent": web(
        route(upstream={"agent": {**DESKTOP, "scheme": "HTTPS"}}),
        upstreamTLS={"serverName": "nas.internal"},
    ),
    "exact": web(route("/healthz", pathType="Exact")),
    "a stripped prefix": web(route("/app", stripPrefix=True)),
    "exact, not stripped": web(route("/a", pathType="Exact", stripPrefix=False)),
    "a path in UTF-8 and escapes": web(route("/bücher/%20")),
    "a host": web(host="*.dev.example.com"),
    "permissions": web(
        permissions=[
            {"name": "read", "methods": ["GET", "HEAD"], "paths": ["/"]},
            {"name": "login", "paths": ["=/login", "/users/*/profile"]},
        ]
    ),
    "public": web(auth={"mode": "None"}),
    "a login that is not old": web(auth={"mode": "Required", "maxSessionAge": "8h"}),
    "timeouts and headers": web(
        timeouts={"connect": "250ms", "firstByte": "1.5m", "idle": "1d"},
        identityHeaders=["forwarded", "heimdallr"],
    ),
    "no headers": web(identityHeaders=[]),
    "streams": {"tcp": {"upstream": {"service": {"name": "db", "port": 5432}}}},
    "streams to an address": {"tcp": {"upstream": {"url": "tcp://[2001:db8::5]:22"}}},
    "streams through an agent": {
        "tcp": {"upstream": {"agent": DESKTOP}, "idle": "2h", "maxDuration": "1d"}
    },
    "both": web(tcp={"upstream": SERVICE, "idle": "90s", "maxDuration": "90s"}),
}

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing to reach": ({"host": "a.example.com"}, "needs http, tcp or both"),
    "no route": ({"http": []}, "spec.http"),
    "a route without upstream": ({"http": [{"path": "/"}]}, "upstream: is required"),
    "two upstreams": (web(route(upstream={**SERVICE, "url": "http://a"})), "exactly one"),
    "no upstream": (web(route(upstream={})), "exactly one of service, url and agent"),
    "no port": (web(route(upstream={"service": {"name": "web"}})), "port: is required"),
    "port 0": (web(route(upstream={"service": {"name": "web", "port": 0}})), "out of range"),
    "a port in capitals": (
        web(route(upstream={"service": {"name": "web", "port": "HTTP"}})), "port",
    ),
    "another namespace": (
        web(route(upstream={"service": {"name": "other/web", "port": 80}})), "service.name",
    ),
    "an address with a path": (web(route(upstream={"url": "http://a/b"})), "upstream.url"),
    "an address with a password": (web(route(upstream={"url": "http://u:p@a"})), "upstream.url"),
    "a socket": (web(route(upstream={"url": "unix:/run/x"})), "upstream.url"),
    "a path without slash": (web(route("app")), "spec.http[0].path"),
    "a dot segment": (web(route("/a/../b")), "dot segment"),
    "a dot segment at the end": (web(route("/a/..")), "dot segment"),
    "an empty segment": (web(route("//a")), "empty segment"),
    "an encoded slash": (web(route("/a%2Fb")), "encoded slash"),
    "an encoded backslash": (web(route("/a%5cb")), "encoded slash"),
    "a query": (web(route("/a?b=c")), "path"),
    "a path of ours": (web(route("/.heim/login")), "belong to the proxy"),
    "ours itself": (web(route("/.heim")), "belong to the proxy"),
    "a regular path type": (web(route(pathType="ImplementationSpecific")), "pathType"),
    "exact and stripped": (
        web(route("/a", pathType="Exact", stripPrefix=True)), "stripPrefix needs pathType Prefix",
    ),
    "https through an agent unverified": (
        web(route(upstream={"agent": {**DESKTOP, "scheme": "HTTPS"}})), "needs upstreamTLS",
    ),
    "every host": (web(host="*"), "spec.host"),
    "two wildcards": (web(host="*.*.example.com"), "spec.host"),
    "optional login": (web(auth={"mode": "Optional"}), "auth.mode"),
    "public with permissions": (
        web(auth={"mode": "None"}, permissions=[{"name": "a", "paths": ["/"]}]), "mode None",
    ),
    "public with streams": (web(auth={"mode": "None"}, tcp={"upstream": SERVICE}), "mode None"),
    "permissions of streams": (
        {"tcp": {"upstream": SERVICE}, "permissions": [{"name": "a", "paths": ["/"]}]},
        "permissions are for http",
    ),
    "a permission twice": (
        web(permissions=[{"name": "a", "paths": ["/"]}, {"name": "a", "paths": ["/b"]}]), "twice",
    ),
    "a permission without path": (web(permissions=[{"name": "a", "paths": []}]), "too few"),
    "a method that is none": (
        web(permissions=[{"name": "a", "paths": ["/"], "methods": ["FETCH"]}]), "methods[0]",
    ),
    "a duration without unit": (web(timeouts={"idle": "15"}), "timeouts.idle"),
    "a dialect that is none": (web(identityHeaders=["saml"]), "identityHeaders[0]"),
    "idle for longer than at all": (
        {"tcp": {"upstream": SERVICE, "idle": "2h", "maxDuration": "90m"}}, "idle is longer",
    ),
    "streams to a web address": ({"tcp": {"upstream": {"url": "http://a:1"}}}, "upstream.url"),
    "streams to no port": ({"tcp": {"upstream": {"url": "tcp://a"}}}, "upstream.url"),
    "too many routes": (web(*(route(f"/{n}") for n in range(129))), "too many"),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_is_taken(case: str) -> None:
    assert complaints(backend("shop/web", **GOOD[case])) == []


@pytest.mark.parametrize("case", BAD)
def test_is_refused(case: str) -> None:
    spec, place = BAD[case]
    assert place in "; ".join(complaints(backend("shop/web", **spec)))


@pytest.mark.parametrize("name", ["a.b", "-a", "a" * 64])
def test_a_name_that_cannot_be_a_part_of_another_is_refused(name: str) -> None:
    assert "metadata.name" in "; ".join(complaints(backend(f"shop/{name}", **web())))
