"""What people are told when forwarding fails: which backend, what happened, which setting.

Nothing in here names an address, a certificate or another inner detail of an upstream; that is in
the log, under the request id that every one of these answers carries. An agent and its target are
named: they are words of the configuration, and who is to be asked.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final

from heim_proxy.edge.dial import OTHER_NAME, AgentDialError, DialError, WrongNameError
from heim_proxy.edge.limits import BODY_IDLE_S
from heim_proxy.edge.responses import Refusal
from heim_proxy.live import EndReason
from heim_proxy.routing import Backend, Route
from heim_wire.aio.transport import StreamReset
from heim_wire.errors import FAILURES, Code

__all__ = [
    "AGENT_FAILURES",
    "bad_answer",
    "bad_body",
    "body_timeout",
    "closed_early",
    "connect_timeout",
    "ended",
    "first_byte_timeout",
    "not_connected",
    "upstream_stalled",
]

AGENT_FAILURES: Final = frozenset(
    FAILURES[code].slug
    for code in (
        Code.AGENT_LOST, Code.AGENT_OFFLINE, Code.BUSY, Code.DIAL_REFUSED, Code.DIAL_TIMEOUT,
        Code.DNS, Code.FORBIDDEN, Code.INTERNAL, Code.NO_SUCH_TARGET,
    )
)  # fmt: skip
"""Codes of what went wrong between us and an agent, or at it."""

# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL.
_DATES: Final = (9, 10)
# An agent that lost its lane is back within seconds, if its machine is.
_AGENT_BACK_S: Final = 5


def not_connected(route: Route, error: DialError | TimeoutError) -> Refusal:
    """No connection could be made; the dialer's words are safe to show."""
    if isinstance(error, TimeoutError):
        return connect_timeout(route)
    if isinstance(error, AgentDialError):
        return _agent_failed(route.backend, error)
    return _unreachable(route.backend, error)


def connect_timeout(route: Route) -> Refusal:
    """No endpoint accepted a connection in time."""
    backend = route.backend
    return Refusal(
        504,
        "upstream_connect_timeout",
        f"{_named(route)} did not accept a connection within {backend.timeouts.connect:g}s",
        f"is it running? timeouts.connect of backend {backend.name} sets the limit",
        backend=backend.name,
    )


def _unreachable(backend: Backend, error: DialError) -> Refusal:
    return Refusal(
        502,
        "upstream_unreachable",
        f"backend {backend.name} cannot be reached: {error}",
        _to_check(backend.name, error),
        backend=backend.name,
    )


def _to_check(backend: str, error: DialError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in OTHER_NAME:
            return f"upstream_tls.server_name of backend {backend} is the name to expect in it"
        if cause.verify_code in _DATES:
            return f"check the dates of the certificate of backend {backend}, and the clocks"
        return f"upstream_tls.ca_file of backend {backend} holds the authorities to trust"
    if isinstance(cause, ssl.SSLError):
        return f"check that the upstream of backend {backend} speaks TLS on this port"
    if isinstance(cause, socket.gaierror) or isinstance(error, WrongNameError):
        return f"check the host name of the upstream of backend {backend}, and the proxy's DNS"
    return f"check that the upstream of backend {backend} is running"


def _agent_failed(backend: Backend, error: AgentDialError) -> Refusal:
    failure = FAILURES[error.code]
    # Of the request's own address a browser must not be told that there is nothing.
    status = 502 if failure.http_status == 404 else failure.http_status
    return Refusal(
        status,
        failure.slug,
        f"backend {backend.name} cannot be reached: {error.detail}",
        error.hint,
        backend=backend.name,
        retry_after=error.retry_after,
    )


def closed_early(route: Route, error: Exception | None = None) -> Refusal:
    """The connection ended before an answer; `error` is how."""
    backend = route.backend
    if isinstance(error, StreamReset) and error.code == Code.AGENT_LOST:
        return Refusal(
            503,
            FAILURES[Code.AGENT_LOST].slug,
            f"backend {backend.name} did not answer: {error.reason}",
            "the agent comes back by itself if it can; try again",
            backend=backend.name,
            retry_after=_AGENT_BACK_S,
        )
    return Refusal(
        502,
        "upstream_closed",
        f"{_named(route)} closed the connection without an answer",
        f"see the log of backend {backend.name} for the time of this request",
        backend=backend.name,
    )


def bad_answer(route: Route) -> Refusal:
    """The answer broke HTTP."""
    return Refusal(
        502,
        "upstream_bad_answer",
        f"{_named(route)} sent an answer that is not valid HTTP",
        "the log entry with this request id says what was wrong with it",
        backend=route.backend.name,
    )


def first_byte_timeout(route: Route) -> Refusal:
    """The answer did not begin in time."""
    backend = route.backend
    return Refusal(
        504,
        "upstream_timeout",
        f"{_named(route)} did not start to answer within {backend.timeouts.first_byte:g}s",
        f"timeouts.first_byte of backend {backend.name} sets the limit",
        backend=backend.name,
    )


def upstream_stalled(route: Route) -> Refusal:
    """The upstream stopped reading the request body."""
    backend = route.backend
    return Refusal(
        504,
        "upstream_stalled",
        f"{_named(route)} read no byte of the request body for {BODY_IDLE_S:g}s",
        f"see the log of backend {backend.name} for the time of this request",
        backend=backend.name,
    )


def body_timeout(backend: Backend) -> Refusal:
    """The client stopped sending its request body."""
    return Refusal(
        408,
        "request_body_timeout",
        f"no byte of the request body arrived for {BODY_IDLE_S:g}s",
        backend=backend.name,
    )


def bad_body(backend: Backend, detail: str) -> Refusal:
    """The request body breaks chunked framing."""
    return Refusal(
        400,
        "bad_request",
        f"malformed chunked body: {detail}",
        backend=backend.name,
        close=True,
    )


def ended(backend: Backend, reason: EndReason) -> Refusal:
    """The decision behind a request was withdrawn before its answer began."""
    status, hint = _ENDINGS.get(reason, (401, "sign in again"))
    headers = (f'WWW-Authenticate: Heim realm="{backend.name}"',) if status == 401 else ()
    return Refusal(status, reason.value, _ENDED[reason], hint, headers, backend=backend.name)


def _named(route: Route) -> str:
    """The backend, and what of which agent it is, where it is one."""
    via = f" ({route.via})" if route.via else ""
    return f"backend {route.backend.name}{via}"


_ENDINGS: Final = {
    EndReason.SHUTDOWN: (503, "try again in a moment"),
    EndReason.POLICY_CHANGED: (403, "ask an administrator for a role that allows it"),
    EndReason.BACKEND_REMOVED: (404, "check the address"),
    EndReason.BACKEND_MOVED: (503, "try again in a moment"),
}
_ENDED: Final = {
    EndReason.LOGOUT: "this session was signed out",
    EndReason.REVOKED: "this session was revoked",
    EndReason.EXPIRED: "this session has expired",
    EndReason.IDLE: "this session was idle for too long",
    EndReason.SESSION_TOO_OLD: "this page needs a more recent sign-in",
    EndReason.POLICY_CHANGED: "the policy no longer allows this request",
    EndReason.BACKEND_REMOVED: "this backend is no longer configured",
    EndReason.BACKEND_MOVED: "this backend has moved to another address",
    EndReason.SHUTDOWN: "the proxy is shutting down",
}
