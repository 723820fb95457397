"""Backends: like those of the configuration, with Services; closed as a whole by a mistake."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    agent,
    backend,
    backend_named,
    namespace,
    proxy,
    reasons,
    routes,
    service,
    translated,
    web,
)

WEB = {"service": {"name": "web", "port": 80}}
UP = ["http://10.1.0.1:8080"]
OPEN = proxy(ingress={"allowPublic": {}})


def found(*others: Any, space: str = "shop", **spec: Any) -> Translation:
    made = backend(f"{space}/app", **{"host": "a.test", **spec})
    return translated(*web(space), agent("shop/desk", "ssh", "web"), made, *others)


def app(**spec: Any) -> dict[str, Any]:
    seen = found(**spec)
    assert reasons(seen) == []
    return backend_named(seen, "shop.app")


def http(upstream: Any = None, **route: Any) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": WEB if upstream is None else upstream, **route}]


def test_a_backend_is_one_of_the_configuration() -> None:
    permissions = [
        {"name": "read", "methods": ["GET"], "paths": ["/", "=/x"]},
        {"name": "all", "paths": ["/"]},
    ]
    made = app(
        http=[*http(), {"path": "/api/", "pathType": "Prefix", "stripPrefix": True,
                        "upstream": WEB}, {"path": "/e", "pathType": "Exact", "upstream": WEB}],
        permissions=permissions,
        auth={"mode": "Required", "maxSessionAge": "8h"},
        timeouts={"connect": "2s", "firstByte": "3s", "idle": "1h"},
        identityHeaders=["forwarded"],
    )  # fmt: skip
    assert made == {
        "name": "shop.app",
        "hosts": ["a.test"],
        "http": [
            {"path": "/", "upstreams": UP},
            {"path": "/api", "upstreams": UP, "strip_prefix": True},
            {"path": "/e", "match": "exact", "upstreams": UP},
        ],
        "permissions": [
            {"name": "all", "locations": [{"any": "/"}]},
            {"name": "read", "locations": [{"get": "/"}, {"get": "=/x"}]},
        ],
        "max_session_age": "8h",
        "timeouts": {"connect": "2s", "first_byte": "3s", "idle": "1h"},
        "identity_headers": ["forwarded"],
    }


def test_its_host_is_its_name_under_the_domain_by_default() -> None:
    assert app(host=None, http=http())["hosts"] == ["app.example.test"]


def test_streams() -> None:
    made = app(tcp={"upstream": WEB, "idle": "1h", "maxDuration": "1d"})
    assert made["tcp"] == {"upstream": "10.96.0.10:80", "idle": "1h", "max_duration": "1d"}
    made = app(tcp={"upstream": {"agent": {"name": "desk", "target": "ssh"}}})
    assert made["tcp"] == {"agent": "shop.desk", "target": "ssh"}


def test_through_an_agent() -> None:
    upstream = {"agent": {"name": "desk", "target": "web"}}
    assert app(http=http(upstream))["http"] == [
        {"path": "/", "agent": "shop.desk", "target": "web"}
    ]
    upstream["agent"]["scheme"] = "HTTPS"
    made = app(http=http(upstream), upstreamTLS={"serverName": "web.lan"})
    assert made["http"][0]["scheme"] == "https"
    assert made["upstream_tls"] == {"server_name": "web.lan"}


@pytest.mark.parametrize(
    ("upstream", "reason"),
    [
        ({"agent": {"name": "gone", "target": "ssh"}}, "AgentNotFound"),
        ({"agent": {"name": "desk", "target": "gone"}}, "TargetNotFound"),
        ({"service": {"name": "gone", "port": 80}}, "ServiceNotFound"),
        ({"service": {"name": "web", "port": "gone"}}, "PortNotFound"),
    ],
)
def test_what_points_nowhere_answers_503(upstream: dict[str, Any], reason: str) -> None:
    seen = found(http=[*http(), {"path": "/x", "upstream": upstream}])
    assert reasons(seen) == [reason]
    assert routes(seen)["a.test /"] == UP
    assert routes(seen)["a.test /x"][0].startswith(reason)
    streams = found(tcp={"upstream": upstream})
    assert reasons(streams) == [reason]
    assert routes(streams)["a.test /"][0].startswith(reason)


def test_an_agent_of_another_namespace_cannot_be_named() -> None:
    upstream = {"agent": {"name": "desk", "target": "ssh"}}
    assert reasons(found(space="bank", tcp={"upstream": upstream})) == ["AgentNotFound"]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"http": http({})},
        {"http": http({"service": {"name": "web", "port": 80}, "url": "http://x.test"})},
        {"http": http({"agent": {"name": "desk", "target": "web", "scheme": "HTTPS"}})},
        {"http": http({"agent": {"name": "desk", "target": "web", "scheme": "ftp"}})},
        {"http": http(pathType="Exact", stripPrefix=True)},
        {"http": http(), "auth": {"mode": "Optional"}},
        {"http": http(), "auth": {"maxSessionAge": "8"}},
        {"http": http(), "timeouts": {"connect": 5}},
        {"http": http(), "identityHeaders": ["jwt"]},
        {"http": http(), "upstreamTLS": {"serverName": "*.x"}},
        {"http": http(), "permissions": [{"name": "A", "paths": ["/"]}]},
        {"http": http(), "permissions": [{"name": "a"}]},
        {"http": http(), "permissions": [{"name": "a", "paths": ["/"]}] * 2},
        {"http": http(), "permissions": [{"name": "a", "paths": ["/"], "methods": ["FLY"]}]},
        {"http": http(), "permissions": [{"name": "a", "paths": ["/(x|y)"]}]},
        {"http": http(), "permissions": [{"name": "a", "paths": ["/a/**"]}]},
        {"http": http(), "permissions": [{"name": "a", "paths": [7]}]},
        {"tcp": {"upstream": WEB}, "permissions": [{"name": "a", "paths": ["/"]}]},
        {"tcp": {"upstream": WEB, "idle": "2h", "maxDuration": "1h"}},
        {"tcp": {"upstream": {}}},
        {"tcp": {"upstream": {"url": "nonsense"}}},
    ],
    ids=lambda spec: str(spec)[:70],
)
def test_a_contradiction_closes_all_of_it(spec: dict[str, Any]) -> None:
    seen = found(**spec)
    assert reasons(seen) == ["InvalidSpec"]
    made = backend_named(seen, "shop.app")
    assert "permissions" not in made
    assert "tcp" not in made
    assert all(leads[0].startswith("InvalidSpec") for leads in routes(seen).values())
    assert "a.test /" in routes(seen)


def test_a_path_that_cannot_be_matched_closes_all_of_it() -> None:
    seen = found(http=[*http(), {"path": "/x/../y", "upstream": WEB}])
    assert reasons(seen) == ["InvalidPath"]
    assert routes(seen)["a.test /"][0].startswith("InvalidPath")


def test_public_needs_permission_and_nothing_that_needs_people() -> None:
    none = {"mode": "None"}
    assert reasons(found(http=http(), auth=none)) == ["PublicNotAllowed"]
    seen = found(OPEN, http=http(), auth={**none, "maxSessionAge": "8h"})
    made = backend_named(seen, "shop.app")
    assert (made["public"], "max_session_age" in made) == (True, False)
    some = [{"name": "a", "paths": ["/"]}]
    assert reasons(found(OPEN, http=http(), auth=none, permissions=some)) == ["InvalidSpec"]
    assert reasons(found(OPEN, tcp={"upstream": WEB}, auth=none)) == ["InvalidSpec"]


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9440", "http://localhost:9440", "http://169.254.169.254",
     "http://[::1]:80", "unix:/run/heim/admin.sock", "http://web.bank.svc", "http://web",
     "http://metadata.google.internal"],
)  # fmt: skip
def test_not_even_administrators_mean_the_proxys_own_machine(url: str) -> None:
    assert reasons(found(space="heim", http=http({"url": url}))) == ["AddressNotAllowed"]


def test_addresses_are_for_administrators() -> None:
    there = {"url": "https://nas.lan.example:8443"}
    assert reasons(found(http=http(there))) == ["AddressNotAllowed"]
    seen = found(space="heim", http=http(there))
    assert routes(seen) == {"a.test /": ["https://nas.lan.example:8443"]}
    allowed = found(proxy(ingress={"externalName": "Allowed"}), http=http(there))
    assert reasons(allowed) == []
    tcp = found(space="heim", tcp={"upstream": {"url": "tcp://10.0.0.5:22"}})
    assert backend_named(tcp, "heim.app")["tcp"] == {"upstream": "10.0.0.5:22"}


def test_https_of_a_service() -> None:
    upstream = {"service": {"name": "web", "port": 80, "scheme": "HTTPS"}}
    assert app(http=http(upstream))["http"][0]["upstreams"] == ["https://web.shop.svc:80"]
    insecure = app(http=http(upstream), upstreamTLS={"insecure": True})
    assert insecure["http"][0]["upstreams"] == ["https://10.1.0.1:8080"]
    assert insecure["upstream_tls"] == {"insecure": True}
    wrong = {"service": {"name": "web", "port": 80, "scheme": "h2c"}}
    assert reasons(found(http=http(wrong))) == ["InvalidSpec"]


def test_backends_are_selected() -> None:
    chosen = proxy(backendSelector={"namespaceSelector": {"matchLabels": {"team": "a"}}})
    assert found(chosen, namespace("shop"), http=http()).document["backends"] == []
    assert found(chosen, namespace("shop", team="a"), http=http()).document["backends"]


def test_hosts_are_judged_as_everybodys() -> None:
    assert reasons(found(host="auth.example.test", http=http())) == ["LoginHostClaimed"]
    assert reasons(found(host="10.0.0.1", http=http())) == ["InvalidHost"]
    assert reasons(translated(backend("shop/a.b", host="a.test"))) == ["InvalidObject"]


def test_a_missing_service_of_a_stream_is_said() -> None:
    headless = [service("shop/db", clusterIP="None")]
    seen = found(*headless, tcp={"upstream": {"service": {"name": "db", "port": 80}}})
    assert reasons(seen) == ["NoEndpoints"]
