"""Which backend answers for a host and a path: pure tables, built once per snapshot.

A host is exact or a one-label wildcard (``*.example.com`` matches ``a.example.com`` but neither
``example.com`` nor ``a.b.example.com``), or ``*`` for all others; exact beats wildcard. Several
backends may have routes on one host. Within a host an exact path beats
every prefix, and the longest prefix wins. Prefixes end at segment borders: ``/app`` covers
``/app`` and ``/app/x``, never ``/apple``. Hosts are given in the canonical form of
`heim_proxy.target.canonical_host`, paths in the canonical form of
`heim_proxy.target.canonicalise`.
"""

from __future__ import annotations

import enum
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ANY_HOST",
    "CHALLENGE_PREFIX",
    "RESERVED_PREFIX",
    "AgentGrant",
    "Backend",
    "Challenges",
    "Cors",
    "Endpoint",
    "ForwardPath",
    "HostRoutes",
    "PathMatch",
    "Route",
    "RouteTable",
    "TcpTarget",
    "Timeouts",
    "UpstreamTls",
    "under",
]

# Every host keeps this prefix for Heim itself; no backend can be configured or answer under it.
RESERVED_PREFIX: Final = b"/.heim"

# How configuration spells every host that nobody else has.
ANY_HOST: Final = "*"

# Where an ACME authority looks, on plain http (RFC 8555, 8.3); a token follows.
CHALLENGE_PREFIX: Final = b"/.well-known/acme-challenge/"
_CHALLENGE: Final = re.compile(re.escape(CHALLENGE_PREFIX) + rb"[A-Za-z0-9_-]{16,128}")

# So many prefixes are compared one by one (0.1 µs each); more are looked up while climbing.
_FEW: Final = 8
_SLASH: Final = 0x2F


class PathMatch(enum.Enum):
    """How a route's path is compared with a request's canonical path."""

    EXACT = "exact"
    PREFIX = "prefix"


class ForwardPath(enum.Enum):
    """Which view of the path an upstream receives; `RAW` needs both views allowed."""

    CANONICAL = "canonical"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines towards one backend, in seconds. There is no total timeout."""

    connect: float = 5.0
    first_byte: float = 60.0
    idle: float = 900.0


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """How an https upstream is verified. `server_name` is the SNI and the name that is checked."""

    ca_file: str | None = None
    server_name: str | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that connections are dialled to; equal endpoints share a connection pool.

    `scheme` is http, https, tcp, unix, webroot or agent. For unix and webroot, `host` is a path and
    `port` is 0; for agent, `host` is the agent's name, `target` what is asked of it, and `port` is
    0. With `tls` a connection through an agent is https. With `guarded`, where a name leads is
    judged when it is dialled: whoever chose it is not who runs the proxy.
    """

    scheme: str
    host: str
    port: int
    tls: UpstreamTls | None = None
    target: str = ""
    guarded: bool = False

    def __str__(self) -> str:
        if self.scheme == "agent":
            return f"agent:{self.host}/{self.target}"
        if self.scheme in ("unix", "webroot"):
            return f"{self.scheme}:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def words(self) -> str:
        """A target of an agent, as people are told of it; empty for addresses, which they are not.

        Names of agents and targets are configuration's own words; an address is an inner detail.
        """
        return f"target {self.target} of agent {self.host}" if self.scheme == "agent" else ""


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """An agent that may exist: what may be asked of it, and whether machines may share its name."""

    name: str
    targets: frozenset[str]
    group: bool = False


@dataclass(frozen=True, slots=True)
class Cors:
    """A declarative CORS policy, answered by the proxy. `max_age` is in seconds."""

    allow_origins: frozenset[str]
    allow_methods: tuple[str, ...]
    allow_headers: tuple[str, ...]
    expose_headers: tuple[str, ...]
    allow_credentials: bool
    max_age: int


