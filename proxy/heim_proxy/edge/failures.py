"""What people are told when forwarding fails: which backend, what happened, which setting.

Nothing in here names an address, a certificate or another inner detail of an upstream; that is in
the log, under the request id that every one of these answers carries.
"""

from __future__ import annotations

from typing import Final

from heim_proxy.edge.limits import BODY_IDLE_S
from heim_proxy.edge.responses import Refusal
from heim_proxy.live import EndReason
from heim_proxy.routing import Backend

__all__ = [
    "bad_answer",
    "bad_body",
    "body_timeout",
    "closed_early",
    "connect_timeout",
    "ended",
    "first_byte_timeout",
    "unreachable",
    "upstream_stalled",
]


def connect_timeout(backend: Backend) -> Refusal:
    """No endpoint accepted a connection in time."""
    return Refusal(
        504,
        "upstream_connect_timeout",
        f"backend {backend.name} did not accept a connection within {backend.timeouts.connect:g}s",
        f"is it running? timeouts.connect of backend {backend.name} sets the limit",
        backend=backend.name,
    )


def unreachable(backend: Backend, reason: str) -> Refusal:
    """No connection could be made; `reason` is the dialer's, safe to show."""
    return Refusal(
        502,
        "upstream_unreachable",
        f"backend {backend.name} cannot be reached: {reason}",
        f"check that the upstream of backend {backend.name} is running",
        backend=backend.name,
    )


def closed_early(backend: Backend) -> Refusal:
    """The connection ended before an answer."""
    return Refusal(
        502,
        "upstream_closed",
        f"backend {backend.name} closed the connection without an answer",
        f"see the log of backend {backend.name} for the time of this request",
        backend=backend.name,
    )


def bad_answer(backend: Backend) -> Refusal:
    """The answer broke HTTP."""
    return Refusal(
        502,
        "upstream_bad_answer",
        f"backend {backend.name} sent an answer that is not valid HTTP",
        "the log entry with this request id says what was wrong with it",
        backend=backend.name,
    )


def first_byte_timeout(backend: Backend) -> Refusal:
    """The answer did not begin in time."""
    return Refusal(
        504,
        "upstream_timeout",
        f"backend {backend.name} did not start to answer within {backend.timeouts.first_byte:g}s",
        f"timeouts.first_byte of backend {backend.name} sets the limit",
        backend=backend.name,
    )


def upstream_stalled(backend: Backend) -> Refusal:
    """The upstream stopped reading the request body."""
    return Refusal(
        504,
        "upstream_stalled",
        f"backend {backend.name} read no byte of the request body for {BODY_IDLE_S:g}s",
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
