"""One configuration, understood: everything a request needs, immutable, swapped by one assignment.

`build` turns a validated configuration into a snapshot or fails as a whole; nothing of it is in
force before all of it is. Requests read the snapshot once and keep it until they are done.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from heim_config.access import Member
from heim_config.access import Role as RoleConfig
from heim_config.backends import Backend as BackendConfig
from heim_config.hosts import Upstream
from heim_config.model import Config
from heim_config.routes import HttpRoute
from heim_config.tunnel import TcpService
from heim_proxy.access.applications import Application, entrance
from heim_proxy.access.members import (
    DomainMember,
    GroupMember,
    IssuerMember,
    MemberSpec,
    ServiceAccountMember,
    UserMember,
)
from heim_proxy.access.policy import Allow, Policy
from heim_proxy.access.roles import BindingSpec, LocationSpec, PermissionSpec, RoleSpec
from heim_proxy.access.subject import Subject
from heim_proxy.identity.assertion import IdentityHeaders
from heim_proxy.identity.providers import Provider
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.routing import (
    ANY_HOST,
    CHALLENGE_PREFIX,
    AgentGrant,
    Backend,
    Challenges,
    Cors,
    Endpoint,
    ForwardPath,
    PathMatch,
    Route,
    RouteTable,
    TcpTarget,
    Timeouts,
    UpstreamTls,
)
from heim_proxy.target import BadTarget, canonicalise

__all__ = ["Snapshot", "SnapshotError", "build", "policy_of", "routes_of"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# Who answers is a pod beside us or a program on this machine, and an authority waits for 10 s.
_CHALLENGE_BACKEND: Final = Backend(
    "acme-challenge",
    public=True,
    allow_http=True,
    dialects=(),
    upgrades=frozenset(),
    timeouts=Timeouts(connect=3.0, first_byte=10.0, idle=10.0),
    challenge=True,
)


class SnapshotError(Exception):
    """A valid configuration that cannot be put in force; the message names the key and the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything a request needs. `endpoints` maps each http upstream to its TLS context, if any.

    `tcp` are the targets of TCP streams by backend name; `tcp_for` finds them by host. `agents` are
    those that may exist, by name. `groups` are those that configuration names: nobody behind the
    proxy hears of others.
    """

    generation: int
    config: Config
    routes: RouteTable
    # Let through on plain http before any route, and on no other way.
    challenges: Challenges
    policy: Policy
    backends: Mapping[str, Backend]
    # The decision for each public backend: made here once, so that it is policy and not a gap.
    public: Mapping[str, Allow]
    endpoints: Mapping[Endpoint, ssl.SSLContext | None]
    tcp: Mapping[str, TcpTarget]
    agents: Mapping[str, AgentGrant]
    groups: frozenset[str]
    identity: IdentityHeaders
    signing_keys: SigningKeys
    providers: tuple[Provider, ...]
    trusted_proxies: tuple[Network, ...]
    login_host: str
    login_url: str

    def public_url(self, host: str) -> str:
        """The origin people use for a host: https, with the port when it is not 443."""
        return self.config.public_url(host)

    def backend_for(self, host: str) -> str | None:
        """The name of the backend that a canonical `host` belongs to; None when it is nobody's.

        A host with tcp alone has one too: without, it would be taken for the login host.
        """
        routes = self.routes.lookup(host)
        # What answers for any host makes no host ours: nobody may be sent there with a ticket.
        if routes is None or routes.host == ANY_HOST:
            return None
        route = routes.match(b"/") or next(iter((*routes.prefixes, *routes.exact.values())), None)
        owner = routes.tcp if route is None else route
        return None if owner is None else owner.backend.name

    def tcp_for(self, host: str) -> TcpTarget | None:
        """Where TCP streams to a canonical `host` go; None when it is unknown or has no tcp."""
        routes = self.routes.lookup(host)
        return None if routes is None else routes.tcp

    def reachable_tcp(self, subject: Subject) -> tuple[tuple[str, str], ...]:
        """The name and host of each backend that `subject` may connect to over tcp, by name.

        The host is the first exact one, or a wildcard where there is no other. As on the start
        page, what only a break-glass role opens is not offered.
        """
        grants = self.policy.grants(subject)
        found: list[tuple[str, str]] = []
        for backend in self.config.backends:
            decision = grants.connect(backend.name)
            if isinstance(decision, Allow) and not decision.break_glass:
                hosts = self.config.backend_hosts(backend)
                host = next((host for host in hosts if not host.startswith("*.")), hosts[0])
                found.append((backend.name, host))
        return tuple(sorted(found))

    def max_session_age(self, backend: str) -> float | None:
        """How long ago people may have signed in to use a backend, in seconds; None for any.

        The least of those that share a host with it: a login is for a host, and one that is too old
        for what somebody wants there would lead in a circle.
        """
        found = next((one for one in self.config.backends if one.name == backend), None)
        if found is None:
            return None
        sharing = {self.backends[backend]}
        for host in self.config.backend_hosts(found):
            table = self.routes.lookup(host)
            if table is not None:
                sharing |= {route.backend for route in (*table.prefixes, *table.exact.values())}
        ages = (one.max_session_age for one in sharing if one.max_session_age is not None)
        return min(ages, default=None)

    def applications(self, subject: Subject) -> tuple[Application, ...]:
        """What `subject` may open, by name: no public backends, none on wildcards only."""
        grants = self.policy.grants(subject)
        found: list[Application] = []
        for backend in self.config.backends:
            hosts = self.config.backend_hosts(backend)
            host = next((host for host in hosts if not host.startswith("*.")), None)
            served = host is not None and backend.http and not backend.public
            routes = self.routes.lookup(host) if host is not None and served else None
            path = None if routes is None else entrance(grants, backend.name, routes)
            if host is not None and path is not None:
                url = f"{self.public_url(host)}{path.decode('ascii')}"
                found.append(Application(backend.name, url))
        return tuple(sorted(found, key=lambda one: one.name))


def build(
    config: Config,
    *,
    generation: int,
    signing_keys: SigningKeys,
    providers: tuple[Provider, ...],
) -> Snapshot:
    """Put a configuration together.

    Raises:
        SnapshotError: When a path, a policy or a CA file of it cannot be used.
    """
    backends = {backend.name: _backend(backend) for backend in config.backends}
    targets = dict(_targets(config, backends))
    routes = _table(config, backends, targets)
    login_url = config.public_url(config.login_host)
    groups = frozenset(
        member.group for role in config.roles for member in role.members if member.group is not None
    )
    return Snapshot(
        generation=generation,
        config=config,
        routes=routes,
        challenges=Challenges(
            dict(_challenges(config)),
            _standing(config),
            ours=lambda host: host == config.login_host or routes.lookup(host) is not None,
        ),
        policy=policy_of(config),
        backends=backends,
        public={
            name: Allow(name, f"backend {name} is public", public=True)
            for name, backend in backends.items()
            if backend.public
        },
        endpoints=dict(_endpoint_contexts(config, routes)),
        tcp=targets,
        agents={
            agent.name: AgentGrant(agent.name, frozenset(agent.targets), agent.group)
            for agent in config.agents
        },
        groups=groups,
        identity=IdentityHeaders(signing_keys, login_url, groups=groups),
        signing_keys=signing_keys,
        providers=providers,
        trusted_proxies=tuple(config.trusted_proxies),
        login_host=config.login_host,
        login_url=login_url,
    )


def routes_of(config: Config) -> RouteTable:
    """Only the routes of a configuration, for tools that answer questions about it.

    Raises:
        SnapshotError: When a path of it is not canonical.
    """
    backends = {backend.name: _backend(backend) for backend in config.backends}
    return _table(config, backends, dict(_targets(config, backends)))


def _table(
    config: Config, backends: Mapping[str, Backend], targets: Mapping[str, TcpTarget]
) -> RouteTable:
    hosts = (
        (host, targets[backend.name])
        for backend in config.backends
        if backend.name in targets
        for host in config.backend_hosts(backend)
    )
    try:
        return RouteTable(_routes(config, backends), hosts)
    except ValueError as error:
        raise SnapshotError(str(error)) from error


def _targets(config: Config, backends: Mapping[str, Backend]) -> Iterator[tuple[str, TcpTarget]]:
    for backend in config.backends:
        tcp = backend.tcp
        if tcp is not None:
            endpoint = _stream_endpoint(tcp)
            target = TcpTarget(backends[backend.name], endpoint, tcp.idle, tcp.max_duration)
            yield backend.name, target


def _stream_endpoint(tcp: TcpService) -> Endpoint:
    if tcp.upstream is not None:
        return Endpoint(tcp.upstream.scheme, tcp.upstream.host, tcp.upstream.port)
    if tcp.agent is None or tcp.target is None:
        raise SnapshotError("a tcp service leads nowhere")
    return Endpoint("agent", tcp.agent, 0, target=tcp.target)


def policy_of(config: Config) -> Policy:
    """The policy of a configuration.

    Raises:
        SnapshotError: When a pattern or reference in it cannot be used.
    """
    try:
        return Policy.compile(
            backends=[backend.name for backend in config.backends if backend.http],
            tcp=[backend.name for backend in config.backends if backend.tcp is not None],
            permissions=[
                PermissionSpec(
                    backend.name,
                    permission.name,
                    tuple(
                        LocationSpec(location.method, _pattern(location.pattern))
                        for location in permission.locations
                    ),
                )
                for backend in config.backends
                for permission in backend.permissions
            ],
            roles=[_role(role, config) for role in config.roles],
        )
    except ValueError as error:
        raise SnapshotError(str(error)) from error


def _pattern(text: str) -> bytes:
    """A location pattern in canonical bytes; a leading = (exact) is kept."""
    exact = text.startswith("=")
    canonical = _path(text[1:] if exact else text)
    return b"=" + canonical if exact else canonical


# Thousands of hosts have the same few paths.
@lru_cache(1_024)
def _path(text: str) -> bytes:
    """A configured path as requests are compared with it.

    People may write it as they read it (``/büro``); the wire form is percent-encoded UTF-8.
    """
    raw = b"".join(
        b"%%%02X" % byte if byte >= 0x80 or byte <= 0x20 else bytes((byte,))
        for byte in text.encode("utf-8")
    )
    try:
        target = canonicalise(raw)
    except BadTarget as error:
        raise SnapshotError(f"path {text!r}: {error}") from error
    if target.query or target.encoded_slash:
        raise SnapshotError(f"path {text!r} must not hold a query or an encoded slash")
    return target.path


def _role(role: RoleConfig, config: Config) -> RoleSpec:
    default = config.identity.providers[0].name if config.identity.providers else "-"
    return RoleSpec(
        role.name,
        tuple(_member(member, default) for member in role.members),
        tuple(BindingSpec(binding.backend, binding.permission) for binding in role.bindings),
        role.break_glass,
        role.approve_agents,
    )


def _member(member: Member, default_provider: str) -> MemberSpec:
    if member.user is not None:
        return UserMember(member.user)
    if member.group is not None:
        return GroupMember(member.provider or default_provider, member.group)
    if member.domain is not None:
        return DomainMember(member.domain)
    if member.service_account is not None:
        return ServiceAccountMember(member.service_account)
    if member.issuer is None or member.subject is None:
        raise SnapshotError("a member of a role names nobody")
    return IssuerMember(member.issuer, member.subject)


def _backend(backend: BackendConfig) -> Backend:
    cors = backend.cors
    timeouts = backend.timeouts
    return Backend(
        name=backend.name,
        public=backend.public,
        allow_http=backend.allow_http,
        dialects=tuple(backend.identity_headers),
        max_session_age=backend.max_session_age,
        cors=Cors(
            frozenset(cors.allow_origins),
            tuple(cors.allow_methods),
            tuple(cors.allow_headers),
            tuple(cors.expose_headers),
            cors.allow_credentials,
            int(cors.max_age),
        )
        if cors is not None
        else None,
        allowed_origins=frozenset(backend.allowed_origins),
        forward_path=ForwardPath(backend.forward_path),
        upgrades=frozenset(name.encode("ascii") for name in backend.upgrades),
        timeouts=Timeouts(timeouts.connect, timeouts.first_byte, timeouts.idle),
    )


def _routes(config: Config, backends: Mapping[str, Backend]) -> Iterator[tuple[str, Route]]:
    for backend in config.backends:
        tls = _upstream_tls(backend)
        for http in backend.http:
            route = Route(
                backends[backend.name],
                _path(http.path),
                PathMatch(http.match),
                _endpoints(http, tls),
                http.strip_prefix,
                http.unavailable or "",
            )
            for host in config.backend_hosts(backend):
                if http.host in (None, host):
                    yield host, route


def _challenges(config: Config) -> Iterator[tuple[tuple[str, bytes], Route]]:
    for one in config.acme_challenges:
        path = CHALLENGE_PREFIX + one.token.encode("ascii")
        endpoints = tuple(_endpoint(upstream, None) for upstream in one.upstreams)
        yield (one.host, path), Route(_CHALLENGE_BACKEND, path, PathMatch.EXACT, endpoints)


def _standing(config: Config) -> Route | None:
    """What answers challenges for all hosts, if the plain listener has such a thing."""
    acme = None if config.listeners.http is None else config.listeners.http.acme
    if acme is None:
        return None
    if acme.upstream is not None:
        endpoint = _endpoint(acme.upstream, None)
    else:
        endpoint = Endpoint("webroot", str(acme.webroot), 0)
    return Route(_CHALLENGE_BACKEND, CHALLENGE_PREFIX, PathMatch.PREFIX, (endpoint,))


def _endpoints(http: HttpRoute, tls: UpstreamTls | None) -> tuple[Endpoint, ...]:
    if http.agent is not None and http.target is not None:
        secure = (tls or UpstreamTls()) if http.scheme == "https" else None
        return (Endpoint("agent", http.agent, 0, secure, http.target),)
    return tuple(_endpoint(upstream, tls) for upstream in http.endpoints)


def _endpoint(upstream: Upstream, tls: UpstreamTls | None) -> Endpoint:
    return Endpoint(
        upstream.scheme, upstream.host, upstream.port, tls if upstream.scheme == "https" else None
    )


def _upstream_tls(backend: BackendConfig) -> UpstreamTls | None:
    tls = backend.upstream_tls
    if tls is None:
        return None
    return UpstreamTls(
        str(tls.ca_file) if tls.ca_file is not None else None, tls.server_name, tls.insecure
    )


def _endpoint_contexts(
    config: Config, routes: RouteTable
) -> Iterator[tuple[Endpoint, ssl.SSLContext | None]]:
    # Loading the system's authorities takes 20 ms, so equal settings share a context.
    contexts: dict[UpstreamTls | None, ssl.SSLContext] = {}
    for name, endpoint in _every_endpoint(config, routes):
        tls = endpoint.tls
        if tls is None and endpoint.scheme != "https":
            yield endpoint, None
            continue
        if tls not in contexts:
            contexts[tls] = _context(name, tls)
        yield endpoint, contexts[tls]


def _every_endpoint(config: Config, routes: RouteTable) -> Iterator[tuple[str, Endpoint]]:
    """Of every route, with the name of its backend; those of the table are what requests carry."""
    standing = _standing(config)
    found = [*(one for _, one in _challenges(config)), *([standing] if standing else [])]
    for host in routes.hosts():
        table = routes.lookup(host)
        if table is not None:
            found += (*table.prefixes, *table.exact.values())
    for route in found:
        for endpoint in route.endpoints:
            yield route.backend.name, endpoint


def _context(backend: str, tls: UpstreamTls | None) -> ssl.SSLContext:
    try:
        return upstream_context(tls)
    except OSError as error:
        where = tls.ca_file if tls is not None else "the system's authorities"
        raise SnapshotError(f"backend {backend}: upstream_tls.ca_file {where}: {error}") from error


def upstream_context(tls: UpstreamTls | None) -> ssl.SSLContext:
    """The TLS context for https upstreams.

    Raises:
        OSError: When the CA file cannot be read (ssl.SSLError when it holds no certificate).
    """
    context = ssl.create_default_context(cafile=tls.ca_file if tls is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls is not None and tls.insecure:
        # Asked for in so many words (`upstream_tls.insecure: true`), for appliances with
        # certificates nobody can replace; encrypted but not authenticated.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
