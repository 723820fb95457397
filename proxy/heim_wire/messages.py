"""JSON messages and lines for people: strict to read, bounded to write."""

from __future__ import annotations

import json
from math import isfinite

from heim_wire.errors import Code, WireError
from heim_wire.frames import MAX_PAYLOAD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, NoReturn

__all__ = ["MAX_DEPTH", "Message", "decode", "encode", "printable"]

Message = dict[str, object]

# An object in an object in an object: more is not needed, and no reader has to recurse.
MAX_DEPTH: Final = 4


def encode(message: Mapping[str, object]) -> bytes:
    """A message as its payload.

    Raises:
        ValueError: It needs more than 4096 bytes, is deeper than 4, or holds NaN.
    """
    payload = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    encoded = payload.encode()
    if len(encoded) > MAX_PAYLOAD:
        raise ValueError(f"message of {len(encoded)} bytes; {MAX_PAYLOAD} is the limit")
    _walk(message)
    return encoded


def decode(payload: bytes) -> Message:
    """A message from its payload.

    Raises:
        WireError: Not UTF-8, not one JSON object, a key twice, deeper than 4, NaN or an infinite
            number, half a surrogate pair.
    """
    try:
        message = _DECODER.decode(payload.decode())
        _walk(message)
    except (ValueError, RecursionError):
        # Not what it was about: the text may hold a token.
        raise WireError(Code.PROTOCOL, "a message is not JSON as it should be") from None
    if type(message) is not dict:
        raise WireError(Code.PROTOCOL, "a message is not a JSON object")
    return message


def printable(text: str, limit: int) -> str:
    """One line that is safe on a terminal, of at most `limit` bytes of UTF-8.

    Control characters, escape sequences' beginnings, line ends and marks that turn the direction
    of writing become spaces; runs of spaces become one.
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(char if char.isprintable() else " " for char in text)
    encoded = " ".join(text.split()).encode()
    return encoded[:limit].decode(errors="ignore")


def _walk(message: object) -> None:
    """Raise ValueError if something is too deep or cannot be UTF-8."""
    level: list[object] = [message]
    depth = 0
    while level:
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                below.extend(value)
                below.extend(value.values())
            elif isinstance(value, list | tuple):
                below.extend(value)
            else:
                if isinstance(value, str):
                    value.encode()
                continue
            if depth == MAX_DEPTH:
                raise ValueError("too deep")
        level = below
        depth += 1


def _once(pairs: list[tuple[str, object]]) -> Message:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _finite(digits: str) -> float:
    number = float(digits)
    if not isfinite(number):
        raise ValueError("too large")
    return number


def _constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_once, parse_float=_finite, parse_constant=_constant
)
