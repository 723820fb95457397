"""From a parsed request head to a verdict: route, identify, authorise.

The order is fixed and nothing is dialled before it ends: ACME challenge? → host → reserved prefix
→ path → public? → session → origin → policy. A verdict is a value; only `Forward`, which holds an
`Allow`, lets the rest of the edge open a connection to an upstream. An exception in here is a
refusal (`Front` turns it into 500 and a metric), never a pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from heim_proxy.access.policy import Allow, Deny, Grants
from heim_proxy.edge.challenge import ANSWER_HEADERS, challenge
from heim_proxy.edge.door import AGENT_PATH, TUNNEL_PATH
from heim_proxy.edge.handshake import check_upgrade
from heim_proxy.edge.head import BadRequest, RequestHead
from heim_proxy.edge.origin import Preflight, cors_headers, foreign_origin, preflight
from heim_proxy.edge.responses import Refusal
from heim_proxy.identity.cookies import SESSION_COOKIE, clear_cookie
from heim_proxy.identity.handoff import start
from heim_proxy.identity.session import Miss, Session, Sessions
from heim_proxy.live import EndReason
from heim_proxy.routing import (
    ANY_HOST,
    CHALLENGE_PREFIX,
    RESERVED_PREFIX,
    Backend,
    ForwardPath,
    HostRoutes,
    Route,
    under,
)
from heim_proxy.target import BadTarget, Target, canonical_host, canonicalise

if TYPE_CHECKING:
    from heim_proxy.snapshot import Snapshot

__all__ = [
    "Client",
    "Connect",
    "Forward",
    "Judge",
    "LoadSession",
    "Portal",
    "Redirect",
    "Verdict",
    "is_navigation",
    "path_views",
    "upstream_path",
    "valid_until",
]

# Host spellings remembered per snapshot; only hosts that are configured are remembered.
_REMEMBERED_HOSTS: Final = 4096


class Client:
    """Whom a request came from, as far as it is proven.

    `sni` is the name the TLS handshake asked for, None on plain http. `forwarded` are the
    forwarding header lines for upstreams up to the value of X-Forwarded-Host.
    """

    __slots__ = ("address", "forwarded", "secure", "sni")

    def __init__(self, address: str, *, secure: bool, sni: str | None = None) -> None:
        self.address = address
        self.secure = secure
        self.sni = sni
        scheme = "https" if secure else "http"
        self.forwarded = (
            f"X-Forwarded-For: {address}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Host: "
        ).encode("ascii")


@dataclass(slots=True)
class Forward:
    """Permission to send this request upstream, and what it takes to do so."""

    route: Route
    allow: Allow
    session: Session | None
    # Complete identity header lines for the upstream; empty on public backends.
    identity: bytes
    # Path and query that are sent.
    path: bytes
    host: str
    # Complete header lines to add to the answer (CORS, a renewed session cookie).
    answer_headers: bytes = b""


@dataclass(slots=True)
class Portal:
    """The request is for Heim's own pages."""

    host: str
    backend: str | None


@dataclass(slots=True)
class Connect:
    """The request is for a door, which asks for other credentials than a cookie."""

    host: str


@dataclass(slots=True)
class Redirect:
    """An answer that only sends the browser elsewhere."""

    status: int
    location: str
    set_cookies: tuple[str, ...] = ()
    decision: str = "redirect"
    backend: str = ""


@dataclass(slots=True)
class LoadSession:
    """The cookie is genuine but its session is not in memory: load it, then judge again."""

    host: str
    cookie: bytes


Verdict = Forward | Portal | Connect | Redirect | Preflight | Refusal | LoadSession


@dataclass(slots=True)
class _Host:
    name: str
    routes: HostRoutes | None  # None: the login host


