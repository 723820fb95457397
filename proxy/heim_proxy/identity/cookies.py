"""Our cookies: their names, how they are set and cleared, and how to recognise them.

Every one has the `__Host-` prefix, which makes browsers insist on Secure, Path=/ and no Domain (RFC
6265bis, 4.1.3.2): a sibling host can neither read nor plant it. Everything whose name begins like
ours is ours to keep from upstreams, whatever a lenient cookie parser would make of it.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = [
    "FLOW_PREFIX",
    "LOGIN_PREFIX",
    "RETURN_COOKIE",
    "SESSION_COOKIE",
    "clear_cookie",
    "is_ours",
    "parse",
    "set_cookie",
]

SESSION_COOKIE: Final = "__Host-heim"
FLOW_PREFIX: Final = "__Host-heim-flow-"
LOGIN_PREFIX: Final = "__Host-heim-login-"
RETURN_COOKIE: Final = "__Host-heim-return"

MAX_AGE_S: Final = 400 * 86400
"""Browsers cut longer ones to 400 days (RFC 6265bis, 5.5)."""

_OURS: Final = SESSION_COOKIE.lower().encode("ascii")
_ATTRIBUTES: Final = "Path=/; Secure; HttpOnly; SameSite=Lax"
_NAME: Final = re.compile(r"__Host-heim[A-Za-z0-9_-]*")
_VALUE: Final = re.compile(r"[A-Za-z0-9_.~-]*")
# What lenient parsers take away around a name: white space and quotes.
_AROUND: Final = b" \t\r\n\f\v\0\"'"


def set_cookie(name: str, value: str, max_age: float) -> str:
    """The value of a Set-Cookie header.

    Args:
        name: One of ours.
        value: base64url or a token; nothing that would need quoting.
        max_age: Seconds, rounded down, between 1 and 400 days.

    Raises:
        ValueError: for a name or value that could change the header's meaning.
    """
    if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
        raise ValueError(f"cookie {name!r}: its name or value cannot be sent")
    age = max(1, int(min(max_age, MAX_AGE_S)))
    return f"{name}={value}; Max-Age={age}; {_ATTRIBUTES}"


def clear_cookie(name: str) -> str:
    """The value of a Set-Cookie header that makes the browser forget one of our cookies.

    Raises:
        ValueError: for a name that is not ours.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"cookie {name!r}: not one of ours")
    # The same attributes as when it was set: browsers refuse a __Host- cookie without them, and a
    # refused Set-Cookie clears nothing.
    return f"{name}=; Max-Age=0; {_ATTRIBUTES}"


def parse(cookie_header: str) -> list[tuple[str, str]]:
    """Names and values of a Cookie header in order (RFC 6265, 4.2.1), values as they came.

    Two cookies of one name are two entries: which one to believe is the caller's question. A part
    without an equals sign has an empty value.
    """
    pairs: list[tuple[str, str]] = []
    for part in cookie_header.split(";"):
        name, _, value = part.partition("=")
        name, value = name.strip(" \t"), value.strip(" \t")
        if name or value:
            pairs.append((name, value))
    return pairs


def is_ours(name: bytes) -> bool:
    """Whether a cookie of that name must never pass between an upstream and a client.

    True for every name that begins like ours once quotes, white space and case are taken away:
    upstreams have parsers that do so, and `__Host-heim_1` may be read as part of `__Host-heim`.
    """
    return name.strip(_AROUND).lower().startswith(_OURS)
