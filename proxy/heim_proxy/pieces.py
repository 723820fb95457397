"""Parts of a snapshot, made of one backend of the configuration each, and used again.

A part depends on its backend and on the domain alone. Where the configuration has the very same
backend as before, the snapshot has the very same parts: a change of one among thousands costs
little more than one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from heim_config.access import Member
from heim_config.access import Role as RoleConfig
from heim_config.backends import Backend as BackendConfig
from heim_config.hosts import Upstream
from heim_config.model import Config
from heim_config.routes import HttpRoute
from heim_config.tunnel import TcpService
from heim_proxy.access.members import (
    DomainMember,
    GroupMember,
    IssuerMember,
    MemberSpec,
    ServiceAccountMember,
    UserMember,
)
from heim_proxy.access.roles import BindingSpec, LocationSpec, PermissionSpec, RoleSpec
from heim_proxy.routing import (
    Backend,
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
from heim_runtime.kept import Kept

__all__ = ["Piece", "Pieces", "SnapshotError", "endpoint_of"]


class SnapshotError(Exception):
    """A valid configuration that cannot be put in force; the message names the key and the file."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One backend: its routes and streams by host, where they lead, what can be allowed of it."""

    config: BackendConfig
    backend: Backend
    routes: tuple[tuple[str, Route], ...]
    targets: tuple[tuple[str, TcpTarget], ...]
    endpoints: Mapping[Endpoint, None]
    permissions: tuple[PermissionSpec, ...]
    # Whether one of `endpoints` is reached by TLS.
    is_secure: bool

    @property
    def target(self) -> TcpTarget | None:
        """Where its streams go, whatever the host."""
        return self.targets[0][1] if self.targets else None


class Pieces:
    """What one snapshot leaves to the next. For one caller at a time.

    Attributes:
        table: The routes of the last snapshot.
    """

    def __init__(self) -> None:
        """Know none."""
        # What every piece depends on.
        self._beside = ("", False)
        self._known: Kept[int, Piece] = Kept()
        self._default = ""
        self._roles: Kept[int, tuple[RoleConfig, RoleSpec]] = Kept()
        self.table: RouteTable | None = None

    def of(self, config: Config) -> list[Piece]:
        """The piece of each backend, in order.

        Raises:
            SnapshotError: A path of one is not canonical.
        """
        # What a program wrote, many may have chosen; the operator's own file is the operator's.
        guarded = config.source is not None
        if (config.domain, guarded) != self._beside:
            self._beside = (config.domain, guarded)
            self._known.clear()
        self._known.now.clear()
        before, now = self._known.before, self._known.now
        made: list[Piece] = []
        for backend in config.backends:
            # A piece keeps its backend, whose `id` is then nobody else's.
            piece = before.get(id(backend))
            if piece is None:
                piece = _piece(backend, config.backend_hosts(backend), guarded=guarded)
            now[id(backend)] = piece
            made.append(piece)
        self._known.turn()
        return made

    def roles(self, config: Config) -> list[RoleSpec]:
        """The roles of a configuration, as policy compiles them.

        Raises:
            SnapshotError: A member of one is nobody.
        """
        default = config.identity.providers[0].name if config.identity.providers else "-"
        if default != self._default:
            self._default = default
            self._roles.clear()
        self._roles.now.clear()
        made: list[RoleSpec] = []
        for role in config.roles:
            known = self._roles.before.get(id(role)) or (role, _role(role, default))
            self._roles.now[id(role)] = known
            made.append(known[1])
        self._roles.turn()
        return made

    def __repr__(self) -> str:
        return f"<Pieces backends={len(self._known.before)}>"


def _piece(config: BackendConfig, hosts: tuple[str, ...], *, guarded: bool) -> Piece:
    backend = _backend(config)
    tls = _upstream_tls(config)
    routes: list[tuple[str, Route]] = []
    endpoints: dict[Endpoint, None] = {}
    for http in config.http:
        route = Route(
            backend,
            _path(http.path),
            PathMatch(http.match),
            _endpoints(http, tls, guarded=guarded),
            http.strip_prefix,
            http.unavailable or "",
        )
        endpoints |= dict.fromkeys(route.endpoints)
        routes += [(host, route) for host in hosts if http.host in (None, host)]
    targets: tuple[tuple[str, TcpTarget], ...] = ()
    tcp = config.tcp
    if tcp is not None:
        target = TcpTarget(
            backend, _stream_endpoint(tcp, guarded=guarded), tcp.idle, tcp.max_duration
        )
        targets = tuple((host, target) for host in hosts)
    permissions = tuple(
        PermissionSpec(
            config.name,
            permission.name,
            tuple(LocationSpec(one.method, _pattern(one.pattern)) for one in permission.locations),
        )
        for permission in config.permissions
    )
    secure = any(one.tls is not None or one.scheme == "https" for one in endpoints)
    return Piece(config, backend, tuple(routes), targets, endpoints, permissions, secure)


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


def _stream_endpoint(tcp: TcpService, *, guarded: bool) -> Endpoint:
    if tcp.upstream is not None:
        to = tcp.upstream
        return Endpoint(to.scheme, to.host, to.port, guarded=guarded)
    if tcp.agent is None or tcp.target is None:
        raise SnapshotError("a tcp service leads nowhere")
    return Endpoint("agent", tcp.agent, 0, target=tcp.target)


def _endpoints(http: HttpRoute, tls: UpstreamTls | None, *, guarded: bool) -> tuple[Endpoint, ...]:
    if http.agent is not None and http.target is not None:
        secure = (tls or UpstreamTls()) if http.scheme == "https" else None
        return (Endpoint("agent", http.agent, 0, secure, http.target),)
    return tuple(endpoint_of(upstream, tls, guarded=guarded) for upstream in http.endpoints)


def endpoint_of(upstream: Upstream, tls: UpstreamTls | None, *, guarded: bool) -> Endpoint:
    """An upstream as it is dialled; `tls` matters to https alone."""
    secure = tls if upstream.scheme == "https" else None
    return Endpoint(upstream.scheme, upstream.host, upstream.port, secure, guarded=guarded)


def _upstream_tls(backend: BackendConfig) -> UpstreamTls | None:
    tls = backend.upstream_tls
    if tls is None:
        return None
    return UpstreamTls(
        str(tls.ca_file) if tls.ca_file is not None else None, tls.server_name, tls.insecure
    )


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


def _role(role: RoleConfig, default: str) -> RoleSpec:
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
