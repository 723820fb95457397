"""Endpoints that only their own namespace may point a Service at.

The API server takes any address in an EndpointSlice, and a pod reaches itself whatever network
policies say: so whoever may write slices could have the proxy fetch its own admin pages, or speak
to the API server from where it is. What other namespaces have is theirs to protect: slices can
claim anything, and only those of the Proxy's namespace are believed here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final

from heim_controller.translation.objects import Key, Object, Objects, labels_of, listed, mapping

__all__ = ["API_SERVER", "Reserved"]

_SERVICE_NAME = "kubernetes.io/service-name"
API_SERVER: Final[Key] = ("default", "kubernetes")
"""The API server's own Service, and its EndpointSlice."""


class Reserved:
    """What of the Proxy's namespace, and of the API server, may not be an endpoint elsewhere."""

    __slots__ = ("_addresses", "_places")

    def __init__(self, objects: Objects, namespace: str) -> None:
        """Collect it; `namespace` is the Proxy's."""
        # Addresses of Services, whatever the port, by the Service's namespace.
        self._addresses: dict[str, str] = {}
        # Address and port of pods, and of API servers.
        self._places: dict[tuple[str, int], str] = {}
        for key, service in objects.services.items():
            if key[0] == namespace or key == API_SERVER:
                for address in _addresses_of(mapping(service.get("spec"))):
                    self._addresses[address] = key[0]
        for (space, _), one in objects.endpoint_slices.items():
            if space in (namespace, API_SERVER[0]):
                api = (space, labels_of(one).get(_SERVICE_NAME)) == API_SERVER
                if api or space == namespace:
                    for place in _places_of(one, any_target=api):
                        self._places[place] = space

    @property
    def facts(self) -> tuple[Mapping[str, str], Mapping[tuple[str, int], str]]:
        """All that answers depend on."""
        return self._addresses, self._places

    def refuses(self, namespace: str, address: str, ports: tuple[int | None, ...]) -> bool:
        """Whether a Service of `namespace` may not have an endpoint, on any of `ports`."""
        if ":" in address:
            address = _spelled(address)
        owners = [self._addresses.get(address)]
        owners += [self._places.get((address, port)) for port in ports if port is not None]
        return any(owner is not None and owner != namespace for owner in owners)


def _addresses_of(spec: Mapping[str, Any]) -> Iterator[str]:
    for address in (spec.get("clusterIP"), *listed(spec.get("clusterIPs"))):
        if isinstance(address, str) and address not in ("", "None"):
            yield _spelled(address)


def _places_of(found: Object, *, any_target: bool) -> Iterator[tuple[str, int]]:
    """Pods of a slice, each with its ports; what else is in it may be anybody's machine."""
    ports = [mapping(port).get("port") for port in listed(found.get("ports"))]
    for endpoint in map(mapping, listed(found.get("endpoints"))):
        if any_target or mapping(endpoint.get("targetRef")).get("kind") == "Pod":
            for address in listed(endpoint.get("addresses")):
                if isinstance(address, str):
                    for port in ports:
                        if isinstance(port, int):
                            yield _spelled(address), port


def _spelled(address: str) -> str:
    """The one spelling of an address: IPv6 has many, and the API server keeps what it was sent."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address