class Judge:
    """Judges requests against one snapshot; a new one is made for each snapshot."""

    __slots__ = ("_hosts", "_identity", "_sessions", "snapshot")

    def __init__(self, snapshot: Snapshot, sessions: Sessions) -> None:
        self.snapshot = snapshot
        self._identity = snapshot.identity
        self._sessions = sessions
        self._hosts: dict[bytes, _Host] = {}

    def judge(self, head: RequestHead, client: Client, now: float) -> Verdict:
        """What to do with a request. `now` is in seconds since the epoch.

        Raises:
            BadRequest: When the Host header is not a valid host.
        """
        if not client.secure and head.target.raw.startswith(CHALLENGE_PREFIX):
            answered = self._challenge(head)
            if answered is not None:
                return answered
        raw_host = head.host or b""
        host = self._hosts.get(raw_host)
        if host is None:
            found = self._find_host(raw_host, client)
            if isinstance(found, Refusal):
                return found
            host = found
        target = head.target
        path = target.path
        routes = host.routes
        route = None if routes is None else routes.match(path)
        if not client.secure and not _open_on_http(routes, route, path):
            return self._to_https(host, target)
        if routes is None or path.startswith(RESERVED_PREFIX):
            verdict = self._portal(head, host)
            if verdict is not None or routes is None:
                return verdict or _NOT_FOUND
        if route is None or route.unavailable:
            return _NOT_FOUND if route is None else _unavailable(route.backend)
        backend = route.backend
        if head.upgrade is not None or backend.cors is not None:
            early = _before_anybody_is_asked_who(head, backend)
            if early is not None:
                return early
        if backend.public:
            return self._forward(head, host, route, None, self.snapshot.public[backend.name])
        cookie = head.cookies.session
        if cookie is None:
            return self._anonymous(head, host.name, route, now)
        session = self._sessions.find(host.name, cookie, now)
        if type(session) is not Session:
            if session is Miss.LOAD:
                return LoadSession(host.name, cookie)
            return self._anonymous(head, host.name, route, now)
        oldest = backend.max_session_age
        if oldest is not None and now - session.auth_time > oldest:
            return self._anonymous(head, host.name, route, now)
        if head.method not in _SAFE_METHODS or head.upgrade is not None:
            refused = foreign_origin(
                head, backend, self.snapshot.public_url(host.name), user=session.subject.name
            )
            if refused is not None:
                return refused
        decision = self.grants(session).decide(backend.name, head.method, path)
        if not isinstance(decision, Allow):
            return self._denied(head, backend, session, decision)
        verdict = self._forward(head, host, route, session, decision)
        if type(verdict) is Forward:
            self._identify(verdict, session, cookie, now)
        return verdict

    def _identify(self, forward: Forward, session: Session, cookie: bytes, now: float) -> None:
        """Add what the upstream is told about the person, and a fresh cookie for an old one."""
        backend = forward.route.backend
        forward.identity = self._identity.block(
            session,
            backend.name,
            host=forward.host,
            dialects=backend.dialects,
            roles=forward.allow.roles,
            now=now,
        )
        renewal = self._sessions.renewal(forward.host, cookie)
        if renewal is not None:
            forward.answer_headers += b"Set-Cookie: %b\r\n" % renewal.encode("ascii")

    def review(
        self, forward: Forward, method: bytes, host: str, target: Target
    ) -> EndReason | None:
        """Whether an exchange judged by an earlier snapshot may go on; the reason if it may not."""
        if forward.route.backend.challenge:
            # It lasts for seconds, and whoever asked cannot ask again.
            return None
        routes = self.snapshot.routes.lookup(host)
        route = routes.match(target.path) if routes is not None else None
        if route is None or route.unavailable or route.backend.name != forward.route.backend.name:
            return EndReason.BACKEND_REMOVED
        if route.backend.public:
            return None
        session = forward.session
        if session is None:
            return EndReason.POLICY_CHANGED
        grants = self.grants(session)
        for view in path_views(target, route.backend):
            if not isinstance(grants.decide(route.backend.name, method, view), Allow):
                return EndReason.POLICY_CHANGED
        return None

    def grants(self, session: Session) -> Grants:
        """What the session's subject may do under this snapshot, computed once per session."""
        grants = session.grants
        if grants is None or session.grants_generation != self.snapshot.generation:
            grants = session.grants = self.snapshot.policy.grants(session.subject)
            session.grants_generation = self.snapshot.generation
        return grants

    def _challenge(self, head: RequestHead) -> Forward | None:
        """Leave to send a request on plain http to whoever answers an ACME authority."""
        found = challenge(head, self.snapshot)
        if found is None:
            return None
        host, route = found
        return Forward(route, _CHALLENGE, None, b"", head.target.raw, host, ANSWER_HEADERS)

    def _to_https(self, host: _Host, target: Target) -> Redirect:
        location = self.snapshot.public_url(host.name) + _text(target.path + target.query)
        return Redirect(308, location, decision="https")

    def _find_host(self, raw: bytes, client: Client) -> _Host | Refusal:
        name = canonical_host(raw)
        if name is None:
            raise BadRequest(400, "Host header is not a valid host name")
        if name == self.snapshot.login_host:
            host = _Host(name, None)
        else:
            routes = self.snapshot.routes.lookup(name)
            if routes is None:
                # The same answer for every unknown name: it must not tell which hosts exist.
                # 421 lets a browser that coalesced connections try again on a new one.
                misdirected = bool(client.sni) and client.sni != name
                return _MISDIRECTED if misdirected else _NOT_FOUND
            host = _Host(name, routes)
        # What answers for any host answers for as many as somebody cares to invent.
        any_host = host.routes is not None and host.routes.host == ANY_HOST
        if len(self._hosts) < _REMEMBERED_HOSTS and not any_host:
            self._hosts[raw] = host
        return host

    def _portal(self, head: RequestHead, host: _Host) -> Verdict | None:
        if host.routes is not None and not under(head.target.path, RESERVED_PREFIX):
            return None
        if host.routes is not None and host.routes.host == ANY_HOST:
            # Nobody signs in on a host that is anybody's, and it is not the login host.
            return _NOT_FOUND
        if head.target.encoded_slash or head.target.alias is not None:
            return _AMBIGUOUS
        # From here on it is for ourselves.
        head.fields += head.credentials
        path = head.target.path
        if path == TUNNEL_PATH or (path == AGENT_PATH and host.routes is None):
            return Connect(host.name)
        if sum(line[:13].lower() == b"content-type:" for line in head.fields) > 1:
            # aiohttp would answer this itself, with a traceback in the log.
            return Refusal(400, "bad_request", "more than one Content-Type header", close=True)
        # The portal speaks plain HTTP; an Upgrade may be ignored (RFC 9110, 7.8).
        head.upgrade = None
        backend = self.snapshot.backend_for(host.name) if host.routes is not None else None
        return Portal(host.name, backend)

    def _forward(
        self, head: RequestHead, host: _Host, route: Route, session: Session | None, allow: Allow
    ) -> Verdict:
        target = head.target
        backend = route.backend
        raw = backend.forward_path is _RAW
        if target.encoded_slash and not raw:
            return _AMBIGUOUS
        if target.alias is not None or raw:
            refused = self._other_views(head, host, route, session)
            if refused is not None:
                return refused
        path = target.path
        if raw or route.strip_prefix:
            cut = upstream_path(route, target)
            if cut is None:
                return _AMBIGUOUS
            path = cut
        forward = Forward(route, allow, session, b"", path + target.query, host.name)
        if backend.cors is not None:
            forward.answer_headers = cors_headers(head, backend)
        return forward

    def _other_views(
        self, head: RequestHead, host: _Host, route: Route, session: Session | None
    ) -> Refusal | None:
        """Every other way to read the path must lead to the same route and be allowed too."""
        for view in path_views(head.target, route.backend)[1:]:
            if host.routes is None or host.routes.match(view) is not route:
                return _AMBIGUOUS
            if under(view, RESERVED_PREFIX):
                # /.heim;x/login: a lenient upstream would answer under our own prefix (D10).
                return _AMBIGUOUS
            if session is not None:
                decision = self.grants(session).decide(route.backend.name, head.method, view)
                if not isinstance(decision, Allow):
                    return self._denied(head, route.backend, session, decision)
        return None

    def _anonymous(self, head: RequestHead, host: str, route: Route, now: float) -> Verdict:
        """No session: people are sent to sign in, programs and forms are told that they must."""
        backend = route.backend
        stale = head.cookies.presented > 0
        clear = [clear_cookie(SESSION_COOKIE)] if stale else []
        if is_navigation(head):
            flow = start(
                host,
                _text(head.target.path + head.target.query),
                login_url=self.snapshot.login_url,
                cookies=head.cookies.flows,
                now=now,
            )
            cookies = (*clear, *flow.set_cookies)
            return Redirect(303, flow.location, cookies, "anonymous", backend.name)
        why = "your session has ended, or is too old" if stale else "it needs a signed-in user"
        # Back to where the route begins: what was asked for may be no page that can be opened.
        login_url = f"{self.snapshot.public_url(host)}/.heim/login?rd={quote(route.path)}"
        return Refusal(
            401,
            "sign_in_required",
            f"nothing was sent to {backend.name}: {why}",
            "sign in with a browser, then try again",
            (
                f'WWW-Authenticate: Heim realm="{backend.name}"',
                *(f"Set-Cookie: {cookie}" for cookie in clear),
                *_lines(cors_headers(head, backend)),
            ),
            backend.name,
            login_url=login_url,
        )

    def _denied(
        self, head: RequestHead, backend: Backend, session: Session, decision: Deny
    ) -> Refusal:
        return Refusal(
            403,
            decision.reason.value,
            f"{session.subject.name} may not do this on {backend.name}. {decision.detail}",
            "ask an administrator for a role that allows it, or sign in as somebody else",
            _lines(cors_headers(head, backend)),
            backend.name,
            session.subject.name,
        )


