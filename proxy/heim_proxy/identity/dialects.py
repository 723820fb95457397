"""Identity-header dialects: how we tell an upstream who is asking, in the words it understands.

One table, `DIALECTS`: name in configuration → the headers it consists of. What a value cannot
carry is percent-encoded (RFC 3986, 2.1, over UTF-8) or the header is left out; a value is never
split over headers, and never cut, since half an identity is another identity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from heim_proxy.identity.families import FAMILIES, is_identity_header, normal_form

__all__ = [
    "DIALECTS",
    "FAMILIES",
    "HeaderBlock",
    "Identity",
    "bounded",
    "encode_value",
    "header_lines",
    "is_identity_header",
    "normal_form",
]

MAX_VALUE_BYTES: Final = 1024
"""Of one encoded identity. An e-mail has at most 254 characters (RFC 5321), a `sub` 255 (OIDC)."""

MAX_LIST_BYTES: Final = 4096
"""Of one encoded list of groups or roles: half of what common servers take as one header line."""

# Everything but printable ASCII, the escape character itself, and spaces that parsers would trim.
_UNSAFE: Final = re.compile(rb"[^ -$&-~]|\A +| +\Z")
_UNSAFE_IN_LIST: Final = re.compile(rb"[^ -$&-+\--~]|\A +| +\Z")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a dialect may say. `assertion` is a signed token and hides itself in logs."""

    user: str
    email: str | None
    groups: tuple[str, ...]
    assertion: str

    def __repr__(self) -> str:
        return f"<Identity {self.user!r} groups={len(self.groups)}>"


@dataclass(frozen=True, slots=True)
class HeaderBlock:
    """Header lines made for one session and host, and what they were made from.

    Good until `renew_at` (seconds since the epoch) for the same `maker`, `backend`, `dialects` and
    `roles`.
    """

    maker: object
    backend: str
    dialects: tuple[str, ...]
    roles: tuple[str, ...]
    renew_at: float
    lines: bytes

    def __repr__(self) -> str:
        return f"<HeaderBlock {self.backend} {','.join(self.dialects)} <sealed>>"


Value = Callable[[Identity], str | None]
"""Gives the encoded value of one header; None leaves the header out."""


def encode_value(text: str | None, *, in_list: bool = False) -> str | None:
    """`text` as a header value; None when there is none or it is longer than MAX_VALUE_BYTES.

    Printable ASCII stays as it is; `%`, control characters, everything else, and spaces at either
    end (parsers trim them) become %XX of their UTF-8 bytes.

    Args:
        text: Anything, also what a hostile provider sent.
        in_list: Encode commas too, because the value is one of a comma-separated list.
    """
    if not text:
        return None
    try:
        raw = text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: JSON can say it, UTF-8 cannot
        return None
    if len(raw) > MAX_VALUE_BYTES:
        return None
    unsafe = _UNSAFE_IN_LIST if in_list else _UNSAFE
    value = unsafe.sub(_percent, raw)
    return value.decode("ascii") if len(value) <= MAX_VALUE_BYTES else None


def _percent(match: re.Match[bytes]) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in match[0])


def bounded(names: Iterable[str]) -> tuple[str, ...]:
    """The names, sorted, as many as fit MAX_LIST_BYTES encoded and joined by commas.

    A name that cannot be encoded is left out. The list ends with the last whole name that fits: a
    truncated list can only grant less, a truncated name could grant something else.
    """
    kept: list[str] = []
    room = MAX_LIST_BYTES
    for name in sorted(names):
        encoded = encode_value(name, in_list=True)
        if encoded is None:
            continue
        room -= len(encoded) + 1
        if room < -1:
            break
        kept.append(name)
    return tuple(kept)


def _join(names: Iterable[str]) -> str | None:
    """A comma-separated list; a comma inside a name is encoded, so that it stays one name."""
    encoded = (encode_value(name, in_list=True) for name in names)
    return ",".join(value for value in encoded if value) or None


DIALECTS: Final[Mapping[str, tuple[tuple[str, Value], ...]]] = {
    "heimdallr": (
        ("X-Auth-Id", lambda identity: encode_value(identity.user)),
        ("X-Auth-Token", lambda identity: identity.assertion or None),
    ),
    "forwarded": (
        ("X-Forwarded-User", lambda identity: encode_value(identity.user)),
        ("X-Forwarded-Email", lambda identity: encode_value(identity.email)),
        ("X-Forwarded-Groups", lambda identity: _join(identity.groups)),
    ),
}
"""Name in `identity_headers:` → headers in the order in which they are sent."""


def header_lines(identity: Identity, dialects: Iterable[str]) -> bytes:
    """Complete header lines of the dialects, each ended by CRLF, in their order.

    Raises:
        KeyError: for a dialect that is not in the table; configuration was checked against it.
    """
    lines: list[str] = []
    for dialect in dialects:
        for name, value_of in DIALECTS[dialect]:
            value = value_of(identity)
            if value is not None:
                lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("ascii")
