"""Backends of rules to addresses: Service, port, EndpointSlices, as kube-proxy reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from heim_controller.translation.addresses import joined, usable_address, usable_name
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.names import is_label
from heim_controller.translation.objects import Key, Object, Objects, labels_of, listed, mapping
from heim_controller.translation.reserved import Reserved
from heim_controller.translation.settings import Settings
from heim_controller.translation.sites import Site, Target

__all__ = ["MAX_NAMED", "SOLVER_LABEL", "SOLVER_PORT", "Resolved", "Services", "Unresolved"]

# What cert-manager labels the Service of an HTTP-01 solver with, and the port it listens on.
SOLVER_LABEL: Final = "acme.cert-manager.io/http01-solver"
SOLVER_PORT: Final = 8089

# Endpoints that the rules of one object name in all, 500 KB of the document: without a bound, one
# Ingress with thousands of paths to a large Service makes it too large for everybody.
MAX_NAMED: Final = 20_000
# The same for all ports of one Service, which are kept while translating.
_MAX_OF_SERVICE: Final = 50_000

_SERVICE_NAME: Final = "kubernetes.io/service-name"
# HTTP/1.1 is what is spoken to upstreams; these promise something else.
_UNSPOKEN: Final = frozenset(("kubernetes.io/h2c", "h2c", "http2", "grpc", "kubernetes.io/grpc"))
_TLS: Final = frozenset(("https", "kubernetes.io/wss", "wss"))


@dataclass(slots=True)
class Resolved:
    """A Service port that can be reached.

    `endpoints` are address and port of what is ready, sorted; empty for an ExternalName. `name` is
    the Service's (or the external) name with the port, `number` the port, `own_address` what its
    `clusterIP` says. `scheme` is http or https, as far as the port's appProtocol tells. `refused`
    shows an endpoint that was left out.
    """

    name: str
    scheme: str = "http"
    endpoints: tuple[str, ...] = ()
    number: int = 0
    own_address: object = None
    refused: str = ""
    targets: dict[tuple[str, bool], Target] = field(default_factory=dict)

    def target(self, scheme: str, *, by_name: bool) -> Target:
        """Its URLs, those of the endpoints or the Service's own; one object for equal questions."""
        key = (scheme, by_name)
        found = self.targets.get(key)
        if found is None:
            hosts = (self.name,) if by_name or not self.endpoints else self.endpoints
            found = self.targets[key] = Target([f"{scheme}://{host}" for host in hosts])
        return found

    def target_for(self, site: Site, scheme: str, *, by_name: bool) -> Target:
        """The same for one more rule of `site`, whose rules name `MAX_NAMED` endpoints at most.

        Beyond them the Service's own address balances; of a headless one there is none.
        """
        reason = "EndpointNotAllowed" if self.refused else ""
        if not by_name:
            site.named += len(self.endpoints)
            by_name = site.named > MAX_NAMED
            if by_name and not _balances(self.own_address):
                reason = "InvalidSpec"
        if by_name and reason == "EndpointNotAllowed":
            return Target(unavailable=f"{reason}: {self.name} leads to {self.refused}, too")
        if by_name and reason:
            message = f"its rules name more than {MAX_NAMED} endpoints of headless Services"
            return Target(unavailable=f"{reason}: {message}")
        return self.target(scheme, by_name=by_name)

    @property
    def stream_address(self) -> str:
        """Where TCP streams go: one address, with the port.

        The Service's own balances; a headless one has only its pods'.
        """
        own = self.own_address
        if isinstance(own, str) and _balances(own) and not self.refused:
            return joined(own, self.number)
        return (*self.endpoints, self.name)[0]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """Why a backend cannot be reached: a reason of `REASONS`, and a message."""

    reason: str
    message: str


