"""Path patterns: which canonical paths `any: /admin` or `get: =/users/*/profile` mean.

The grammar is small on purpose (decision 12): a prefix that ends at segment borders, `=` for an
exact path, and `*` as a whole segment for exactly one non-empty segment. A wildcard never looks
beyond its segment, so there is nothing to backtrack: a match costs at most one pass over the path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

__all__ = ["Pattern", "compile_pattern"]

_SLASH: Final = 0x2F
# The canonical form of a request path never holds these, so a pattern with one would never match:
# controls, space, `?`, `#`, `\` and bytes outside ASCII.
_NEVER_IN_A_PATH: Final = re.compile(rb"[^\x21-\x7e]|[?#\\]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A compiled pattern. Build it with `compile_pattern`.

    `head` is what every matching path starts with; `tail` are the literal runs after each `*`, the
    last one empty when the pattern ends in `*`.
    """

    text: str
    exact: bool
    head: bytes
    tail: tuple[bytes, ...] = ()

    @property
    def head_decides(self) -> bool:
        """Whether starting with `head` is all there is to match: a prefix that ends in a slash."""
        return not self.exact and not self.tail and self.head.endswith(b"/")

    def matches(self, path: bytes) -> bool:
        """Whether a canonical `path` (no query) is covered."""
        if not path.startswith(self.head):
            return False
        end = len(self.head)
        for literal in self.tail:
            border = path.find(b"/", end)
            stop = len(path) if border < 0 else border
            if stop == end or not path.startswith(literal, stop):
                return False
            end = stop + len(literal)
        if end == len(path):
            return True
        return not self.exact and (path[end] == _SLASH or path[end - 1] == _SLASH)

    def describe(self) -> str:
        """What it covers, in words: "exactly /admin", "/admin or below it", "any path"."""
        path = self.text.removeprefix("=")
        if self.exact:
            return f"exactly {path}"
        return "any path" if path == "/" else f"{path} or below it"


# Thousands of backends have the same few patterns; roles are compiled anew with every change.
@lru_cache(1_024)
def compile_pattern(pattern: bytes) -> Pattern:
    """Compile a pattern whose path is in the canonical form of `edge.target.canonicalise`.

    Raises:
        ValueError: The pattern could never match, or would match something else than it seems to
            say: a `*` inside a segment, an empty or dot segment, a query, a byte no path holds.
    """
    text = pattern.decode("ascii", "backslashreplace")
    exact = pattern.startswith(b"=")
    path = pattern[1:] if exact else pattern
    problem = _problem(path)
    if problem is not None:
        raise ValueError(f"pattern {text!r}: {problem}")
    # Every `*` is a whole segment here, so cutting at it leaves literals that begin at a border.
    head, *tail = path.split(b"*")
    return Pattern(text=text, exact=exact, head=head, tail=tuple(tail))


def _problem(path: bytes) -> str | None:
    if not path.startswith(b"/"):
        return "a path starts with /"
    if _NEVER_IN_A_PATH.search(path):
        return "a path holds visible ASCII only, and neither ?, # nor a backslash"
    segments = path[1:].split(b"/")
    if b"" in segments[:-1]:
        return "an empty segment (//) never occurs in a canonical path"
    if b"." in segments or b".." in segments:
        return "a dot segment never occurs in a canonical path"
    if any(b"*" in segment and segment != b"*" for segment in segments):
        return "* stands for one whole segment and cannot be part of one"
    return None
