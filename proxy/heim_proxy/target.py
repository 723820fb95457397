"""The one canonicaliser: a request target and a Host become immutable values, once.

A target is matched, judged and forwarded from the same `Target`, so that what was judged is what
the upstream sees (security.md, part 1, 1). Everything two servers could read differently is
either resolved here or refused with `BadTarget`: dot segments are resolved, ``//`` merged,
percent-encoded unreserved characters decoded once (RFC 3986, 6.2.2); encoded backslashes, NULs
and control bytes, double encoding, raw backslashes, fragments, ``..;`` and invalid UTF-8 are
refused.

Two spellings survive canonicalisation that some servers treat alike: ``;parameters`` of a segment
(Java containers drop them) and percent-encoded sub-delimiters. For those the target carries an
`alias`, the looser reading; a request is allowed only when both readings lead to the same route
and both are allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["BadTarget", "Target", "canonical_host", "canonicalise"]

_UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
# What a path may hold unencoded besides unreserved characters and ";", which has its own rule.
# Browsers send the second group raw although RFC 3986 says they should not; no server reads them
# as anything else, so they pass unchanged.
_PLAIN: Final = _UNRESERVED + b"/!$&'()*+,=:@" + b'"<>[]^`{|}'
# A target that is canonical as it stands, as nearly all are: plain segments that do not begin with
# a dot. One match decides it, without backtracking (possessive quantifiers).
_ORDINARY: Final = re.compile(
    rb"(?=/)((?:/[%b][%b]*+)*+/?)(\?[^#]*+)?"
    % (re.escape(_PLAIN.translate(None, b"./")), re.escape(_PLAIN.translate(None, b"/")))
)
_ESCAPE: Final = re.compile(rb"%(?:([0-9A-Fa-f]{2})|)")
_DOUBLE: Final = re.compile(rb"%25[0-9A-Fa-f]{2}")
_DOT_PARAMETER: Final = re.compile(rb"/\.{1,2}(?:;|%3B)")
_ENCODED_SLASH: Final = re.compile(rb"%2[Ff]")
_HOST_LABEL: Final = re.compile(rb"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IPV6: Final = re.compile(rb"\[[0-9a-f:.]{2,45}\]")


class BadTarget(ValueError):  # noqa: N818 - reads as what it is at the raise
    """A request target that could be read in two ways; the message says which part."""


@dataclass(slots=True, eq=False)
class Target:
    """A request target, received and understood once; never changed after it was made.

    (Not `frozen`: that costs 0.8 µs of the 1 µs this takes, on every request.)

    `raw` is the path exactly as received, `path` its canonical form, `query` the bytes from the
    question mark on, kept as received ("" when there is none). `alias` is the looser reading of
    `path`, None when there is only one. `encoded_slash` says that `raw` holds %2F, which only
    backends with ``forward_path: raw`` accept.
    """

    raw: bytes
    path: bytes
    query: bytes
    alias: bytes | None = None
    encoded_slash: bool = False


def canonicalise(target: bytes) -> Target:
    """Understand an origin-form request target (RFC 9112, 3.2.1).

    Raises:
        BadTarget: When it does not start with a slash or could be read in two ways.
    """
    ordinary = _ORDINARY.fullmatch(target)
    if ordinary is not None:
        path, query = ordinary.groups(b"")
        return Target(path, path, query)
    raw, mark, query = target.partition(b"?")
    if mark:
        query = mark + query
        if b"#" in query:
            raise BadTarget("fragment in the request target")
    if not raw.startswith(b"/"):
        raise BadTarget("request target does not start with a slash")
    return _resolve(raw, query)


def _resolve(raw: bytes, query: bytes) -> Target:
    if b"\\" in raw or b"#" in raw:
        raise BadTarget("backslash or fragment in the path")
    if raw.translate(None, _PLAIN + b"%;"):
        raise BadTarget("character in the path that must be percent-encoded")
    path = raw
    encoded_slash = False
    if b"%" in path:
        encoded_slash = _ENCODED_SLASH.search(path) is not None
        path = _decode(_ENCODED_SLASH.sub(b"/", path))
    if _DOT_PARAMETER.search(path):
        raise BadTarget("dot segment with a parameter")
    if b"//" in path or b"/." in path:
        path = _remove_dot_segments(path)
    alias = _loosen(path) if b"%" in path or b";" in path else path
    return Target(raw, path, query, alias if alias != path else None, encoded_slash)


def _decode(path: bytes) -> bytes:
    """Decode unreserved characters once and upper-case the rest; refuse what hides meaning."""
    decoded = bytearray()

    def replace(match: re.Match[bytes]) -> bytes:
        digits = match.group(1)
        if digits is None:
            raise BadTarget("incomplete percent-encoding in the path")
        code = int(digits, 16)
        if code < 0x20 or code == 0x7F or code == 0x5C:
            raise BadTarget("encoded control character or backslash in the path")
        decoded.append(code)
        return bytes((code,)) if code in _UNRESERVED else b"%" + digits.upper()

    plain = _ESCAPE.sub(replace, path)
    # Only now: of %25%32e the first look sees nothing, and %252e is left.
    if _DOUBLE.search(plain):
        raise BadTarget("doubly encoded character in the path")
    if any(code >= 0x80 for code in decoded):
        _require_utf8(path)
    return plain


def _require_utf8(path: bytes) -> None:
    whole = _ESCAPE.sub(lambda match: bytes((int(match.group(1), 16),)), path)
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadTarget("percent-encoded bytes in the path are not UTF-8") from error


def _remove_dot_segments(path: bytes) -> bytes:
    """RFC 3986, 5.2.4, with empty segments merged; never climbs above the root."""
    kept: list[bytes] = []
    segments = path.split(b"/")
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment not in (b"", b"."):
            kept.append(segment)
    resolved = b"/" + b"/".join(kept)
    if segments[-1] in (b"", b".", b"..") and resolved != b"/":
        resolved += b"/"
    return resolved


def _loosen(path: bytes) -> bytes:
    """How a lenient server could read a canonical path: parameters dropped, escapes decoded."""

    def replace(match: re.Match[bytes]) -> bytes:
        code = int(match.group(1), 16)
        # What stays encoded cannot be mistaken for a delimiter: %2F is already a slash by now.
        return match.group() if code <= 0x20 or code >= 0x7F or code in b"%?#" else bytes((code,))

    segments = _ESCAPE.sub(replace, path).split(b"/")
    bare = b"/".join(segment.partition(b";")[0] for segment in segments)
    return _remove_dot_segments(bare)


def canonical_host(value: bytes) -> str | None:
    """A Host header as lower-case name without port or trailing dot; None when it is not valid.

    Accepts a DNS name of letters, digits and inner hyphens (at most 253 bytes, RFC 1123, 2.1), an
    IPv4 address or a bracketed IPv6 address, with an optional port (RFC 9110, 7.2). User
    information, paths, spaces and non-ASCII names are not valid; browsers send IDNs as punycode.
    """
    name = value.lower()
    if name.startswith(b"["):
        name, bracket, rest = name.partition(b"]")
        name += bracket
        if not _IPV6.fullmatch(name) or not _valid_port(rest):
            return None
        return name.decode("ascii")
    name, colon, port = name.partition(b":")
    if colon and not _valid_port(colon + port):
        return None
    if name.endswith(b"."):
        name = name[:-1]
    if not name or len(name) > 253:
        return None
    if not all(_HOST_LABEL.fullmatch(label) for label in name.split(b".")):
        return None
    return name.decode("ascii")


def _valid_port(text: bytes) -> bool:
    if not text:
        return True
    digits = text[1:]
    return text[:1] == b":" and digits.isdigit() and len(digits) <= 5 and 0 < int(digits) < 65536
