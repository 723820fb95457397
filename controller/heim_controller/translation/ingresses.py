"""One Ingress to a site: hosts, paths, targets, options.

Whatever of an Ingress cannot be served stays a rule that answers 503: dropped, its requests would
fall to a broader rule, which may be somebody else's and let other people in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from heim_controller.translation import acme
from heim_controller.translation.annotations import NONE, PREFIX, Options, read_options
from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.hosts import CATCH_ALL
from heim_controller.translation.names import ingress_name, is_object_key
from heim_controller.translation.nginx_annotations import PREFIX as NGINX
from heim_controller.translation.nginx_annotations import read_nginx
from heim_controller.translation.objects import (
    Key,
    Object,
    Ref,
    annotations_of,
    generation,
    listed,
    mapping,
    seniority,
    text,
)
from heim_controller.translation.paths import (
    ACME_PREFIX,
    canonical_path,
    closed_part,
    identity,
    strip_suffix,
)
from heim_controller.translation.services import Resolved, Unresolved
from heim_controller.translation.sites import ALL, Challenge, Rule, Site, Target, TlsEntry

__all__ = ["IngressReader"]

_TYPES: Final = ("Prefix", "Exact", "ImplementationSpecific", None)
_DEFAULT_PLACE: Final = (-1, -1)
_PREFIXES: Final = (PREFIX, NGINX)


class IngressReader:
    """Reads Ingresses of our classes, one by one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._policy = context.policy
        self._say = context.findings.add
        # Many Ingresses of a namespace carry the same annotations.
        self._read_before: dict[tuple[str, ...], Options] = {}

    def read(self, key: Key, found: Object) -> Site | None:
        """What an Ingress asks for; None when not even its name can be."""
        ref = Ref("Ingress", *key)
        if not is_object_key(*key):
            self._say(ref, "InvalidObject", f"{quoted(f'{key[0]}/{key[1]}')} is no object's name")
            return None
        spec = mapping(found.get("spec"))
        age = seniority(found, key, "Ingress")
        site = Site(ref, age, ingress_name(*key), generation(found))
        self._options(site, annotations_of(found), spec)
        site.tls = self._tls(spec)
        if site.options.tcp:
            self._streams(site, spec)
        else:
            self._default(site, spec)
            for position, rule in enumerate(listed(spec.get("rules"))):
                self._rule(site, position, mapping(rule))
            site.settle()
        if not site.public and not site.closed:
            self._access(site)
        return site

    def _options(self, site: Site, notes: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
        policy, namespace = self._policy, site.ref.namespace
        relevant = [key for key in notes if key.startswith(_PREFIXES)]
        options = self._ours(notes, relevant, namespace) if relevant else NONE
        allowed = policy.may_be_public(namespace)
        wanted = options.auth == "none" or (
            options.auth is None
            and policy.default_public
            and allowed
            and not (options.roles or options.tcp)
        )
        if any(key.startswith(NGINX) for key in relevant):
            paths = [
                text(mapping(path).get("path")) or "/"
                for rule in listed(spec.get("rules"))
                for path in listed(mapping(mapping(rule).get("http")).get("paths"))
            ]
            nginx = read_nginx(notes, options, paths, public=wanted)
            options = nginx.options
            for reason, message in nginx.findings:
                self._say(site.ref, reason, message, field="metadata.annotations")
        if wanted and not allowed:
            message = f"namespace {site.namespace} is not among those of ingress.allowPublic"
            options = options.closing("PublicNotAllowed", message)
        if options.closed is not None:
            reason, message = options.closed
            self._say(site.ref, reason, message, field="metadata.annotations")
            site.closed = f"{reason}: {message}"
        site.options = options
        site.public = wanted and not site.closed
        if options is not NONE:
            site.settings = _settings(options, public=site.public)
        if options.insecure:
            site.upstream_tls = {"insecure": True}
        elif options.server_name is not None:
            site.upstream_tls = {"server_name": options.server_name}

    def _ours(self, notes: Mapping[str, Any], relevant: list[str], namespace: str) -> Options:
        """What our own annotations say; read once for each way of writing them."""
        key = (namespace, *relevant, *[str(notes[one]) for one in relevant])
        options = self._read_before.get(key)
        if options is None:
            options = self._read_before[key] = read_options(notes, namespace)
        return options

    def _rule(self, site: Site, position: int, rule: Mapping[str, Any]) -> None:
        place = f"spec.rules[{position}]"
        paths = listed(mapping(rule.get("http")).get("paths"))
        ordinary = [
            (number, path)
            for number, path in enumerate(paths)
            if not text(path.get("path")).startswith(ACME_PREFIX)
            or not self._challenge(site, rule, path, (position, number))
        ]
        if paths and not ordinary:
            # Solvers alone name no host: cert-manager's come and go.
            return
        host = self._context.host(site.ref, rule.get("host"), f"{place}.host")
        if host is None or (host == CATCH_ALL and not self._may_catch_all(site, place)):
            return
        site.hosts[host] = None
        if not paths and site.fallback is None:
            self._say(site.ref, "NoBackend", f"{host} leads nowhere", field=place)
            site.closures += ((host, "/"),)
        for number, path in ordinary:
            self._path(site, host, (position, number), path)

    def _path(self, site: Site, host: str, place: tuple[int, int], path: Mapping[str, Any]) -> None:
        written, kind = text(path.get("path")), path.get("pathType")
        prefix = strip_suffix(written) if site.options.strip_regex else None
        plain = written if prefix is None else prefix
        exact = kind == "Exact"
        canonical = canonical_path(plain if plain or exact else "/")
        if canonical is None or kind not in _TYPES:
            message = f"{quoted(written)} ({quoted(kind)}) cannot be matched"
            self._say(site.ref, "InvalidPath", message, field=_field(place))
            site.closures += ((host, closed_part(written)),)
            return
        if not exact and len(canonical) > 1:
            canonical = canonical.removesuffix("/")
        match = "exact" if exact else "prefix"
        target = self._target(site, mapping(path.get("backend")), place)
        if site.options.strip_regex and prefix is None and not site.closed:
            message = "rewrite-target /$2 needs a path like /app(/|$)(.*)"
            self._say(site.ref, "RoutingNotKept", message, field=_field(place))
            target = Target(unavailable=f"RoutingNotKept: {message}")
        same = identity(canonical, exact=exact)
        rule = Rule(host, canonical, match, same, target, place, prefix is not None)
        site.add(rule, longer=not exact and len(plain) > len(canonical))

    def _target(self, site: Site, backend: Mapping[str, Any], place: tuple[int, int]) -> Target:
        if site.closed:
            return Target(unavailable=site.closed)
        found = self._context.services.resolve(site.ref.namespace, backend)
        if isinstance(found, Unresolved):
            self._say(site.ref, found.reason, found.message, field=_field(place))
            return Target(unavailable=f"{found.reason}: {found.message}")
        if found.refused:
            message = f"endpoint {found.refused} is left out"
            self._say(site.ref, "EndpointNotAllowed", message, field=_field(place))
        options = site.options
        scheme = options.scheme or found.scheme
        # Over https the Service's name, unless another one is given: it is what certificates of
        # Services are for, and those of pods hardly ever name addresses.
        by_name = options.upstream_service or (scheme == "https" and not site.upstream_tls)
        target = found.target_for(site, scheme, by_name=by_name)
        if target.unavailable:
            # Once for all of its rules.
            reason, _, message = target.unavailable.partition(": ")
            self._say(site.ref, reason, message)
        return target

    def _default(self, site: Site, spec: Mapping[str, Any]) -> None:
        """Where requests go that no rule covers: of its hosts, or without rules of any host."""
        backend = spec.get("defaultBackend")
        if not isinstance(backend, Mapping):
            return
        if not listed(spec.get("rules")):
            if not self._may_catch_all(site, "spec.defaultBackend"):
                return
            site.hosts[CATCH_ALL] = None
        site.fallback = self._target(site, backend, _DEFAULT_PLACE)

    def _may_catch_all(self, site: Site, field: str) -> bool:
        """A host that is anybody's needs the Proxy's permission, and nobody can sign in on it."""
        if self._policy.catch_all and site.public:
            return True
        why = (
            "people can sign in on named hosts only"
            if self._policy.catch_all
            else "the Proxy does not allow it"
        )
        self._say(site.ref, "CatchAllNotAllowed", why, field=field)
        return False

    def _challenge(
        self, site: Site, rule: Mapping[str, Any], path: Mapping[str, Any], place: tuple[int, int]
    ) -> bool:
        """Whether a path is a challenge's, which is then noted; solvers are not ordinary rules."""
        found = acme.answer(self._context.services, site.namespace, path)
        if found is None:
            return False
        host = self._context.canonical(rule.get("host"))
        if host is not None and found.upstreams:
            one = Challenge(host, found.token, found.upstreams, _field(place))
            site.challenges += (one,)
        return True

    def _streams(self, site: Site, spec: Mapping[str, Any]) -> None:
        """An Ingress with heim.dev/tcp: every rule leads to one and the same Service port."""
        found: dict[int, Resolved] = {}
        for position, rule in enumerate(listed(spec.get("rules"))):
            place = f"spec.rules[{position}]"
            host = self._context.host(site.ref, mapping(rule).get("host"), f"{place}.host")
            if host is None:
                continue
            if host == CATCH_ALL:
                self._say(site.ref, "CatchAllNotAllowed", "streams need a host", field=place)
                continue
            site.hosts[host] = None
            paths = listed(mapping(mapping(rule).get("http")).get("paths"))
            for number, path in enumerate(paths):
                port = self._stream(site, mapping(path), (position, number))
                if port is not None:
                    found[id(port)] = port
        if len(found) > 1:
            message = "heim.dev/tcp: all rules of an Ingress lead to one Service port"
            self._close(site, "InvalidAnnotation", message)
        elif not found and site.hosts:
            self._close(site, "NoBackend", "heim.dev/tcp: no rule names a Service")
        for port in found.values():
            site.tcp = {"upstream": port.stream_address}
            if site.options.idle_timeout is not None:
                site.tcp["idle"] = site.options.idle_timeout
        if site.closed:
            site.tcp = None
            site.closures = tuple((host, "/") for host in site.hosts)

    def _stream(
        self, site: Site, path: Mapping[str, Any], place: tuple[int, int]
    ) -> Resolved | None:
        if text(path.get("path")) not in ("", "/"):
            self._close(site, "InvalidAnnotation", "heim.dev/tcp: streams have no path")
        port = self._context.services.resolve(site.namespace, mapping(path.get("backend")))
        if isinstance(port, Unresolved):
            self._close(site, port.reason, port.message, _field(place))
            return None
        return port

    def _close(self, site: Site, reason: str, message: str, field: str = "") -> None:
        if not site.closed:
            self._say(site.ref, reason, message, field=field or "metadata.annotations")
            site.closed = f"{reason}: {message}"

    def _access(self, site: Site) -> None:
        named = site.options.roles
        site.roles = self._policy.default_roles if named is None else named
        if not site.roles and site.hosts:
            self._say(site.ref, "NoRoles", "nobody may use it: add the annotation heim.dev/roles")
        if site.tcp is None:
            site.permissions = [{"name": ALL, "locations": [{"any": "/"}]}]

    def _tls(self, spec: Mapping[str, Any]) -> list[TlsEntry]:
        canonical = self._context.canonical
        found: list[TlsEntry] = []
        for position, entry in enumerate(listed(spec.get("tls"))):
            hosts = [canonical(one) for one in listed(entry.get("hosts"))]
            named = tuple([host for host in hosts if host is not None])
            found.append(TlsEntry(text(entry.get("secretName")), named, f"spec.tls[{position}]"))
        return found


def _field(place: tuple[int, int]) -> str:
    if place == _DEFAULT_PLACE:
        return "spec.defaultBackend"
    return f"spec.rules[{place[0]}].http.paths[{place[1]}]"


def _settings(options: Options, *, public: bool) -> dict[str, Any]:
    """The keys of the backend that options set; those that would mean nothing are left out."""
    found: dict[str, Any] = {}
    timeouts = {"connect": options.connect_timeout}
    if not options.tcp:
        timeouts |= {"first_byte": options.read_timeout, "idle": options.idle_timeout}
        if options.identity_headers is not None:
            found["identity_headers"] = list(options.identity_headers)
    given = {key: value for key, value in timeouts.items() if value is not None}
    if given:
        found["timeouts"] = given
    if options.max_session_age is not None and not public:
        found["max_session_age"] = options.max_session_age
    return found
