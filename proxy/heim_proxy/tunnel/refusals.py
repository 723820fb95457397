"""What people are told when a tunnel request is refused, in the codes that `heim-tunnel` knows.

Every one says what happened, to which backend, and what to do. Nothing names an upstream's address:
that is in the log, under the request id that every answer carries.
"""

from __future__ import annotations

from typing import Final

from heim_proxy.access.policy import Deny, DenyReason
from heim_proxy.edge.dial import AgentDialError
from heim_proxy.edge.responses import Refusal
from heim_proxy.routing import Backend
from heim_proxy.tunnel.passage import Ending, again
from heim_proxy.tunnel.terms import span
from heim_wire.errors import FAILURES, Code
from heim_wire.handshake import SUBPROTOCOL

__all__ = [
    "agent_failed",
    "ambiguous_backend",
    "busy",
    "ended",
    "for_browsers",
    "forbidden",
    "going_away",
    "internal",
    "login_host_meant",
    "malformed",
    "no_answer",
    "no_such_target",
    "not_an_upgrade",
    "other_protocol",
    "sign_in_again",
    "unauthenticated",
    "unavailable",
    "unreachable",
]

# Streams come and go with people's work; programs that run into the limit ask this often.
_BUSY_RETRY_S: Final = 5
# A restart takes seconds; every client asks again then, so they must not all wait the same.
_RESTART_RETRY_S: Final = 5
_UPDATE: Final = "update heim-tunnel"
_REPORT: Final = "tell an administrator the request id"


def _refusal(code: int, detail: str, hint: str, *, backend: str = "", user: str = "") -> Refusal:
    failure = FAILURES[code]
    return Refusal(failure.http_status, failure.slug, detail, hint, backend=backend, user=user)


def not_an_upgrade(detail: str) -> Refusal:
    """The request is not a WebSocket handshake of version 13 (RFC 9110, 15.5.22; RFC 6455, 4.4)."""
    return Refusal(
        426,
        FAILURES[Code.PROTOCOL].slug,
        detail,
        "this address is for heim-tunnel; applications have their own",
        ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    )


def malformed(detail: str) -> Refusal:
    """The request breaks the tunnel's rules."""
    return _refusal(Code.PROTOCOL, detail, _UPDATE)


def other_protocol(offered: str) -> Refusal:
    """No version of the protocol is spoken by both sides; `offered` is safe to show."""
    detail = f"this proxy speaks {SUBPROTOCOL}, the client {offered or 'names no protocol'}"
    return _refusal(Code.PROTOCOL, detail, _UPDATE)


def unauthenticated(
    detail: str, login_url: str, *, presented: bool, program: bool = False
) -> Refusal:
    """There is no bearer token that is good.

    Args:
        detail: Why.
        login_url: Where people log in.
        presented: Whether there was a token at all.
        program: Whether it was a service token, for which nobody can log in.
    """
    challenge = 'WWW-Authenticate: Bearer realm="heim"'
    if presented:
        # RFC 6750, 3.1: a request without credentials is told no error code.
        challenge += ', error="invalid_token"'
    return Refusal(
        401,
        FAILURES[Code.UNAUTHENTICATED].slug,
        _clause(detail),
        again(program=program),
        (challenge,),
        login_url="" if program else login_url,
    )


def sign_in_again(backend: Backend, user: str, login_url: str, *, program: bool) -> Refusal:
    """They proved who they are too long ago for this backend (`max_session_age`)."""
    return Refusal(
        401,
        FAILURES[Code.UNAUTHENTICATED].slug,
        f"{backend.name} needs a login that is not older than {span(backend.max_session_age or 0)}",
        again(program=program),
        ('WWW-Authenticate: Bearer realm="heim", error="invalid_token"',),
        backend.name,
        user,
        login_url="" if program else login_url,
    )


def ambiguous_backend(detail: str) -> Refusal:
    """Host and Heim-Backend do not say together which backend is meant."""
    return _refusal(Code.PROTOCOL, detail, "name one backend, by its name or by its host")