def valid_until(session: Session | None, backend: Backend) -> float:
    """Seconds since the epoch until which an `Allow` for this session and backend may stand."""
    if session is None:
        return math.inf
    if backend.max_session_age is None:
        return session.expires
    return min(session.expires, session.auth_time + backend.max_session_age)


def _open_on_http(routes: HostRoutes | None, route: Route | None, path: bytes) -> bool:
    """Port 80 serves public backends that allow it; everything else moves to https."""
    if routes is None or under(path, RESERVED_PREFIX):
        return False
    if route is None:
        # What is nowhere is not on https either: a host that has none needs no certificate.
        return routes.plain
    return route.backend.allow_http and route.backend.public


def is_navigation(head: RequestHead) -> bool:
    """Whether a person's browser is opening a page, so that a redirect to the login helps.

    Sec-Fetch-Mode decides where it is sent (Fetch Metadata); else a GET that accepts HTML and is
    not marked as XHR. Prefetches never start a login.
    """
    if head.method not in (b"GET", b"HEAD") or head.upgrade is not None:
        return False
    if any(b"prefetch" in (head.get(name) or b"") for name in (b"sec-purpose", b"purpose")):
        return False
    mode = head.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    accept = head.get(b"accept")
    return (
        accept is not None
        and b"text/html" in accept.lower()
        and head.get(b"x-requested-with") is None
    )


