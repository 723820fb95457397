"""JSON messages and lines for people: strict to read, bounded to write."""

from __future__ import annotations

import json

from heim_wire.errors import Code, WireError
from heim_wire.frames import MAX_PAYLOAD
from heim_wire.strict_json import is_deeper, read_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

__all__ = ["MAX_DEPTH", "Message", "decode", "encode", "printable"]

Message = dict[str, object]

# An object in an object in an object: more is not needed, and no reader has to recurse.
MAX_DEPTH: Final = 4


# Made once: json.dumps makes an encoder for every message that is not written as it likes.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def encode(message: Mapping[str, object]) -> bytes:
    """A message as its payload.

    Raises:
        ValueError: It needs more than 4096 bytes, is deeper than 4, or holds NaN.
    """
    encoded = _encode(message).encode()
    if len(encoded) > MAX_PAYLOAD:
        raise ValueError(f"message of {len(encoded)} bytes; {MAX_PAYLOAD} is the limit")
    if is_deeper(message, MAX_DEPTH):
        raise ValueError(f"message nested more than {MAX_DEPTH} deep")
    return encoded


def decode(payload: bytes) -> Message:
    """A message from its payload.

    Raises:
        WireError: Not UTF-8, not one JSON object, a key twice, deeper than 4, NaN or an infinite
            number, half a surrogate pair.
    """
    try:
        message = read_object(payload, max_depth=MAX_DEPTH)
        if b"\\u" in payload:
            # Only an escape can make half a surrogate pair, which is nothing in UTF-8.
            json.dumps(message, ensure_ascii=False).encode()
    except ValueError:
        # Not what it was about: the text may hold a token.
        raise WireError(Code.PROTOCOL, "a message is no JSON object as it should be") from None
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