@dataclass(frozen=True, slots=True, eq=False)
class Backend:
    """A protected thing people reach, as the data plane needs it; `max_session_age` in seconds."""

    name: str
    public: bool = False
    allow_http: bool = False
    dialects: tuple[str, ...] = ("heimdallr",)
    max_session_age: float | None = None
    cors: Cors | None = None
    allowed_origins: frozenset[str] = frozenset()
    forward_path: ForwardPath = ForwardPath.CANONICAL
    upgrades: frozenset[bytes] = frozenset((b"websocket",))
    timeouts: Timeouts = Timeouts()
    # It answers challenges of an ACME authority: nothing of anybody's is sent there or comes back.
    challenge: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class TcpTarget:
    """Where the TCP streams of a backend go, and how long one may last.

    `endpoint` has scheme tcp, unix or agent. `idle` (without a byte in either direction) and
    `max_duration` are in seconds; None for no limit.
    """

    backend: Backend
    endpoint: Endpoint
    idle: float | None = None
    max_duration: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """One path of a backend and where its traffic goes. `path` is canonical, without a query.

    Where it goes through an agent, there is one endpoint.
    """

    backend: Backend
    path: bytes
    match: PathMatch
    endpoints: tuple[Endpoint, ...]
    strip_prefix: bool = False
    # Why nothing is served here, for logs; then there are no endpoints.
    unavailable: str = ""

    @property
    def via(self) -> str:
        """What of which agent it goes to, for people; empty when it goes to addresses."""
        return self.endpoints[0].words if self.endpoints else ""

    def upstream_path(self, path: bytes) -> bytes:
        """The path sent upstream for a matched canonical `path`: the prefix removed if so asked."""
        if not self.strip_prefix or self.path == b"/":
            return path
        return path[len(self.path.rstrip(b"/")) :] or b"/"


