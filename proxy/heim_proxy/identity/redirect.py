"""Where a person may be sent after signing in: a path of the host they came from, nothing else."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

__all__ = ["MAX_RD_CHARACTERS", "safe_rd"]

MAX_RD_CHARACTERS: Final = 2048
"""Longer ones would not fit, sealed, into a ticket and into the request line that carries it."""

# Printable ASCII. Browsers encode the rest before they send it, and strip tabs and line feeds from
# what they are told to open (WHATWG URL, 4.4), which turns "/<tab>/evil.test" into another host.
_PRINTABLE: Final = re.compile(r"[!-~]+")
_CONTROL: Final = re.compile(rb"[\0-\x1f\x7f]")
_PATH_END: Final = re.compile(r"[?#]")

_RESERVED: Final = b".heim"


def safe_rd(value: str) -> str:
    """`value` if it is a path (and query) of the same origin in every reading, else ``"/"``.

    Refused are absolute and scheme-relative URLs, backslashes, control characters and dot segments
    in the path, raw or encoded once or twice (some hop may decode), paths of ours (a login that
    leads back to the login is a loop), and more than MAX_RD_CHARACTERS.
    """
    if len(value) > MAX_RD_CHARACTERS or _PRINTABLE.fullmatch(value) is None:
        return "/"
    path = _PATH_END.split(value, maxsplit=1)[0].encode("ascii")
    once = unquote_to_bytes(path)
    if all(_is_local(view) for view in (path, once, unquote_to_bytes(once))):
        return value
    return "/"


def _is_local(path: bytes) -> bool:
    """Whether one reading of a path stays where it is."""
    if not path.startswith(b"/") or path.startswith(b"//"):
        return False
    if b"\\" in path or _CONTROL.search(path) is not None:
        return False
    # What comes after a semicolon is a path parameter to some servers, and ignored.
    segments = [segment.partition(b";")[0] for segment in path.split(b"/")]
    return segments[1].lower() != _RESERVED and not any(
        segment in (b".", b"..") for segment in segments
    )
