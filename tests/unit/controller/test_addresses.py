"""Where Ingresses are reached."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.addresses import addresses_of, published_at


def service(kind: str, *balanced: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "spec": {"type": kind, "clusterIP": "10.96.0.1", **spec},
        "status": {"loadBalancer": {"ingress": list(balanced)}},
    }


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(service("LoadBalancer"), [], id="none yet"),
        pytest.param(
            service("LoadBalancer", {"ip": "192.0.2.1", "ipMode": "VIP"}),
            [{"ip": "192.0.2.1"}],
            id="an address, without what an Ingress cannot say",
        ),
        pytest.param(
            service("LoadBalancer", {"hostname": "lb.test"}, externalIPs=["192.0.2.9"]),
            [{"ip": "192.0.2.9"}, {"hostname": "lb.test"}],
            id="a name, and external addresses",
        ),
        pytest.param(
            service("ClusterIP", externalIPs=["2001:db8::1"]),
            [{"ip": "2001:db8::1"}],
            id="the cluster's own address leads nobody here",
        ),
        pytest.param(service("NodePort"), [], id="nodes are not read"),
        pytest.param(
            service("ExternalName", externalName="lb.test"), [{"hostname": "lb.test"}], id="a name"
        ),
        pytest.param(
            service("LoadBalancer", {"ports": [{"port": 1}]}, {}),
            [{"ports": [{"port": 1}]}],
            id="what a cloud says otherwise",
        ),
        pytest.param({}, [], id="nothing at all"),
    ],
)
def test_addresses_of_a_service(found: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    assert addresses_of(found) == expected


def test_addresses_that_are_given_win_and_are_told_once_in_order() -> None:
    given = ("b.test", "192.0.2.1", "b.test")
    balancer = service("LoadBalancer", {"ip": "192.0.2.7"})
    assert published_at(given, balancer) == [{"hostname": "b.test"}, {"ip": "192.0.2.1"}]
    assert published_at((), balancer) == [{"ip": "192.0.2.7"}]
    assert published_at((), None) == []