def login_host_meant(login_host: str) -> Refusal:
    """The login host was asked for as if it were a backend."""
    detail = f"{login_host} is where people log in, not a backend"
    return _refusal(Code.NO_SUCH_TARGET, detail, "heim-tunnel list shows what you may reach")


def for_browsers(name: str, url: str) -> Refusal:
    """The backend has no tcp, and the person may open it in a browser."""
    return _refusal(Code.NO_SUCH_TARGET, f"{name} is for the browser", f"open {url}")


def no_such_target(named: str, near: str | None) -> Refusal:
    """There is no tcp backend of that name; `near` is one that the person may connect to."""
    guess = f"; did you mean {near}?" if near is not None else ""
    detail = f"there is no backend {named} that takes connections{guess}"
    return _refusal(Code.NO_SUCH_TARGET, detail, "check the name")


def forbidden(decision: Deny, user: str) -> Refusal:
    """Policy says no."""
    if decision.reason is DenyReason.INTERNAL:
        return internal(decision.detail, backend=decision.backend, user=user)
    return _refusal(
        Code.FORBIDDEN,
        f"{user} may not connect to {decision.backend}: {_clause(decision.detail)}",
        "ask an administrator for one, or log in as somebody else",
        backend=decision.backend,
        user=user,
    )


def busy(backend: str, user: str, limit: int) -> Refusal:
    """The person has as many streams open as they may have (`tunnel.streams_per_user`)."""
    return Refusal(
        429,
        FAILURES[Code.BUSY].slug,
        f"{user} has too many connections open ({limit}, over all backends)",
        f"close some, or try again in {_BUSY_RETRY_S} s",
        backend=backend,
        user=user,
        retry_after=_BUSY_RETRY_S,
    )


def going_away() -> Refusal:
    """The proxy is shutting down."""
    return Refusal(
        503,
        FAILURES[Code.GOING_AWAY].slug,
        "the proxy is restarting",
        "connect again in a moment",
        retry_after=_RESTART_RETRY_S,
        close=True,
    )


def unavailable() -> Refusal:
    """Only the store could tell whether the token is good, and it does not answer."""
    return Refusal(
        503,
        FAILURES[Code.BUSY].slug,
        "your login cannot be checked just now",
        "try again in a moment",
        retry_after=_BUSY_RETRY_S,
    )


def internal(detail: str, *, backend: str = "", user: str = "") -> Refusal:
    """A fault of our own."""
    return _refusal(Code.INTERNAL, detail, _REPORT, backend=backend, user=user)


def unreachable(backend: str, user: str, reason: str, *, code: int = Code.DIAL_REFUSED) -> Refusal:
    """The upstream could not be connected to; `reason` is the dialer's, safe to show."""
    detail = f"the upstream of {backend} cannot be reached: {reason}"
    hint = f"is it running? {_REPORT}"
    return _refusal(code, detail, hint, backend=backend, user=user)


def no_answer(backend: str, user: str, seconds: float, *, via: str = "") -> Refusal:
    """The upstream did not accept a connection in time; `via` names a target of an agent."""
    reason = f"no answer within {seconds:g}s"
    if via:
        reason = f"{via} did not answer within {seconds:g}s"
    return unreachable(backend, user, reason, code=Code.DIAL_TIMEOUT)


def agent_failed(backend: str, user: str, error: AgentDialError) -> Refusal:
    """The agent is not there, may not, or could not connect."""
    failure = FAILURES[error.code]
    return Refusal(
        failure.http_status,
        failure.slug,
        f"{backend} cannot be reached: {error.detail}",
        error.hint,
        backend=backend,
        user=user,
        retry_after=error.retry_after,
    )


def ended(ending: Ending, backend: str, user: str) -> Refusal:
    """The permission was withdrawn before the stream began."""
    return _refusal(ending.code, ending.words, _REPORT, backend=backend, user=user)


def _clause(sentence: str) -> str:
    """A sentence as part of one: heim-tunnel puts everything on one line."""
    return f"{sentence[:1].lower()}{sentence[1:]}".rstrip(".")
