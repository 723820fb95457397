"""One configuration, understood: everything a request needs, immutable, swapped by one assignment.

`build` turns a validated configuration into a snapshot or fails as a whole; nothing of it is in
force before all of it is. Requests read the snapshot once and keep it until they are done.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from heim_config.model import Config
from heim_proxy.access.applications import Application, entrance
from heim_proxy.access.policy import Allow, Policy
from heim_proxy.access.roles import RoleSpec
from heim_proxy.access.subject import Subject
from heim_proxy.identity.assertion import IdentityHeaders
from heim_proxy.identity.providers import Provider
from heim_proxy.identity.signing import SigningKeys
from heim_proxy.pieces import Piece, Pieces, SnapshotError, endpoint_of
from heim_proxy.routing import (
    ANY_HOST,
    CHALLENGE_PREFIX,
    AgentGrant,
    Backend,
    Challenges,
    Endpoint,
    PathMatch,
    Route,
    RouteTable,
    TcpTarget,
    Timeouts,
    UpstreamTls,
)

__all__ = ["Snapshot", "SnapshotError", "build", "challenges_of", "policy_of", "routes_of"]

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
    pieces: Pieces | None = None,
) -> Snapshot:
    """Put a configuration together.

    Args:
        config: Without mistakes.
        generation: Its number.
        signing_keys: What identities are signed with.
        providers: Who signs people in.
        pieces: What the last snapshot of the same caller left; it learns.

    Raises:
        SnapshotError: When a path, a policy or a CA file of it cannot be used.
    """
    known = pieces or Pieces()
    made = known.of(config)
    backends = {piece.backend.name: piece.backend for piece in made}
    routes = known.table = _table(made, known.table)
    login_url = config.public_url(config.login_host)
    groups = frozenset(
        member.group for role in config.roles for member in role.members if member.group is not None
    )
    return Snapshot(
        generation=generation,
        config=config,
        routes=routes,
        challenges=challenges_of(config, routes),
        policy=_policy(config, made, known.roles(config)),
        backends=backends,
        public={
            name: Allow(name, f"backend {name} is public", public=True)
            for name, backend in backends.items()
            if backend.public
        },
        endpoints=_endpoint_contexts(config, made),
        tcp={piece.backend.name: piece.target for piece in made if piece.target is not None},
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
    return _table(Pieces().of(config), None)


def challenges_of(config: Config, routes: RouteTable) -> Challenges:
    """Who answers challenges of an ACME authority; `routes` say which hosts are ours."""
    return Challenges(
        dict(_challenges(config)),
        _standing(config),
        ours=lambda host: host == config.login_host or routes.lookup(host) is not None,
    )


def _table(pieces: Iterable[Piece], before: RouteTable | None) -> RouteTable:
    routes = chain.from_iterable(piece.routes for piece in pieces)
    targets = chain.from_iterable(piece.targets for piece in pieces)
    try:
        return RouteTable(routes, targets, before=before)
    except ValueError as error:
        raise SnapshotError(str(error)) from error


def policy_of(config: Config) -> Policy:
    """The policy of a configuration.

    Raises:
        SnapshotError: When a pattern or reference in it cannot be used.
    """
    pieces = Pieces()
    return _policy(config, pieces.of(config), pieces.roles(config))


def _policy(config: Config, pieces: Iterable[Piece], roles: Iterable[RoleSpec]) -> Policy:
    try:
        return Policy.compile(
            backends=[backend.name for backend in config.backends if backend.http],
            tcp=[backend.name for backend in config.backends if backend.tcp is not None],
            permissions=chain.from_iterable(piece.permissions for piece in pieces),
            roles=roles,
        )
    except ValueError as error:
        raise SnapshotError(str(error)) from error


def _challenges(config: Config) -> Iterator[tuple[tuple[str, bytes], Route]]:
    for one in config.acme_challenges:
        path = CHALLENGE_PREFIX + one.token.encode("ascii")
        guarded = config.source is not None
        endpoints = tuple(endpoint_of(to, None, guarded=guarded) for to in one.upstreams)
        yield (one.host, path), Route(_CHALLENGE_BACKEND, path, PathMatch.EXACT, endpoints)


def _standing(config: Config) -> Route | None:
    """What answers challenges for all hosts, if the plain listener has such a thing."""
    acme = None if config.listeners.http is None else config.listeners.http.acme
    if acme is None:
        return None
    if acme.upstream is not None:
        endpoint = endpoint_of(acme.upstream, None, guarded=False)
    else:
        endpoint = Endpoint("webroot", str(acme.webroot), 0)
    return Route(_CHALLENGE_BACKEND, CHALLENGE_PREFIX, PathMatch.PREFIX, (endpoint,))


def _endpoint_contexts(
    config: Config, pieces: Iterable[Piece]
) -> dict[Endpoint, ssl.SSLContext | None]:
    """Every endpoint of the snapshot; the objects are those of the routes."""
    found: dict[Endpoint, ssl.SSLContext | None] = {}
    # Loading the system's authorities takes 20 ms, so equal settings share a context.
    contexts: dict[UpstreamTls | None, ssl.SSLContext] = {}

    def secure(name: str, endpoints: Iterable[Endpoint]) -> None:
        for endpoint in endpoints:
            tls = endpoint.tls
            if tls is not None or endpoint.scheme == "https":
                if tls not in contexts:
                    contexts[tls] = _context(name, tls)
                found[endpoint] = contexts[tls]

    for piece in pieces:
        # Does not hash them again.
        found.update(piece.endpoints)
        if piece.is_secure:
            secure(piece.backend.name, piece.endpoints)
    standing = _standing(config)
    for route in (*(one for _, one in _challenges(config)), *([standing] if standing else [])):
        found.update(dict.fromkeys(route.endpoints))
        secure(route.backend.name, route.endpoints)
    return found


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
