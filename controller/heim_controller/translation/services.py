"""Backends of rules to addresses: Service, port, EndpointSlices, as kube-proxy reads them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from heim_config.addresses import usable_address
from heim_controller.translation.addresses import joined, usable_name
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.names import is_label
from heim_controller.translation.objects import Key, Object, Objects, labels_of, listed, mapping
from heim_controller.translation.reserved import Reserved
from heim_controller.translation.settings import Settings
from heim_controller.translation.sites import Site, Target
from heim_runtime.kept import Kept

__all__ = [
    "MAX_NAMED",
    "SOLVER_LABEL",
    "SOLVER_PORT",
    "Resolved",
    "ServiceState",
    "Services",
    "Unresolved",
]

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


class ServiceState:
    """A Service and its EndpointSlices as they are, and what was found out about them.

    What is found out depends on nothing else but the environment of the translation. `service` is
    None where there is none.
    """

    __slots__ = ("key", "ports", "resolved", "service", "slices")

    def __init__(self, key: Key, service: Object | None, slices: list[Object]) -> None:
        self.key = key
        self.service = service
        self.slices = slices
        self.ports: dict[object, Mapping[str, Any]] | None = None
        # By the port that was asked for, and its type: in Python 1 and True are equal keys.
        self.resolved: dict[tuple[type, object], Resolved | Unresolved] = {}

    def is_of(self, service: Object | None, slices: list[Object]) -> bool:
        """Whether it is the state of these very objects."""
        return (
            self.service is service
            and len(self.slices) == len(slices)
            and all(map(operator.is_, self.slices, slices))
        )


class Services:
    """Looks up Service ports; each is worked out once, and again when one of its objects changed.

    Attributes:
        namespaces: A name that ends in one of them may be a Service's.
        asked: Services that were looked at since `watch`.
    """

    def __init__(
        self,
        objects: Objects,
        settings: Settings,
        *,
        external_names: bool,
        reserved: Reserved | None = None,
        states: Kept[Key, ServiceState] | None = None,
        slices: Kept[Key, tuple[Object, Key | None]] | None = None,
    ) -> None:
        """Look at nothing yet.

        Args:
            objects: The cluster's.
            settings: The controller's.
            external_names: Whether ExternalName Services may be followed.
            reserved: Endpoints that not everybody may have, as `objects` say.
            states: What earlier translations found out with the same arguments.
            slices: The Service of each EndpointSlice, as earlier translations read it.
        """
        self._services = objects.services
        self._slices = objects.endpoint_slices
        self.namespaces = frozenset(name for _, name in objects.namespaces)
        self._settings = settings
        self._reserved = reserved or Reserved(objects, settings.proxy[0])
        self._external_names = external_names
        self._states: Kept[Key, ServiceState] = Kept() if states is None else states
        self._known_slices: Kept[Key, tuple[Object, Key | None]] = (
            Kept() if slices is None else slices
        )
        self._by_service: dict[Key, list[Object]] | None = None
        self.asked: dict[Key, ServiceState] = {}

    def watch(self) -> dict[Key, ServiceState]:
        """Note from now on which Services are looked at, in what is returned."""
        self.asked = {}
        return self.asked

    def unchanged(self, asked: Iterable[ServiceState]) -> bool:
        """Whether these Services are as they were."""
        now = self._states.now
        for one in asked:
            # Most were looked at for an object before.
            if now.get(one.key) is not one and self._state(one.key) is not one:
                return False
        return True

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
        if not isinstance(name, str) or not is_label(name):
            return Unresolved("ServiceNotFound", f"{quoted(name)} is not the name of a Service")
        state = self._state((namespace, name))
        key = (type(wanted), wanted)
        found = state.resolved.get(key)
        if found is None:
            found = state.resolved[key] = self._resolve(state, wanted)
        return found

    def is_solver(self, namespace: str, backend: Mapping[str, Any]) -> bool:
        """Whether a backend is a solver of cert-manager: the Service's label, and its port."""
        service = mapping(backend.get("service"))
        state = self._state((namespace, str(service.get("name"))))
        if state.service is None or labels_of(state.service).get(SOLVER_LABEL) != "true":
            return False
        wanted = mapping(service.get("port"))
        port = _port(state, wanted.get("number") or wanted.get("name") or "")
        external = mapping(state.service.get("spec")).get("type") == "ExternalName"
        return not external and not isinstance(port, Unresolved) and port["port"] == SOLVER_PORT

    def _state(self, key: Key) -> ServiceState:
        """A Service as it is; what was found out about it before is in there if nothing changed."""
        found = self._states.now.get(key)
        if found is None:
            service, slices = self._services.get(key), self._slices_of(key)
            found = self._states.before.get(key)
            if found is None or not found.is_of(service, slices):
                found = ServiceState(key, service, slices)
            self._states.now[key] = found
        self.asked[key] = found
        return found

    def _resolve(self, state: ServiceState, wanted: object) -> Resolved | Unresolved:
        namespace, name = state.key
        if not isinstance(wanted, (str, int)) or isinstance(wanted, bool):
            return Unresolved("PortNotFound", f"{quoted(wanted)} is not a port")
        if state.service is None:
            return Unresolved("ServiceNotFound", f"there is no Service {namespace}/{name}")
        spec = mapping(state.service.get("spec"))
        if spec.get("type") == "ExternalName":
            return self._external(state, spec, wanted)
        port = _port(state, wanted)
        if isinstance(port, Unresolved):
            return Unresolved(port.reason, f"Service {namespace}/{name} {port.message}")
        protocol = port.get("appProtocol")
        protocol = protocol.lower() if protocol else ""
        if protocol in _UNSPOKEN:
            message = f"Service {namespace}/{name} port {quoted(wanted)} speaks {quoted(protocol)}"
            return Unresolved("UnsupportedBackend", message)
        number = port["port"]
        if _crowded(state):
            message = f"Service {namespace}/{name} has too many ports and endpoints"
            return Unresolved("UnsupportedBackend", message)
        endpoints, refused = self._endpoints(state, port)
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
        self, state: ServiceState, spec: Mapping[str, Any], wanted: str | int
    ) -> Resolved | Unresolved:
        namespace, name = state.key
        reason = "ExternalNameNotAllowed"
        target = str(spec.get("externalName") or "").lower().removesuffix(".")
        if not self._external_names:
            return Unresolved(reason, f"Service {namespace}/{name} is an ExternalName")
        if not usable_name(target, self._settings.cluster_domain, self.namespaces):
            message = f"Service {namespace}/{name} leads to {quoted(target)}"
            return Unresolved(reason, message)
        port = _port(state, wanted)
        if isinstance(port, Unresolved):
            # Such a Service needs no ports; then the number is the one that is dialled.
            if not isinstance(wanted, int) or listed(spec.get("ports")):
                return Unresolved(port.reason, f"Service {namespace}/{name} {port.message}")
            port = {"port": wanted}
        number = port["port"]
        scheme = "https" if str(port.get("appProtocol") or "").lower() in _TLS else "http"
        return Resolved(name=f"{target}:{number}", scheme=scheme)

    def _slices_of(self, key: Key) -> list[Object]:
        if self._by_service is None:
            self._by_service = self._grouped()
        return self._by_service.get(key, [])

    def _grouped(self) -> dict[Key, list[Object]]:
        """All EndpointSlices by their Service."""
        grouped: dict[Key, list[Object]] = {}
        before, now = self._known_slices.before, self._known_slices.now
        for key, one in self._slices.items():
            known = before.get(key)
            if known is None or known[0] is not one:
                name = labels_of(one).get(_SERVICE_NAME)
                known = (one, (key[0], name) if isinstance(name, str) else None)
            now[key] = known
            service = known[1]
            if service is not None:
                grouped.setdefault(service, []).append(one)
        return grouped

    def _endpoints(
        self, state: ServiceState, port: Mapping[str, Any]
    ) -> tuple[tuple[str, ...], str]:
        """Ready addresses of a Service port, and one address that was refused, if any.

        Addresses that are refused count whatever their port and state: the Service's own name and
        address lead there too, or may in a moment.
        """
        moved = self._settings.address_map
        ready: list[str] = []
        leaving: list[str] = []
        refused = ""
        for found in state.slices:
            number = _slice_port(found, str(port.get("name") or ""))
            if found.get("addressType") == "FQDN":
                continue
            for endpoint in found["endpoints"] or ():
                fitting = _fitting(endpoint.get("conditions"), ready, leaving)
                for address in endpoint["addresses"]:
                    if not usable_address(address) or self._reserved.refuses(
                        state.key[0], address, (number, port["port"])
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


def _port(state: ServiceState, wanted: object) -> Mapping[str, Any] | Unresolved:
    """The TCP port of a Service by number or name."""
    spec = mapping((state.service or {}).get("spec"))
    known = state.ports
    if known is None:
        known = state.ports = {}
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


def _crowded(state: ServiceState) -> bool:
    """Whether all endpoints of all its ports are more than anybody should write down."""
    ports = listed(mapping((state.service or {}).get("spec")).get("ports"))
    return len(ports) * sum(len(one["endpoints"] or ()) for one in state.slices) > _MAX_OF_SERVICE


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
