"""Where Ingresses are reached: what stands in their `status.loadBalancer`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Final

from heim_controller.kube.resources import Manifest
from heim_controller.translation.objects import listed, mapping, text

__all__ = ["addresses_of", "published_at"]

# Of an entry of a Service's status, what an entry of an Ingress's may have.
_KEYS: Final = ("hostname", "ip", "ports")
# The API server takes any number; nobody has more load balancers.
_MAX_ADDRESSES: Final = 32


def published_at(given: Iterable[str], service: Manifest | None) -> list[dict[str, Any]]:
    """The entries of `status.loadBalancer.ingress`, sorted, each once.

    Args:
        given: Addresses and host names that the operator gave; they win.
        service: The Service that the proxy is reached by, None when there is none.
    """
    told = [_entry(one) for one in given]
    if not told and service is not None:
        told = addresses_of(service)
    unique = {repr(sorted(one.items())): one for one in told}
    return [unique[key] for key in sorted(unique)][:_MAX_ADDRESSES]


def addresses_of(service: Manifest) -> list[dict[str, Any]]:
    """What leads to a Service from outside; a cluster's own addresses lead nobody anywhere.

    A NodePort Service is reached at addresses of nodes, which we do not read: those are given with
    `--publish-address`.
    """
    spec = mapping(service.get("spec"))
    kind = text(spec.get("type")) or "ClusterIP"
    if kind == "ExternalName":
        name = text(spec.get("externalName"))
        return [{"hostname": name}] if name else []
    found = [_entry(text(one)) for one in listed(spec.get("externalIPs")) if text(one)]
    if kind == "LoadBalancer":
        balancer = mapping(mapping(service.get("status")).get("loadBalancer"))
        found += [_copied(mapping(one)) for one in listed(balancer.get("ingress"))]
    return [one for one in found if one]


def _entry(address: str) -> dict[str, Any]:
    try:
        return {"ip": str(ipaddress.ip_address(address))}
    except ValueError:
        return {"hostname": address}


def _copied(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in _KEYS if entry.get(key)}
