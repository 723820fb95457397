"""JSON as a verifier must read it: one meaning per document, or none.

Python's parser keeps the last of two equal keys and accepts NaN and Infinity. Where two programs
read the same token, "the last one wins" and "the first one wins" are both true, and that is an
attack. Here such documents are errors.
"""

from __future__ import annotations

import json
import math
from typing import Final, NoReturn

__all__ = ["MAX_DEPTH", "StrictJsonError", "loads_object"]

# Claims and metadata nest three or four deep; beyond that somebody is testing the parser's stack.
MAX_DEPTH: Final = 16


class StrictJsonError(ValueError):
    """The bytes are not one unambiguous JSON object."""


def loads_object(data: bytes, *, max_bytes: int) -> dict[str, object]:
    """Parse one JSON object in UTF-8.

    Args:
        data: The document, without a byte order mark.
        max_bytes: Longer documents are refused unread.

    Raises:
        StrictJsonError: Too long, not UTF-8, not JSON, not an object, a duplicate key at any depth,
            a number that is not finite, or nesting deeper than `MAX_DEPTH`.
    """
    if len(data) > max_bytes:
        raise StrictJsonError(f"{len(data)} bytes of JSON, {max_bytes} are allowed")
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise StrictJsonError("nested too deeply") from error
    except StrictJsonError:
        raise
    except ValueError as error:  # UnicodeDecodeError, JSONDecodeError, integers of 5000 digits
        raise StrictJsonError(f"not JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise StrictJsonError("not a JSON object")
    if _depth_exceeds(value, MAX_DEPTH):
        raise StrictJsonError("nested too deeply")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StrictJsonError("duplicate key")
    return found


def _no_constant(name: str) -> NoReturn:
    raise StrictJsonError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise StrictJsonError("number out of range")
    return value


def _depth_exceeds(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        if not inner:
            return False
        level = inner
    return True
