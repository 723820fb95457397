"""JSON to plain data, without what two readers would understand differently.

The configuration document is written by a program and may have megabytes: it needs no line numbers,
and reading it as YAML would take seconds.
"""

from __future__ import annotations

import json
from typing import Any, Final

from heim_config.problems import show

__all__ = ["NotStrictJsonError", "read_object"]

# The model is 7 deep. Also what keeps checks that walk through the data from running out of stack.
MAX_DEPTH: Final = 24


class NotStrictJsonError(ValueError):
    """Content that is no JSON object, or that has a key twice. The text says which."""


def read_object(content: bytes) -> dict[str, Any]:
    """The object that `content` is; the caller bounds its size.

    Raises:
        NotStrictJsonError: It is not UTF-8, not JSON (RFC 8259), not an object, nested too deep, or
            has a key twice.
    """
    try:
        found = json.loads(
            content.decode("utf-8"), object_pairs_hook=_without_twins, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise NotStrictJsonError(f"is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise NotStrictJsonError(f"is not JSON at character {error.pos}: {error.msg}") from error
    except NotStrictJsonError:
        raise
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or thousands of brackets.
        raise NotStrictJsonError(f"is not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise NotStrictJsonError("is not a JSON object")
    if _depth_exceeds(found, MAX_DEPTH):
        raise NotStrictJsonError(f"is nested more than {MAX_DEPTH} deep")
    return found


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise NotStrictJsonError(f"has the key {show(key)} twice in one object")
            seen.add(key)
    return made


def _no_constant(word: str) -> float:
    raise NotStrictJsonError(f"has {word}, which is not JSON")


def _depth_exceeds(value: Any, limit: int) -> bool:
    """Whether containers are nested more than `limit` deep."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            item
            for one in level
            for item in (one.values() if isinstance(one, dict) else one)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True
