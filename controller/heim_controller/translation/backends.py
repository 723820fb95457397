"""One Backend object to a site: the same as a backend of the configuration, with Services.

A Backend that contradicts itself, or of which something cannot be read, answers 503 as a whole: its
permissions were written to belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from heim_config.addresses import usable_address
from heim_config.backends import METHODS
from heim_config.hosts import parse_tcp, parse_upstream
from heim_config.paths import parse_pattern
from heim_config.units import format_duration, parse_duration
from heim_controller.translation.addresses import usable_name
from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.hosts import CATCH_ALL, canonical_host
from heim_controller.translation.names import is_label, own_name
from heim_controller.translation.objects import (
    Key,
    Object,
    Ref,
    generation,
    listed,
    mapping,
    seniority,
    text,
)
from heim_controller.translation.paths import canonical_path, identity
from heim_controller.translation.services import Unresolved
from heim_controller.translation.sites import Rule, Site, Target

__all__ = ["BackendReader"]

_DIALECTS: Final = ("heimdallr", "forwarded")
_TIMEOUTS: Final = {"connect": "connect", "firstByte": "first_byte", "idle": "idle"}


class _Unusable(Exception):  # noqa: N818 - reads as what it is at the raise
    """Something that closes the Backend: a reason of `REASONS`, a message, the place."""

    def __init__(self, message: str, field: str, reason: str = "InvalidSpec") -> None:
        super().__init__(message)
        self.field = field
        self.reason = reason


class BackendReader:
    """Reads Backends, one by one.

    Args:
        context: The translation's.
        agents: The accepted Agents: key to targets.
    """

    def __init__(self, context: Context, agents: Mapping[Key, frozenset[str]]) -> None:
        self._context = context
        self._policy = context.policy
        self._say = context.findings.add
        self._agents = agents

    def read(self, key: Key, found: Object) -> Site | None:
        """What a Backend asks for; None when it has no usable name or host."""
        ref = Ref("Backend", *key)
        if not is_label(key[0]) or not is_label(key[1]):
            self._say(ref, "InvalidObject", "names hold lower-case letters, digits and hyphens")
            return None
        spec = mapping(found.get("spec"))
        host = self._context.host(ref, spec.get("host") or self._own_host(key), "spec.host")
        if host is None or host == CATCH_ALL:
            return None
        age = seniority(found, key, "Backend")
        site = Site(ref, age, own_name(*key), generation(found), hosts={host: None})
        try:
            self._read(site, spec, host)
        except _Unusable as error:
            self._say(ref, error.reason, str(error), field=error.field)
            self._close(site, spec, host, f"{error.reason}: {error}")
        return site

    def _own_host(self, key: Key) -> str:
        return f"{key[1]}.{self._policy.domain}"

    def _read(self, site: Site, spec: Mapping[str, Any], host: str) -> None:
        self._auth(site, spec)
        site.settings = {**(site.settings or {}), **_further(spec)}
        tls = mapping(spec.get("upstreamTLS"))
        if tls.get("insecure") is True:
            site.upstream_tls = {"insecure": True}
        elif tls.get("serverName") is not None:
            name = canonical_host(text(tls["serverName"]))
            if name is None or name.startswith("*"):
                raise _Unusable("is not a host", "spec.upstreamTLS.serverName")
            site.upstream_tls = {"server_name": name}
        for position, route in enumerate(listed(spec.get("http"))):
            site.add(self._route(site, host, position, mapping(route)))
        if isinstance(spec.get("tcp"), Mapping):
            site.tcp = self._streams(site, mapping(spec["tcp"]))
        if not site.rules and site.tcp is None:
            raise _Unusable("has neither http nor tcp", "spec")
        site.permissions = _permissions(listed(spec.get("permissions")))
        if site.permissions and not site.rules:
            raise _Unusable("mean nothing without http", "spec.permissions")

    def _auth(self, site: Site, spec: Mapping[str, Any]) -> None:
        auth = mapping(spec.get("auth"))
        mode = auth.get("mode", "Required")
        if mode not in ("Required", "None"):
            raise _Unusable(f"{quoted(mode)} is not Required or None", "spec.auth.mode")
        if mode == "None":
            if not self._policy.may_be_public(site.namespace):
                message = f"namespace {site.namespace} is not among those of ingress.allowPublic"
                raise _Unusable(message, "spec.auth.mode", "PublicNotAllowed")
            if spec.get("permissions") or spec.get("tcp"):
                message = "None needs a Backend without permissions and without tcp"
                raise _Unusable(message, "spec.auth.mode")
            site.public = True
        age = auth.get("maxSessionAge")
        if age is not None and not site.public:
            site.settings = {"max_session_age": _duration(age, "spec.auth.maxSessionAge")}

    def _route(self, site: Site, host: str, position: int, route: Mapping[str, Any]) -> Rule:
        field = f"spec.http[{position}]"
        kind = route.get("pathType", "Prefix")
        path = canonical_path(text(route.get("path")))
        if path is None or kind not in ("Prefix", "Exact"):
            message = f"{quoted(route.get('path'))} ({quoted(kind)}) cannot be matched"
            raise _Unusable(message, field, "InvalidPath")
        match = "exact" if kind == "Exact" else "prefix"
        if match == "prefix" and len(path) > 1:
            path = path.removesuffix("/")
        strip = route.get("stripPrefix") is True
        if strip and match == "exact":
            raise _Unusable("stripPrefix needs pathType Prefix", field)
        target = self._target(site, mapping(route.get("upstream")), f"{field}.upstream")
        same = identity(path, exact=match == "exact")
        return Rule(host, path, match, same, target, (0, position), strip)

    def _target(self, site: Site, upstream: Mapping[str, Any], field: str) -> Target:
        match _only(upstream, ("service", "url", "agent"), field):
            case "service":
                return self._service(site, mapping(upstream["service"]), field)
            case "url":
                return Target([self._url(site, upstream["url"], field)])
            case _:
                agent = mapping(upstream["agent"])
                scheme = str(agent.get("scheme", "http")).lower()
                if scheme not in ("http", "https"):
                    raise _Unusable(f"{quoted(scheme)} is not HTTP or HTTPS", f"{field}.agent")
                if scheme == "https" and not site.upstream_tls:
                    message = "HTTPS through an Agent needs spec.upstreamTLS.serverName"
                    raise _Unusable(message, f"{field}.agent")
                found = self._agent(site, agent, f"{field}.agent")
                if isinstance(found, Unresolved):
                    return Target(unavailable=f"{found.reason}: {found.message}")
                return Target(agent=(*found, scheme))

    def _service(self, site: Site, service: Mapping[str, Any], field: str) -> Target:
        found = self._context.services.port(
            site.namespace, service.get("name"), service.get("port", "")
        )
        if isinstance(found, Unresolved):
            self._say(site.ref, found.reason, found.message, field=field)
            return Target(unavailable=f"{found.reason}: {found.message}")
        if found.refused:
            message = f"endpoint {found.refused} is left out"
            self._say(site.ref, "EndpointNotAllowed", message, field=field)
        scheme = str(service.get("scheme") or found.scheme).lower()
        if scheme not in ("http", "https"):
            raise _Unusable(f"{quoted(scheme)} is not HTTP or HTTPS", f"{field}.service.scheme")
        by_name = scheme == "https" and not site.upstream_tls
        target = found.target_for(site, scheme, by_name=by_name)
        if target.unavailable:
            # Once for all of its rules.
            reason, _, message = target.unavailable.partition(": ")
            self._say(site.ref, reason, message)
        return target

    def _agent(
        self, site: Site, agent: Mapping[str, Any], field: str
    ) -> tuple[str, str] | Unresolved:
        key = (site.namespace, text(agent.get("name")))
        target = text(agent.get("target"))
        known = self._agents.get(key)
        missing: Unresolved | None = None
        if known is None:
            missing = Unresolved("AgentNotFound", f"there is no Agent {quoted('/'.join(key))}")
        elif target not in known:
            offer = ", ".join(sorted(known))
            message = f"Agent {key[0]}/{key[1]} has no target {quoted(target)}; it has {offer}"
            missing = Unresolved("TargetNotFound", message)
        if missing is not None:
            self._say(site.ref, missing.reason, missing.message, field=field)
            return missing
        return own_name(*key), target

    def _url(self, site: Site, value: object, field: str) -> str:
        try:
            upstream = parse_upstream(value)
        except ValueError as error:
            raise _Unusable(_words(error), f"{field}.url") from None
        self._check_address(site, upstream.scheme, upstream.host, f"{field}.url")
        return str(upstream)

    def _streams(self, site: Site, tcp: Mapping[str, Any]) -> dict[str, Any]:
        field = "spec.tcp"
        upstream = mapping(tcp.get("upstream"))
        found: dict[str, Any] = {}
        for key, name in (("idle", "idle"), ("maxDuration", "max_duration")):
            if tcp.get(key) is not None:
                found[name] = _duration(tcp[key], f"{field}.{key}")
        if len(found) == 2 and parse_duration(found["idle"]) > parse_duration(
            found["max_duration"]
        ):
            raise _Unusable("is longer than maxDuration", f"{field}.idle")
        match _only(upstream, ("service", "url", "agent"), f"{field}.upstream"):
            case "service":
                service = mapping(upstream["service"])
                port = self._context.services.port(
                    site.namespace, service.get("name"), service.get("port", "")
                )
                if isinstance(port, Unresolved):
                    raise _Unusable(port.message, f"{field}.upstream", port.reason)
                found["upstream"] = port.stream_address
            case "url":
                found["upstream"] = self._tcp_address(site, upstream["url"], f"{field}.upstream")
            case _:
                agent = self._agent(site, mapping(upstream["agent"]), f"{field}.upstream.agent")
                if isinstance(agent, Unresolved):
                    raise _Unusable(agent.message, f"{field}.upstream.agent", agent.reason)
                found["agent"], found["target"] = agent
        return found

    def _tcp_address(self, site: Site, value: object, field: str) -> str:
        try:
            address = parse_tcp(text(value).removeprefix("tcp://"))
        except ValueError as error:
            raise _Unusable(_words(error), f"{field}.url") from None
        self._check_address(site, address.scheme, address.host, f"{field}.url")
        return str(address)

    def _check_address(self, site: Site, scheme: str, host: str, field: str) -> None:
        """Addresses are for administrators, and not even they mean the proxy's own machine."""
        reason = "AddressNotAllowed"
        if site.namespace != self._policy.namespace and not self._policy.external_names:
            message = f"only Backends of namespace {self._policy.namespace} may name addresses"
            raise _Unusable(message, field, reason)
        cluster = self._context.settings.cluster_domain
        known = self._context.services.namespaces
        if scheme == "unix" or not (usable_address(host) or usable_name(host, cluster, known)):
            raise _Unusable(f"{quoted(host)} may not be dialled", field, reason)

    def _close(self, site: Site, spec: Mapping[str, Any], host: str, why: str) -> None:
        """Make everything of it answer 503, as far as its paths can be told."""
        site.closed = why
        site.public = False
        site.tcp, site.permissions, site.rules = None, [], []
        site.settings, site.upstream_tls = None, None
        site.closures = ((host, "/"),)
        for position, route in enumerate(listed(spec.get("http"))):
            path = canonical_path(text(mapping(route).get("path")))
            if path is None:
                continue
            exact = mapping(route).get("pathType") == "Exact"
            match = "exact" if exact else "prefix"
            if not exact and len(path) > 1:
                path = path.removesuffix("/")
            same = identity(path, exact=exact)
            target = Target(unavailable=why)
            site.add(Rule(host, path, match, same, target, (0, position)))


