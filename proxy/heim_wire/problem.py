"""Why a request for a tunnel was refused, in words that are safe to show.

The proxy says it with problem+json (RFC 9457). Anything else comes from something in between: a
load balancer, a captive portal, a web server that knows nothing of tunnels.
"""

from __future__ import annotations

from heim_wire.errors import WireError, by_slug
from heim_wire.messages import decode, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from heim_wire.messages import Message

__all__ = ["Refused", "is_problem", "refusal"]

_PROBLEM: Final = "application/problem+json"
_TEXT_LIMIT: Final = 512
_URL_LIMIT: Final = 2048
# Nobody waits for longer without being told again.
_RETRY_LIMIT_S: Final = 24 * 3600.0
_CAPTIVE_HINT: Final = "if you are on a guest network, open a web page in a browser and sign in"


class Refused(Exception):  # noqa: N818 - the name says what the peer did
    """The answer was not the wanted one. Every text is one line, printable and bounded.

    Attributes:
        status: HTTP status; 0 when there was no usable HTTP answer.
        code: A slug of `heim_wire.errors` if the proxy said why, else "" (something in between
            answered).
        detail: What happened, for people; never empty.
        hint: What to do about it, or "".
        login_url: Where to log in, or "". Its form is checked, not whose it is.
        retry_after: Seconds to wait before trying again, or None.
        request_id: What the proxy's log calls this request, or "".
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        login_url: str = "",
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.login_url = login_url
        self.retry_after = retry_after
        self.request_id = request_id


def refusal(speaker: str, status: int, fields: Mapping[str, str], body: bytes) -> Refused:
    """The refusal that an answer means.

    Args:
        speaker: Who was asked, for messages.
        status: HTTP status of the answer.
        fields: Its header fields, names in lower case.
        body: Its body, perhaps only the beginning.
    """
    said = _problem(body) if is_problem(fields) else None
    retry_after = _seconds(fields.get("retry-after"))
    request_id = printable(fields.get("heim-request-id", ""), 64)
    if said is None:
        detail, hint = _foreign(speaker, status, fields)
        return Refused(
            status, "", detail, hint=hint, retry_after=retry_after, request_id=request_id
        )
    code = _text(said.get("code"), 64)
    told = said.get("retry_after")
    return Refused(
        status,
        code if by_slug(code) is not None else "",
        _text(said.get("detail")) or _text(said.get("title")) or f"{speaker} answered {status}",
        hint=_text(said.get("hint")),
        login_url=_url(said.get("login_url")),
        retry_after=_seconds(told) if told is not None else retry_after,
        request_id=_text(said.get("request_id"), 64) or request_id,
    )


def is_problem(fields: Mapping[str, str]) -> bool:
    """Whether an answer's fields announce problem details."""
    return _kind(fields) == _PROBLEM


def _kind(fields: Mapping[str, str]) -> str:
    return fields.get("content-type", "").partition(";")[0].strip().lower()


def _foreign(speaker: str, status: int, fields: Mapping[str, str]) -> tuple[str, str]:
    """What an answer means that is not the proxy's: a sentence, and what to do."""
    if 300 <= status < 400:
        # Never followed: a token must not go where somebody on the way points to.
        where = printable(fields.get("location", ""), 128)
        return f"{speaker} answered {status}, a redirect to {where or 'nowhere'}", _CAPTIVE_HINT
    if status == 407:
        return f"{speaker} answered 407: it wants a user name and password", (
            "set them in HTTPS_PROXY as http://user:password@host:port"
        )
    if status < 300 and _kind(fields) == "text/html":
        return f"{speaker} answered with a web page instead of a tunnel", _CAPTIVE_HINT
    if status == 404:
        return f"{speaker} answered 404: there is no tunnel at this address", (
            "check the host name; a web server in front of Heim must pass on /.heim/"
        )
    if status < 300 or status == 426:
        return f"{speaker} answered {status}: something on the way does not pass on WebSocket", (
            "an HTTP proxy or load balancer in front of Heim must allow upgrades"
        )
    return f"{speaker} answered {status} without saying why", ""


def _problem(body: bytes) -> Message | None:
    try:
        return decode(body)
    except WireError:
        return None


def _text(value: object, limit: int = _TEXT_LIMIT) -> str:
    return printable(value, limit) if isinstance(value, str) else ""


def _url(value: object) -> str:
    """An https URL, or an http one of this machine; else "": people click on it."""
    if not isinstance(value, str) or len(value) > _URL_LIMIT:
        return ""
    if not value.isascii() or not value.isprintable() or set(' "<>\\^`{|}') & set(value):
        return ""
    scheme, separator, rest = value.partition("://")
    authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
    if not separator or not authority or "@" in authority:
        return ""
    host = authority.rpartition(":")[0] if authority.rpartition(":")[2].isdecimal() else authority
    local = host in ("127.0.0.1", "[::1]", "localhost") or host.endswith(".localhost")
    return value if scheme == "https" or (scheme == "http" and local) else ""


def _seconds(value: object) -> float | None:
    """A delay in seconds (RFC 9110, 10.2.3); dates are not understood."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return None
    return min(float(value), _RETRY_LIMIT_S)
