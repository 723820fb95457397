"""Paths of rules in the one form that the configuration, its routes and requests agree on.

What pathType means: Exact is that path; Prefix covers it and what is below, element by element,
and a slash at its end makes no difference; ImplementationSpecific is the same as Prefix, and empty
means ``/``. There are no regular expressions. A path that requests could never match is refused,
together with the requests that it may have been about: `closed_part`.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

__all__ = [
    "ACME_PREFIX",
    "acme_token",
    "canonical_path",
    "closed_part",
    "identity",
    "strip_suffix",
]

ACME_PREFIX: Final = "/.well-known/acme-challenge/"

_MAX_CHARS: Final = 2048
# Nearly every path: segments without dots in front, escapes or anything special.
_PLAIN: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+/?|/", re.ASCII)
_SEGMENT: Final = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*", re.ASCII)
# What may stand in a path besides: RFC 3986, 3.3, without * and $, which look like patterns.
_ALLOWED: Final = re.compile(r"[A-Za-z0-9._~!&'()+,;=:@%/-]+", re.ASCII)
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?", re.ASCII)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATTERNS: Final = ("(?", ".+")
_RESERVED: Final = "/.heim"
# Base64url without padding of at least 128 bits (RFC 8555, 8.3).
_ACME: Final = re.compile(r"/\.well-known/acme-challenge/([A-Za-z0-9_-]{16,128})", re.ASCII)
# How ingress-nginx's users strip a prefix, together with the rewrite target /$2.
_STRIPPED: Final = re.compile(r"((?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)\(/\|\$\)\(\.\*\)", re.ASCII)


class _UnusableError(ValueError):
    """The path can be no request's."""


def canonical_path(text: str) -> str | None:
    """The form in which requests are compared with a rule's path; None when none could match.

    Percent-encoded as on the wire; unreserved characters are decoded, as in every request
    (RFC 3986, 6.2.2).
    """
    if len(text) > _MAX_CHARS:
        return None
    if _PLAIN.fullmatch(text):
        return text
    try:
        return _canonical(text)
    except _UnusableError:
        return None


def _canonical(text: str) -> str:
    if any(character.isspace() or not character.isprintable() for character in text):
        raise _UnusableError
    raw = "".join(
        one if one.isascii() else "".join(f"%{byte:02X}" for byte in one.encode("utf-8", "replace"))
        for one in text
    )
    if not raw.startswith("/") or not _ALLOWED.fullmatch(raw):
        raise _UnusableError
    path = _ESCAPE.sub(_normal_escape, raw)
    # One look sees nothing in %25%32e, and %252e is left.
    if re.search(r"%25[0-9A-Fa-f]{2}", path) or any(one in path for one in _PATTERNS):
        raise _UnusableError
    try:
        plain = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise _UnusableError from None
    segments = plain.split("/")[1:]
    if "" in segments[:-1] or any(one.partition(";")[0] in (".", "..") for one in segments):
        raise _UnusableError
    lowered = plain.lower()
    if lowered == _RESERVED or lowered.startswith((f"{_RESERVED}/", f"{_RESERVED};")):
        raise _UnusableError
    if len(path) > _MAX_CHARS:
        raise _UnusableError
    return path


def _normal_escape(found: re.Match[str]) -> str:
    if found[1] is None:
        raise _UnusableError
    code = int(found[1], 16)
    # Controls, slash and backslash never survive the canonicalisation of a request.
    if code < 0x20 or code in (0x2F, 0x5C, 0x7F):
        raise _UnusableError
    return chr(code) if chr(code) in _UNRESERVED else f"%{found[1].upper()}"


def identity(path: str, *, exact: bool) -> str:
    """What two rules of one host cannot have in common, for a canonical `path`.

    Two spellings of a path are one: lenient servers decode both.
    """
    same = unquote(path, errors="replace") if "%" in path else path
    return f"={same}" if exact else same


def closed_part(text: str) -> str:
    """What is clear of a path that cannot be served: whole plain segments from its start.

    Requests below it may have been meant, so they must not reach what a broader rule names.
    """
    kept: list[str] = []
    for segment in text.split("/")[1:]:
        # No longer than a path may be, which is checked here without adding up.
        if not _SEGMENT.fullmatch(segment) or len(segment) > 63 or len(kept) == 31:
            break
        kept.append(segment)
    return "/" + "/".join(kept)


def acme_token(path: str) -> str | None:
    """The token of an ACME HTTP-01 challenge (RFC 8555, 8.3), if `path` is exactly one."""
    if not path.startswith(ACME_PREFIX):
        return None
    found = _ACME.fullmatch(path)
    return found[1] if found is not None else None


def strip_suffix(text: str) -> str | None:
    """The prefix in ``/app(/|$)(.*)``, ingress-nginx's way to strip it; None for other paths."""
    found = _STRIPPED.fullmatch(text)
    return found[1] if found is not None else None
