"""JSON as two programs must read it: one meaning per document, or none.

Python's parser keeps the last of two equal keys and takes NaN and Infinity. Where two programs read
the same token, "the last one wins" and "the first one wins" are both true, and that is an attack.
Here such documents are errors.
"""

from __future__ import annotations

import json
from math import isfinite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final, NoReturn

__all__ = ["MAX_DEPTH", "StrictJsonError", "is_deeper", "read_object"]

# Claims nest three or four deep, the configuration seven; beyond that somebody is testing stacks.
MAX_DEPTH: Final = 16
_SHOWN_CHARS: Final = 64
_CONTAINERS: Final = (dict, list, tuple)


class StrictJsonError(ValueError):
    """Not one unambiguous JSON object. The text continues the document's name: "has NaN, …"."""


def read_object(
    content: bytes, *, max_bytes: int | None = None, max_depth: int = MAX_DEPTH
) -> dict[str, Any]:
    """The object that `content` is.

    Args:
        content: The document in UTF-8, without a byte order mark.
        max_bytes: Longer documents are refused unread; None when the caller has bounded it.
        max_depth: As many objects and lists may be inside each other.

    Raises:
        StrictJsonError: Too long, not UTF-8, not JSON (RFC 8259), not an object, a key twice at any
            depth, a number that is not finite or has thousands of digits, or nested too deep.
    """
    if max_bytes is not None and len(content) > max_bytes:
        raise StrictJsonError(f"has {len(content)} bytes; {max_bytes} is the limit")
    try:
        found = _DECODER.decode(content.decode("utf-8"))
    except StrictJsonError:
        raise
    except UnicodeDecodeError as error:
        raise StrictJsonError(f"is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise StrictJsonError(f"is not JSON at character {error.pos}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or thousands of brackets.
        raise StrictJsonError(f"is not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise StrictJsonError("is not a JSON object")
    if is_deeper(found, max_depth):
        raise StrictJsonError(f"is nested more than {max_depth} deep")
    return found


def is_deeper(value: Mapping[str, object], limit: int) -> bool:
    """Whether more than `limit` objects and lists are inside each other; no recursion."""
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, _CONTAINERS)
        ]
        if not level:
            return False
    return True


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                shown = json.dumps(key[:_SHOWN_CHARS])
                raise StrictJsonError(f"has the key {shown} twice in one object")
            seen.add(key)
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise StrictJsonError("has a number out of range")
    return number


def _no_constant(word: str) -> NoReturn:
    raise StrictJsonError(f"has {word}, which is not JSON")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