def _further(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that mean the same as in the configuration."""
    found: dict[str, Any] = {}
    timeouts = {
        name: _duration(value, f"spec.timeouts.{key}")
        for key, name in _TIMEOUTS.items()
        if (value := mapping(spec.get("timeouts")).get(key)) is not None
    }
    if timeouts:
        found["timeouts"] = timeouts
    headers = spec.get("identityHeaders")
    if headers is not None:
        if not all(one in _DIALECTS for one in listed(headers)):
            raise _Unusable(f"are among {', '.join(_DIALECTS)}", "spec.identityHeaders")
        found["identity_headers"] = list(dict.fromkeys(listed(headers)))
    return found


def _permissions(found: list[Any]) -> list[dict[str, Any]]:
    permissions: dict[str, dict[str, Any]] = {}
    for position, one in enumerate(found):
        field = f"spec.permissions[{position}]"
        name = mapping(one).get("name")
        if not is_label(name) or name in permissions:
            raise _Unusable(f"{quoted(name)} is not a name of its own", f"{field}.name")
        methods = [str(word).lower() for word in listed(mapping(one).get("methods"))] or ["any"]
        unknown = [word for word in methods if word not in METHODS]
        if unknown:
            raise _Unusable(f"{quoted(unknown[0])} is not a method", f"{field}.methods")
        patterns = [_pattern(path, f"{field}.paths") for path in listed(mapping(one).get("paths"))]
        if not patterns:
            raise _Unusable("names no path", f"{field}.paths")
        locations = [{method: pattern} for method in methods for pattern in patterns]
        permissions[text(name)] = {"name": name, "locations": locations}
    return [permissions[name] for name in sorted(permissions)]


def _pattern(value: object, field: str) -> str:
    try:
        pattern = parse_pattern(value)
    except ValueError as error:
        raise _Unusable(_words(error), field) from None
    # What the grammar lets pass must also be a path that a request can have.
    if canonical_path(pattern.removeprefix("=").replace("*", "x")) is None:
        raise _Unusable(f"{quoted(value)} can be no request's path", field)
    return pattern


def _only(upstream: Mapping[str, Any], kinds: tuple[str, ...], field: str) -> str:
    given = [kind for kind in kinds if upstream.get(kind) is not None]
    if len(given) != 1:
        raise _Unusable(f"needs exactly one of {', '.join(kinds)}", field)
    return given[0]


def _duration(value: object, field: str) -> str:
    try:
        return format_duration(parse_duration(value))
    except ValueError as error:
        raise _Unusable(_words(error), field) from None


def _words(error: ValueError) -> str:
    """What the configuration's own checks say."""
    context = getattr(error, "context", None) or {}
    return str(context.get("message", error))