class Challenges:
    """Who answers challenges of an ACME authority, one exact token of one host at a time."""

    __slots__ = ("_exact", "_ours", "_standing")

    def __init__(
        self,
        exact: Mapping[tuple[str, bytes], Route],
        standing: Route | None = None,
        *,
        ours: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Two kinds, of which the first comes first.

        Args:
            exact: Routes by canonical host and whole path, which holds nothing encoded.
            standing: The route for whatever looks like a token, on hosts that are `ours`.
            ours: Whether a canonical host is served here.
        """
        self._exact = exact
        self._standing = standing
        self._ours = ours

    def find(self, host: str, raw: bytes) -> Route | None:
        """The route for a path exactly as it was received; None when it is nobody's."""
        found = self._exact.get((host, raw))
        if found is not None or self._standing is None:
            return found
        return self._standing if _CHALLENGE.fullmatch(raw) and self._ours(host) else None


class HostRoutes:
    """The routes of one host or wildcard. Immutable once built; `prefixes` are longest first.

    `tcp` is where streams for the host go, if anywhere; with it, there may be no routes at all.
    `plain` says that everything on the host is served on plain http too.
    """

    __slots__ = (
        "_by_prefix", "_everything", "_longest", "exact", "host", "plain", "prefixes", "tcp",
    )  # fmt: skip

    def __init__(
        self,
        host: str,
        exact: Mapping[bytes, Route] | None = None,
        prefixes: Iterable[Route] = (),
        *,
        tcp: TcpTarget | None = None,
    ) -> None:
        self.host = host
        self.tcp = tcp
        self.exact: Mapping[bytes, Route] = exact or {}
        self.prefixes = tuple(sorted(prefixes, key=lambda route: len(route.path), reverse=True))
        routes = (*self.exact.values(), *self.prefixes)
        self.plain = bool(routes) and all(
            route.backend.public and route.backend.allow_http for route in routes
        )
        self._by_prefix = {route.path: route for route in self.prefixes}
        self._longest = len(self.prefixes[0].path) if self.prefixes else 0
        # The one route of a host that has no other than "/", which is what most hosts are.
        only = self.prefixes[0] if len(self.prefixes) == 1 and not self.exact else None
        self._everything = only if only is not None and only.path == b"/" else None

    def match(self, path: bytes) -> Route | None:
        """The route for a canonical `path`; None when nothing covers it."""
        if self._everything is not None:
            return self._everything
        if self.exact:
            route = self.exact.get(path)
            if route is not None:
                return route
        prefixes = self.prefixes
        if len(prefixes) > _FEW:
            return self._climb(path)
        for route in prefixes:
            if under(path, route.path):
                return route
        return None

    def _climb(self, path: bytes) -> Route | None:
        """Longest prefix by walking up the path: its depth counts, not the number of routes."""
        # Nothing below the longest prefix can match, and a hostile path is 8 KiB of slashes.
        end = min(len(path), self._longest + 1)
        find = self._by_prefix.get
        while end > 0:
            candidate = path[:end]
            if candidate.endswith(b"/") or end == len(path) or path[end] == _SLASH:
                route = find(candidate)
                if route is not None:
                    return route
            cut = candidate.rfind(b"/")
            end = cut + 1 if cut + 1 < end else cut
        return None


def under(path: bytes, prefix: bytes) -> bool:
    """Whether `path` is `prefix` or below it; borders are slashes: /adminx is not under /admin."""
    if prefix == b"/":
        return True
    if not path.startswith(prefix):
        return False
    return len(path) == len(prefix) or prefix.endswith(b"/") or path[len(prefix)] == _SLASH


class RouteTable:
    """Hosts to their routes and TCP targets. Immutable once built.

    One table for both, so that an exact host without tcp is never taken for a wildcard with it.

    Raises:
        ValueError: When a host has two routes of the same path and kind, or two targets; which one
            answers must not depend on their order.
    """

    __slots__ = ("_any", "_exact", "_grouped", "_wildcards")

    def __init__(
        self,
        routes: Iterable[tuple[str, Route]],
        targets: Iterable[tuple[str, TcpTarget]] = (),
        *,
        before: RouteTable | None = None,
    ) -> None:
        """Put them together.

        Args:
            routes: By host.
            targets: By host.
            before: Another table; hosts that have the very same routes there are not made anew.
        """
        grouped: dict[str, list[Route]] = {}
        for host, route in routes:
            grouped.setdefault(host, []).append(route)
        tcp: dict[str, TcpTarget] = {}
        for host, target in targets:
            if host in tcp:
                raise ValueError(f"{host} has two tcp targets")
            tcp[host] = target
            grouped.setdefault(host, [])
        self._grouped = grouped
        tables = {
            host: (before and before._same(host, found, tcp.get(host)))
            or _host_routes(host, found, tcp.get(host))
            for host, found in grouped.items()
        }
        self._any = tables.pop(ANY_HOST, None)
        self._exact = {host: table for host, table in tables.items() if not host.startswith("*.")}
        self._wildcards = {host[2:]: t for host, t in tables.items() if host.startswith("*.")}

    def lookup(self, host: str) -> HostRoutes | None:
        """The routes of a canonical `host`, exact before wildcard; None when it is unknown.

        Routes whose `host` is `ANY_HOST` answer for it, but it is nobody's: no one can be sent
        there, nor sign in on it.
        """
        found = self._exact.get(host)
        if found is not None:
            return found
        label, dot, parent = host.partition(".")
        return (self._wildcards.get(parent) if dot and label else None) or self._any

    def _same(self, host: str, routes: list[Route], tcp: TcpTarget | None) -> HostRoutes | None:
        """The routes of a host as it is written, if they were made of these very objects."""
        mine = self._grouped.get(host)
        if mine is None or len(mine) != len(routes) or not all(map(operator.is_, mine, routes)):
            return None
        if host == ANY_HOST:
            found = self._any
        elif host.startswith("*."):
            found = self._wildcards[host[2:]]
        else:
            found = self._exact[host]
        return found if found is not None and found.tcp is tcp else None

    def hosts(self) -> tuple[str, ...]:
        """Every configured host, wildcards as ``*.example.com``, sorted."""
        known = [*self._exact, *(f"*.{parent}" for parent in self._wildcards)]
        return tuple(sorted(known if self._any is None else [*known, ANY_HOST]))


def _host_routes(host: str, routes: list[Route], tcp: TcpTarget | None) -> HostRoutes:
    seen: set[tuple[bytes, PathMatch]] = set()
    for route in routes:
        key = (route.path, route.match)
        if key in seen:
            raise ValueError(f"{host}{route.path.decode('ascii')} is routed twice")
        seen.add(key)
    exact = {route.path: route for route in routes if route.match is PathMatch.EXACT}
    return HostRoutes(host, exact, [r for r in routes if r.match is PathMatch.PREFIX], tcp=tcp)
