"""What a person reads when something went wrong, and the exit status that goes with it.

Everything human goes to standard error as `heim-tunnel: <target>: <text>`, one line each, written
with one system call so that the lines of parallel ssh processes do not mix. Text that came from
elsewhere passes `clean` on its way, so that no control character reaches a terminal.
"""

from __future__ import annotations

import os

from heim_runtime.complaints import AUTH, NO_HOST, TRY_LATER, UNAVAILABLE, Complaint
from heim_wire.errors import FAILURES, by_slug
from heim_wire.messages import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_wire.events import Reset
    from heim_wire.problem import Refused

__all__ = [
    "UNAUTHENTICATED",
    "clean",
    "joined",
    "refusal",
    "reset",
    "say",
    "token_refused",
    "with_id",
]

UNAUTHENTICATED = 401
"""The HTTP status of a refusal that another token may help against."""

_RENEWAL = "whoever runs the proxy makes a new one with: heim-proxy token create"

_BY_HTTP = {UNAUTHENTICATED: AUTH, 403: AUTH, 404: NO_HOST, 429: TRY_LATER, 503: TRY_LATER}

LINE_BYTES = 600
"""Longer texts are cut: a captive portal must not fill the terminal."""


def clean(text: str, limit: int = LINE_BYTES) -> str:
    """The text as one line without control characters, `limit` bytes at most."""
    return printable(text, limit)


def joined(*parts: str) -> str:
    """Parts of one line with semicolons between them, and no period before one; "" is left out."""
    *first, last = [part for part in parts if part] or [""]
    return "; ".join((*(part.rstrip(" .;") for part in first), last))


def with_id(text: str, request_id: str) -> str:
    """A text with what the proxy's log calls the connection, if that is known."""
    return f"{text} (request {request_id})" if request_id else text


def refusal(refused: Refused) -> Complaint:
    """The complaint for a request that the proxy, or something in front of it, refused."""
    failure = by_slug(refused.code)
    parts = [refused.detail, refused.hint]
    if refused.retry_after is not None:
        parts.append(f"retry in {refused.retry_after:.0f} s")
    text = joined(*parts)
    if failure is not None:
        status = failure.exit_status
    else:
        # Not the proxy's words: a load balancer that is overloaded, a captive portal, another site.
        status = _BY_HTTP.get(refused.status, UNAVAILABLE)
    return Complaint(with_id(text, refused.request_id), status, detail=f"status {refused.status}")


def token_refused(refused: Refused, path: str) -> Complaint:
    """The complaint of a program whose service token was not taken: nobody signs in for it."""
    if refused.status != UNAUTHENTICATED:
        return refusal(refused)
    text = joined(
        f"the service token in {clean(path, 200)} is not taken: {refused.detail}", _RENEWAL
    )
    return Complaint(with_id(text, refused.request_id), AUTH, detail=f"status {refused.status}")


def reset(event: Reset, request_id: str) -> Complaint:
    """The complaint for a stream that was ended by a RESET."""
    failure = FAILURES.get(event.code)
    text = clean(event.reason)
    if failure is None:
        return Complaint(with_id(text or f"ended with code {event.code}", request_id))
    return Complaint(with_id(text or failure.meaning, request_id), failure.exit_status)


def say(target: str | None, text: str) -> None:
    """Write one line to standard error; a closed or full standard error is no reason to stop."""
    about = f"{clean(target, 255)}: " if target else ""
    line = f"heim-tunnel: {about}{clean(text)}\n".encode("utf-8", "replace")
    try:
        os.write(2, line)
    except OSError:
        return
