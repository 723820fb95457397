"""May this request become a stream, and to where: decisions on values, made before any dialling.

The order is fixed: handshake → credentials → (the token is judged elsewhere) → which backend →
policy → age of the login. What is refused before the token was good tells nothing about what there
is behind the proxy. Cookies and Origin mean nothing here: a browser cannot send this request's
credentials, and what it can send is not looked at.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from heim_proxy.access.policy import Allow, shown
from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.judge import Judge
from heim_proxy.edge.responses import Refusal
from heim_proxy.identity.bearer import MAX_BEARER_CHARACTERS
from heim_proxy.identity.session import Session
from heim_proxy.routing import TcpTarget
from heim_proxy.snapshot import Snapshot
from heim_proxy.store.base import SessionKind
from heim_proxy.target import canonical_host
from heim_proxy.tunnel import refusals
from heim_wire.handshake import SUBPROTOCOL, valid_key

__all__ = ["Wish", "authorise", "read"]

# RFC 6750, 2.1 (b64token), in one piece: no list, no second scheme.
_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9\-._~+/]+=*)", re.IGNORECASE)
# A name is shown back to whoever sent it, and is compared with every backend's.
_MAX_NAME: Final = 253
_SIMILAR: Final = 0.6


@dataclass(frozen=True, slots=True)
class Wish:
    """What a well-formed request asks for. `named` is its Heim-Backend, None without one."""

    token: str = field(repr=False)
    key: str
    named: bytes | None


def read(head: RequestHead, login_url: str) -> Wish | Refusal:
    """What a request asks for, as far as it can be told from its head alone."""
    if head.upgrade != b"websocket" or head.version != b"HTTP/1.1":
        return refusals.not_an_upgrade("the tunnel is a WebSocket (RFC 6455) over HTTP/1.1")
    if head.method != b"GET" or head.has_body:
        return refusals.malformed("a WebSocket handshake is a GET without a body (RFC 6455, 4.1)")
    if head.target.query:
        # Where a credential would be in every log on the way.
        return refusals.malformed("the tunnel's address takes no query")
    if head.get(b"sec-websocket-version") != b"13":
        return refusals.not_an_upgrade("only WebSocket version 13 is served")
    key = (head.get(b"sec-websocket-key") or b"").decode("latin-1")
    if not valid_key(key):
        return refusals.malformed("Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455, 4.1)")
    offered = b", ".join(_values(head, b"sec-websocket-protocol"))
    if SUBPROTOCOL.encode("ascii") not in {one.strip() for one in offered.split(b",")}:
        return refusals.other_protocol(shown(offered))
    named = _values(head, b"heim-backend")
    if len(named) > 1:
        return refusals.ambiguous_backend("more than one Heim-Backend header")
    given = _values(head, b"authorization")
    if not given:
        return refusals.unauthenticated("you are not logged in", login_url, presented=False)
    found = _BEARER.fullmatch(given[0])
    if len(given) > 1 or found is None or len(found[1]) > MAX_BEARER_CHARACTERS:
        return refusals.unauthenticated(
            "Authorization is not one bearer token", login_url, presented=True
        )
    return Wish(found[1].decode("ascii"), key, named[0] if named else None)


def authorise(
    judge: Judge, session: Session, wish: Wish, *, host: str, now: float
) -> tuple[TcpTarget, Allow] | Refusal:
    """Which backend is meant, and the decision on it.

    Args:
        judge: Of the snapshot in force.
        session: Whom the token speaks for.
        wish: What was asked for.
        host: Canonical host that was asked.
        now: Seconds since the epoch.
    """
    snapshot = judge.snapshot
    target = _target(snapshot, session, wish.named, host)
    if isinstance(target, Refusal):
        return target
    backend = target.backend
    user = session.subject.name
    decision = judge.grants(session).connect(backend.name)
    if not isinstance(decision, Allow):
        return refusals.forbidden(decision, user)
    max_age = backend.max_session_age
    if max_age is not None and now - session.auth_time > max_age:
        program = session.kind is SessionKind.SERVICE
        return refusals.sign_in_again(backend, user, snapshot.login_url, program=program)
    return target, decision


def _target(
    snapshot: Snapshot, session: Session, named: bytes | None, host: str
) -> TcpTarget | Refusal:
    """The target that Host and Heim-Backend name together."""
    meant = _called(snapshot, named) if named is not None else None
    if host == snapshot.login_host:
        if named is None:
            return refusals.login_host_meant(host)
        return meant or _unknown(snapshot, session, shown(named[:_MAX_NAME]))
    target = snapshot.tcp_for(host)
    if named is not None and meant is not target:
        return refusals.ambiguous_backend(
            f"Heim-Backend names {shown(named[:_MAX_NAME])}, and Host {host}"
        )
    return target or _unknown(snapshot, session, host)


def _called(snapshot: Snapshot, named: bytes) -> TcpTarget | None:
    """The target of a backend's name, or of one of its hosts."""
    target = snapshot.tcp.get(named.decode("latin-1"))
    if target is None:
        host = canonical_host(named)
        target = snapshot.tcp_for(host) if host is not None else None
    return target


def _unknown(snapshot: Snapshot, session: Session, named: str) -> Refusal:
    """404, with what this person may open or connect to under that name or a similar one."""
    for one in snapshot.applications(session.subject):
        if named in (one.name, urlsplit(one.url).hostname):
            return refusals.for_browsers(one.name, one.url)
    reachable = snapshot.reachable_tcp(session.subject)
    names = {spelling: name for name, host in reachable for spelling in (name, host)}
    near = difflib.get_close_matches(named, names, n=1, cutoff=_SIMILAR)
    if not near:
        label = named.partition(".")[0]
        near = difflib.get_close_matches(label, [name for name, _ in reachable], 1, _SIMILAR)
    return refusals.no_such_target(named, names[near[0]] if near else None)


def _values(head: RequestHead, name: bytes) -> list[bytes]:
    """The values of every header of a lower-case name, in order."""
    size = len(name)
    return [
        line[size + 1 :].strip(b" \t")
        for line in head.fields
        if line[size : size + 1] == b":" and line[:size].lower() == name
    ]
