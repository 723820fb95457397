"""Service ports to addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heim_controller.translation.services import Resolved, Services, Unresolved
from tests.fakes.kube_objects import (
    SETTINGS,
    challenge,
    cluster,
    endpoint_slice,
    path,
    service,
    solver,
    web,
)

HTTP = {"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}
METRICS = {"name": "metrics", "port": 9090, "protocol": "TCP"}


def resolve(
    *made: Any, port: int | str = 80, name: str = "web", external: bool = False, **settings: Any
) -> Resolved | Unresolved:
    services = Services(cluster(*made), replace(SETTINGS, **settings), external_names=external)
    return services.resolve("shop", path("/", name, port=port)["backend"])


def endpoints(*made: Any, **keys: Any) -> tuple[str, ...]:
    found = resolve(*made, **keys)
    assert isinstance(found, Resolved), found
    return found.endpoints


def refusal(*made: Any, **keys: Any) -> str:
    found = resolve(*made, **keys)
    assert isinstance(found, Unresolved), found
    return found.reason


def test_a_port_is_the_services_and_leads_to_the_pods() -> None:
    assert endpoints(*web("shop")) == ("10.1.0.1:8080",)


def test_a_port_can_be_named() -> None:
    made = [
        service("shop/web", HTTP, METRICS),
        endpoint_slice("shop/web", "10.1.0.1", port=8080, port_name="http"),
        endpoint_slice("shop/web", "10.1.0.1", port=9999, port_name="metrics", suffix="m"),
    ]
    assert endpoints(*made, port="metrics") == ("10.1.0.1:9999",)
    assert endpoints(*made, port=9090) == ("10.1.0.1:9999",)
    assert endpoints(*made, port=80) == ("10.1.0.1:8080",)
    assert refusal(*made, port=8080) == "PortNotFound"
    assert refusal(*made, port="web") == "PortNotFound"
    assert refusal(*made, port="") == "PortNotFound"


def test_slices_are_joined_and_addresses_told_once_in_order() -> None:
    made = [
        service("shop/web"),
        endpoint_slice("shop/web", "10.1.0.3", "10.1.0.1", suffix="a"),
        endpoint_slice("shop/web", "10.1.0.2", "10.1.0.1", suffix="b"),
        endpoint_slice("shop/web", "fd00::1", suffix="c", addressType="IPv6"),
        endpoint_slice("shop/web", "pod.example.com", suffix="d", addressType="FQDN"),
        endpoint_slice("shop/other", "10.1.0.9"),
        endpoint_slice("team/web", "10.1.0.8"),
    ]
    assert endpoints(*made) == ("10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080", "[fd00::1]:8080")


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ({"ready": True}, True),
        ({"ready": None}, True),
        ({}, True),
        (None, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": False, "serving": True, "terminating": False}, False),
        ({"ready": False, "serving": False, "terminating": True}, False),
    ],
)
def test_who_is_ready_serves_and_who_is_leaving_when_nobody_else_is(
    conditions: dict[str, bool] | None, serves: bool
) -> None:
    made = [service("shop/web"), endpoint_slice("shop/web", "10.1.0.1", conditions=conditions)]
    assert (refusal(*made) == "NoEndpoints") if not serves else endpoints(*made)


def test_who_is_leaving_gets_nothing_while_others_are_ready() -> None:
    leaving = {"ready": False, "serving": True, "terminating": True}
    made = [
        *web("shop"),
        endpoint_slice("shop/web", "10.1.0.2", conditions=leaving, suffix="b"),
    ]
    assert endpoints(*made) == ("10.1.0.1:8080",)


def test_what_is_not_there_says_so() -> None:
    assert refusal() == "ServiceNotFound"
    assert refusal(*web("team")) == "ServiceNotFound"
    assert refusal(service("shop/web")) == "NoEndpoints"
    assert refusal(*web("shop"), name="We/b") == "ServiceNotFound"


def test_udp_is_not_tcp() -> None:
    dns = {"name": "dns", "port": 53, "protocol": "UDP"}
    made = [service("shop/web", dns), endpoint_slice("shop/web", "10.1.0.1", port_name="dns")]
    assert refusal(*made, port=53) == "PortNotFound"
    both = [service("shop/web", dns, {**dns, "name": "dns-tcp", "protocol": "TCP"}),
            endpoint_slice("shop/web", "10.1.0.1", port=53, port_name="dns-tcp")]  # fmt: skip
    assert endpoints(*both, port=53) == ("10.1.0.1:53",)


@pytest.mark.parametrize("value", [{"resource": {"kind": "Bucket", "name": "b"}}, {}])
def test_a_backend_that_is_no_service_is_not_supported(value: dict[str, Any]) -> None:
    found = Services(cluster(), SETTINGS, external_names=True).resolve("shop", value)
    assert isinstance(found, Unresolved)
    assert found.reason == "UnsupportedBackend"


@pytest.mark.parametrize(
    ("protocol", "scheme"),
    [("https", "https"), ("HTTPS", "https"), ("kubernetes.io/wss", "https"), ("http", "http"),
     ("kubernetes.io/ws", "http"), ("example.com/custom", "http"), (None, "http")],
)  # fmt: skip
def test_the_ports_protocol_decides_the_scheme(protocol: str | None, scheme: str) -> None:
    made = [service("shop/web", {"port": 80, "appProtocol": protocol}),
            endpoint_slice("shop/web", "10.1.0.1")]  # fmt: skip
    found = resolve(*made)
    assert isinstance(found, Resolved)
    assert found.scheme == scheme


@pytest.mark.parametrize("protocol", ["kubernetes.io/h2c", "grpc"])
def test_what_speaks_http2_alone_is_not_supported(protocol: str) -> None:
    made = [service("shop/web", {"port": 80, "appProtocol": protocol}),
            endpoint_slice("shop/web", "10.1.0.1")]  # fmt: skip
    assert refusal(*made) == "UnsupportedBackend"


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "x"])
def test_an_endpoint_on_the_proxys_own_machine_is_left_out(address: str) -> None:
    bad = endpoint_slice("shop/web", address)
    assert refusal(service("shop/web"), bad) == "EndpointNotAllowed"
    found = resolve(*web("shop"), endpoint_slice("shop/web", address, suffix="bad"))
    assert isinstance(found, Resolved)
    assert found.endpoints == ("10.1.0.1:8080",)
    assert found.refused == f'"{address}"'


def test_tests_may_move_addresses() -> None:
    assert endpoints(*web("shop"), address_map={"10.1.0.1": "127.0.0.7"}) == ("127.0.0.7:8080",)


def test_upstreams_are_pods_or_the_services_name() -> None:
    found = resolve(*web("shop"))
    assert isinstance(found, Resolved)
    assert found.target("http", by_name=False).upstreams == ["http://10.1.0.1:8080"]
    assert found.target("https", by_name=True).upstreams == ["https://web.shop.svc:80"]
    assert found.target("https", by_name=True) is found.target("https", by_name=True)
    assert found.stream_address == "10.96.0.10:80"


def test_streams_to_a_headless_service_go_to_a_pod() -> None:
    found = resolve(service("shop/web", clusterIP="None"), endpoint_slice("shop/web", "10.1.0.4"))
    assert isinstance(found, Resolved)
    assert found.stream_address == "10.1.0.4:8080"


def external(name: str = "api.example.com", *ports: Any) -> dict[str, Any]:
    made = service("shop/web", type="ExternalName", externalName=name)
    made["spec"]["ports"] = list(ports)
    return made


def test_external_names_are_off() -> None:
    assert refusal(external()) == "ExternalNameNotAllowed"


def test_external_names_can_be_allowed() -> None:
    found = resolve(external(), external=True, port=8443)
    assert isinstance(found, Resolved)
    assert found.target("http", by_name=False).upstreams == ["http://api.example.com:8443"]
    named = external("api.example.com", {"name": "https", "port": 443, "appProtocol": "https"})
    found = resolve(named, external=True, port="https")
    assert isinstance(found, Resolved)
    assert (found.scheme, found.name) == ("https", "api.example.com:443")
    assert refusal(named, external=True, port=80) == "PortNotFound"


@pytest.mark.parametrize(
    "name",
    ["localhost", "127.0.0.1", "169.254.169.254", "kubernetes.default.svc", "web",
     "db.other.svc.cluster.local", "metadata.google.internal", "", "a b"],
)  # fmt: skip
def test_external_names_never_lead_inside(name: str) -> None:
    assert refusal(external(name), external=True) == "ExternalNameNotAllowed"


def test_a_solver_is_the_labelled_service_on_its_port() -> None:
    backend = challenge("x" * 20)["backend"]
    yes = Services(cluster(*solver("shop")), SETTINGS, external_names=False)
    assert yes.is_solver("shop", backend)
    assert not yes.is_solver("team", backend)
    assert not yes.is_solver("shop", {"service": {**backend["service"], "port": {"number": 80}}})
    assert yes.is_solver("shop", {"service": {**backend["service"], "port": {"name": "http"}}})
    unlabelled = solver("shop", **{"acme.cert-manager.io/http01-solver": "false"})
    no = Services(cluster(*unlabelled), SETTINGS, external_names=False)
    assert not no.is_solver("shop", backend)


def test_a_solver_is_one_before_its_pod_is_ready() -> None:
    services = Services(cluster(solver("shop")[0]), SETTINGS, external_names=False)
    assert services.is_solver("shop", challenge("x" * 20)["backend"])


def test_a_labelled_external_name_is_no_solver() -> None:
    made = solver("shop")[0]
    made["spec"] |= {"type": "ExternalName", "externalName": "evil.example.com"}
    services = Services(cluster(made), SETTINGS, external_names=True)
    assert not services.is_solver("shop", challenge("x" * 20)["backend"])


def many(count: int) -> list[str]:
    return [f"10.{number // 250}.{number % 250}.7" for number in range(count)]


def test_many_ports_of_many_endpoints_are_refused() -> None:
    """Else one Service fills the memory of the controller."""
    ports = [{"name": f"p{number}", "port": number + 1} for number in range(600)]
    made = [service("shop/web", *ports), endpoint_slice("shop/web", *many(100), port_name="p0")]
    assert refusal(*made, port=1) == "UnsupportedBackend"
    made[0] = service("shop/web", *ports[:400])
    assert len(endpoints(*made, port=1)) == 100
