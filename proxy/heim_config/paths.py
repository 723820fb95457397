"""The grammar of route paths and of permission patterns: what may be written, not what it matches.

The text is kept as written, in UTF-8 or percent-encoded; building the snapshot turns it into the
bytes that canonical request paths are compared with. What no canonical request path can hold, or
what looks like a regular expression, is refused here, because it would silently never match.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from heim_config.problems import mistake, show

__all__ = ["decoded", "parse_path", "parse_pattern"]

MAX_CHARS: Final = 2048

_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
# An encoded slash is a slash to some servers and not to others; %5C, controls and doubly encoded
# bytes never survive canonicalisation (security.md, part 1).
_HIDDEN: Final = re.compile(r"%(?:2[Ff]|5[Cc]|[01][0-9A-Fa-f]|7[Ff]|25[0-9A-Fa-f]{2})")
_REGEX: Final = re.compile(r'[\^\[\]{}|<>"`]|\(\?|\.\*|\.\+|\$$')
_RESERVED: Final = "/.heim"
# Most hosts have the same few paths; judging them again for each of 5,000 hosts took 70 ms.
_REMEMBERED: Final = 1_024


def parse_path(text: object) -> str:
    """A route's path: absolute, no query, no dot segments, not under ``/.heim``."""
    return _path(text if isinstance(text, str) else _absolute(text))


@lru_cache(_REMEMBERED)
def _path(text: str) -> str:
    path = _absolute(text)
    if "*" in path:
        raise mistake(
            f"{show(path)}: a route's path has no wildcards", "prefixes cover what is below"
        )
    _check_segments(path)
    _check_reserved(path)
    return path


def parse_pattern(text: object) -> str:
    """A location's pattern.

    ``/admin`` covers /admin and everything below it, ``=/admin`` exactly that path, ``/`` all, and
    a segment that is ``*`` exactly one segment: ``/users/*/profile``.
    """
    if not isinstance(text, str):
        raise mistake(f"{show(text)} is not a pattern", "write a path: /admin")
    return _pattern(text)


@lru_cache(_REMEMBERED)
def _pattern(text: str) -> str:
    path = _absolute(text.removeprefix("="))
    for segment in path.split("/"):
        if "**" in segment:
            raise mistake(
                f"{show(text)}: ** is not a wildcard",
                "a path covers everything below it already; * stands for one segment",
            )
        if "*" in segment and segment != "*":
            raise mistake(
                f"{show(text)}: * stands for one whole segment",
                "write /users/*/profile, or the path above it to cover everything below",
            )
    _check_segments(path)
    _check_reserved(path)
    return text


def decoded(path: str) -> str:
    """`path` with its percent-encoding resolved, to find two spellings of the same path."""
    return unquote(path, errors="replace")


def _absolute(text: object) -> str:
    if not isinstance(text, str) or not text.startswith("/"):
        hint = f"write /{text}" if isinstance(text, str) and text[:1].isalnum() else None
        raise mistake(f"{show(text)} does not start with a slash", hint)
    if len(text) > MAX_CHARS:
        raise mistake(f"{show(text)} is longer than {MAX_CHARS} characters")
    if "?" in text or "#" in text:
        raise mistake(f"{show(text)} has a query or fragment", "paths are compared without them")
    if "\\" in text or not text.isprintable() or " " in text:
        raise mistake(
            f"{show(text)} holds a character that no path has", "percent-encode it, as in %20"
        )
    if _REGEX.search(text):
        raise mistake(
            f"{show(text)} looks like a regular expression, which patterns are not",
            "write a path; * stands for one segment; percent-encode special characters",
        )
    if _BAD_ESCAPE.search(text):
        raise mistake(f"{show(text)} has a % without two hexadecimal digits", "write it as %25")
    if _HIDDEN.search(text):
        raise mistake(f"{show(text)} encodes a slash, backslash or control character")
    try:
        unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise mistake(f"{show(text)}: its percent-encoded bytes are not UTF-8") from None
    return text


def _check_segments(path: str) -> None:
    segments = [decoded(segment) for segment in path.split("/")[1:]]
    if "" in segments[:-1]:
        raise mistake(f"{show(path)} has an empty segment", "write one slash")
    if any(segment.partition(";")[0] in (".", "..") for segment in segments):
        raise mistake(f"{show(path)} has a dot segment", "write the path it leads to")


def _check_reserved(path: str) -> None:
    plain = decoded(path).lower()
    if plain == _RESERVED or plain.startswith((f"{_RESERVED}/", f"{_RESERVED};")):
        raise mistake(f"{show(path)} is under /.heim, which every host keeps for Heim itself")
