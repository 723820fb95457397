"""Endpoints of the Proxy's namespace and of the API server."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    endpoint_slice,
    ingress,
    path,
    reasons,
    role,
    rule,
    service,
    translated,
)


def pods(name: str, address: str, port: int) -> dict[str, Any]:
    """A slice as Kubernetes writes it for a Service's pods."""
    made = endpoint_slice(name, address, port=port)
    namespace = name.partition("/")[0]
    made["endpoints"][0]["targetRef"] = {"kind": "Pod", "namespace": namespace, "name": "pod"}
    return made


CLUSTER = [
    service("heim/admin", clusterIP="10.96.0.20"),
    pods("heim/admin", "10.1.9.9", 9440),
    # Somebody's machine, which another namespace may have good reasons to name.
    endpoint_slice("heim/nas", "192.168.1.5", port=5000),
    service("default/kubernetes", clusterIP="10.96.0.1"),
    endpoint_slice("default/kubernetes", "172.16.0.2", port=6443),
    pods("shop/other", "10.1.3.3", 8080),
]


def leading_to(address: str, port: int, namespace: str = "evil") -> Translation:
    return translated(
        *CLUSTER,
        service(f"{namespace}/web"),
        endpoint_slice(f"{namespace}/web", address, port=port),
        role(f"{namespace}/viewers"),
        ingress(f"{namespace}/web", rule("a.test", "/"), notes={"roles": "viewers"}),
    )


@pytest.mark.parametrize(
    ("address", "port"),
    [("10.1.9.9", 9440), ("10.96.0.20", 9440), ("10.96.0.1", 443), ("172.16.0.2", 6443)],
    ids=["the proxy's admin port", "its Service", "the API's Service", "an API server"],
)
def test_what_only_the_proxy_should_reach_is_nobodys_endpoint(address: str, port: int) -> None:
    assert reasons(leading_to(address, port)) == ["EndpointNotAllowed"]


@pytest.mark.parametrize(
    ("address", "port"),
    [("10.1.9.9", 8080), ("192.168.1.5", 5000), ("172.16.0.2", 30080), ("10.1.3.3", 8080)],
    ids=["another port", "a machine outside", "another port of a node", "of another namespace"],
)
def test_everything_else_stays_usable(address: str, port: int) -> None:
    assert reasons(leading_to(address, port)) == []


def test_its_own_namespace_may_serve_it() -> None:
    assert reasons(leading_to("10.1.9.9", 9440, "heim")) == []
    assert reasons(leading_to("172.16.0.2", 6443, "default")) == []


def test_the_services_own_name_leads_nowhere_worse() -> None:
    """kube-proxy and DNS know every endpoint of a Service, ready on this port or not."""
    hidden = endpoint_slice("evil/web", "10.1.9.9", port=9440, port_name="x", suffix="2",
                            conditions={"ready": False})  # fmt: skip
    for notes in ({"upstream": "service"}, {"tcp": "true"}):
        found = translated(
            *CLUSTER,
            service("evil/web", {"port": 9440, "protocol": "TCP"}, clusterIP="None"),
            endpoint_slice("evil/web", "10.1.0.1"),
            hidden,
            role("evil/viewers"),
            ingress(
                "evil/web",
                rule("a.test", path("/", port=9440)),
                notes={"roles": "viewers", **notes},
            ),
        )
        [backend] = found.document["backends"]
        if "tcp" in backend:
            assert backend["tcp"]["upstream"] == "10.1.0.1:8080"
        else:
            assert set(reasons(found)) == {"EndpointNotAllowed"}
            assert "unavailable" in backend["http"][0]


def test_ipv6_has_many_spellings_of_one_place() -> None:
    found = translated(
        service("heim/admin", clusterIP="fd00:10::20"),
        service("evil/web"),
        endpoint_slice("evil/web", "FD00:0010:0::0020", addressType="IPv6"),
        role("evil/viewers"),
        ingress("evil/web", rule("a.test", "/"), notes={"roles": "viewers"}),
    )
    assert reasons(found) == ["EndpointNotAllowed"]