class Services:
    """Looks up Service ports; each is worked out once per translation."""

    def __init__(self, objects: Objects, settings: Settings, *, external_names: bool) -> None:
        self._services = objects.services
        self._slices = objects.endpoint_slices
        # A name that ends in one of them may be a Service's.
        self.namespaces = frozenset(name for _, name in objects.namespaces)
        self._settings = settings
        self._reserved = Reserved(objects, settings.proxy[0])
        self._external_names = external_names
        self._by_service: dict[Key, list[Object]] | None = None
        self._ports: dict[Key, dict[object, Mapping[str, Any]]] = {}
        self._resolved: dict[tuple[str, object, object], Resolved | Unresolved] = {}

    def resolve(self, namespace: str, backend: Mapping[str, Any]) -> Resolved | Unresolved:
        """The target of an IngressBackend: ``{service: {name, port: {number | name}}}``."""
        service = backend.get("service")
        if service is None:
            what = "a resource" if "resource" in backend else "nothing"
            return Unresolved("UnsupportedBackend", f"the backend is {what}, not a Service")
        port = mapping(service.get("port"))
        return self.port(
            namespace, service.get("name"), port.get("number") or port.get("name") or ""
        )

    def port(self, namespace: str, name: object, wanted: object) -> Resolved | Unresolved:
        """The port `wanted`, by number or name, of the Service `name` in `namespace`."""
        key = (namespace, name, wanted)
        found = self._resolved.get(key)
        if found is None:
            found = self._resolved[key] = self._resolve(namespace, name, wanted)
        return found

    def is_solver(self, namespace: str, backend: Mapping[str, Any]) -> bool:
        """Whether a backend is a solver of cert-manager: the Service's label, and its port."""
        service = mapping(backend.get("service"))
        found = self._services.get((namespace, str(service.get("name"))))
        if found is None or labels_of(found).get(SOLVER_LABEL) != "true":
            return False
        spec, wanted = mapping(found.get("spec")), mapping(service.get("port"))
        key = (namespace, str(service.get("name")))
        port = self._port(key, spec, wanted.get("number") or wanted.get("name") or "")
        external = spec.get("type") == "ExternalName"
        return not external and not isinstance(port, Unresolved) and port["port"] == SOLVER_PORT

    def _resolve(self, namespace: str, name: object, wanted: object) -> Resolved | Unresolved:
        if not isinstance(name, str) or not is_label(name):
            return Unresolved("ServiceNotFound", f"{quoted(name)} is not the name of a Service")
        if not isinstance(wanted, (str, int)) or isinstance(wanted, bool):
            return Unresolved("PortNotFound", f"{quoted(wanted)} is not a port")
        service = self._services.get((namespace, name))
        if service is None:
            return Unresolved("ServiceNotFound", f"there is no Service {namespace}/{name}")
        spec = mapping(service.get("spec"))
        if spec.get("type") == "ExternalName":
            return self._external(namespace, name, spec, wanted)
        port = self._port((namespace, name), spec, wanted)
        if isinstance(port, Unresolved):
            return Unresolved(port.reason, f"Service {namespace}/{name} {port.message}")
        protocol = port.get("appProtocol")
        protocol = protocol.lower() if protocol else ""
        if protocol in _UNSPOKEN:
            message = f"Service {namespace}/{name} port {quoted(wanted)} speaks {quoted(protocol)}"
            return Unresolved("UnsupportedBackend", message)
        number = port["port"]
        if self._crowded((namespace, name), spec):
            message = f"Service {namespace}/{name} has too many ports and endpoints"
            return Unresolved("UnsupportedBackend", message)
        endpoints, refused = self._endpoints((namespace, name), port)
        if not endpoints:
            if refused:
                message = f"Service {namespace}/{name} has no endpoint but {refused}"
                return Unresolved("EndpointNotAllowed", message)
            message = f"Service {namespace}/{name} port {quoted(wanted)} has no ready endpoint"
            return Unresolved("NoEndpoints", message)
        return Resolved(
            name=f"{name}.{namespace}.svc:{number}",
            scheme="https" if protocol in _TLS else "http",
            endpoints=endpoints,
            number=number,
            own_address=spec.get("clusterIP"),
            refused=refused,
        )

    def _external(
        self, namespace: str, name: str, spec: Mapping[str, Any], wanted: str | int
    ) -> Resolved | Unresolved:
        reason = "ExternalNameNotAllowed"
        target = str(spec.get("externalName") or "").lower().removesuffix(".")
        if not self._external_names:
            return Unresolved(reason, f"Service {namespace}/{name} is an ExternalName")
        if not usable_name(target, self._settings.cluster_domain, self.namespaces):
            message = f"Service {namespace}/{name} leads to {quoted(target)}"
            return Unresolved(reason, message)
        port = self._port((namespace, name), spec, wanted)
        if isinstance(port, Unresolved):
            # Such a Service needs no ports; then the number is the one that is dialled.
            if not isinstance(wanted, int) or listed(spec.get("ports")):
                return Unresolved(port.reason, f"Service {namespace}/{name} {port.message}")
            port = {"port": wanted}
        number = port["port"]
        scheme = "https" if str(port.get("appProtocol") or "").lower() in _TLS else "http"
        return Resolved(name=f"{target}:{number}", scheme=scheme)

    def _port(
        self, key: Key, spec: Mapping[str, Any], wanted: object
    ) -> Mapping[str, Any] | Unresolved:
        """The TCP port of a Service by number or name."""
        known = self._ports.get(key)
        if known is None:
            known = self._ports[key] = {}
            for port in listed(spec.get("ports")):
                # The same number may be there for UDP too.
                if port.get("protocol") in ("TCP", None) and _is_port(port.get("port")):
                    known.setdefault(port["port"], port)
                    if port.get("name"):
                        known.setdefault(port["name"], port)
        found = known.get(wanted)
        if found is not None:
            return found
        offer = ", ".join(
            f"{port.get('port')} ({port['name']})" if port.get("name") else str(port.get("port"))
            for port in listed(spec.get("ports"))[:8]
        )
        message = f"has no TCP port {quoted(wanted)}; it has {offer or 'none'}"
        return Unresolved("PortNotFound", message)

    def _crowded(self, key: Key, spec: Mapping[str, Any]) -> bool:
        """Whether all endpoints of all its ports are more than anybody should write down."""
        count = sum(len(one["endpoints"] or ()) for one in self._slices_of(key))
        return len(listed(spec.get("ports"))) * count > _MAX_OF_SERVICE

    def _slices_of(self, key: Key) -> list[Object]:
        if self._by_service is None:
            self._by_service = _by_service(self._slices)
        return self._by_service.get(key, [])

    def _endpoints(self, key: Key, port: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
        """Ready addresses of a Service port, and one address that was refused, if any.

        Addresses that are refused count whatever their port and state: the Service's own name and
        address lead there too, or may in a moment.
        """
        moved = self._settings.address_map
        ready: list[str] = []
        leaving: list[str] = []
        refused = ""
        for found in self._slices_of(key):
            number = _slice_port(found, str(port.get("name") or ""))
            if found.get("addressType") == "FQDN":
                continue
            for endpoint in found["endpoints"] or ():
                fitting = _fitting(endpoint.get("conditions"), ready, leaving)
                for address in endpoint["addresses"]:
                    if not usable_address(address) or self._reserved.refuses(
                        key[0], address, (number, port["port"])
                    ):
                        refused = max(refused, quoted(address))
                    elif number is not None and fitting is not None:
                        fitting.append(joined(moved.get(address, address), number))
        # As kube-proxy does: who is on the way out still serves when there is nobody else.
        serving = ready or leaving
        return tuple(sorted(set(serving)) if len(serving) > 1 else serving), refused


def _fitting(conditions: Any, ready: list[str], leaving: list[str]) -> list[str] | None:
    """The list that an endpoint of these conditions belongs in, if any."""
    # What is not known to be unready is ready (types.go).
    if not conditions or conditions.get("ready") in (True, None):
        return ready
    return leaving if conditions.get("serving") and conditions.get("terminating") else None


def _by_service(slices: Mapping[Key, Object]) -> dict[Key, list[Object]]:
    found: dict[Key, list[Object]] = {}
    for (namespace, _), one in slices.items():
        name = labels_of(one).get(_SERVICE_NAME)
        if isinstance(name, str):
            found.setdefault((namespace, name), []).append(one)
    return found


def _slice_port(found: Object, name: str) -> int | None:
    for port in found.get("ports") or ():
        if (port.get("name") or "") == name and port.get("protocol") in ("TCP", None):
            number = port.get("port")
            return number if _is_port(number) else None
    return None


def _balances(own_address: object) -> bool:
    """Whether a Service's `clusterIP` is an address: connections to it are spread by themselves."""
    return isinstance(own_address, str) and usable_address(own_address)


def _is_port(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 < number < 65536