def _before_anybody_is_asked_who(head: RequestHead, backend: Backend) -> Preflight | Refusal | None:
    """What is answered without looking at a session: broken handshakes and preflights."""
    refused = check_upgrade(head, backend) if head.upgrade is not None else None
    if refused is None and backend.cors is not None and head.method == b"OPTIONS":
        return preflight(head, backend)
    return refused


def _unavailable(backend: Backend) -> Refusal:
    """The answer where there is nowhere to send requests. Why is for logs, not for visitors."""
    return Refusal(
        503,
        "backend_unavailable",
        f"{backend.name} has nothing that could answer now",
        "try again later; who runs it finds the reason with `heim-proxy explain`",
        backend=backend.name,
    )


def upstream_path(route: Route, target: Target) -> bytes | None:
    """The path that is sent; None when raw bytes, their prefix cut off, lead elsewhere."""
    canonical = route.upstream_path(target.path)
    if route.backend.forward_path is not _RAW:
        return canonical
    path = route.upstream_path(target.raw)
    if not route.strip_prefix or route.path == b"/":
        return path
    try:
        same = not path.startswith(b"//") and canonicalise(path).path == canonical
    except BadTarget:
        return None
    return path if same else None


def path_views(target: Target, backend: Backend) -> list[bytes]:
    """Every way in which the path could be read, the canonical one first."""
    views = [target.path]
    if target.alias is not None:
        views.append(target.alias)
    if backend.forward_path is _RAW:
        views.append(target.raw)
    return views


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _lines(block: bytes) -> tuple[str, ...]:
    return tuple(block.decode("latin-1").split("\r\n")[:-1]) if block else ()


_RAW: Final = ForwardPath.RAW
_CHALLENGE: Final = Allow("acme-challenge", "a challenge of an ACME authority", public=True)
_SAFE_METHODS: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_NOT_FOUND: Final = Refusal(404, "not_found", "nothing is served here", "check the address")
_MISDIRECTED: Final = Refusal(
    421, "misdirected", "this connection was opened for another host", close=True
)
_AMBIGUOUS: Final = Refusal(
    400,
    "ambiguous_path",
    "the path can be read in two ways",
    "send it without encoded slashes and path parameters, or set forward_path: raw on the backend",
)
