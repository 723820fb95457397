"""What a stream asks of the target behind the tunnel: the first 17 bytes of every stream.

The target is one program on one port for every measurement, so that every peer is set up once, with
one fixed destination, as tunnels are.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["ACK", "DOWN", "ECHO", "FLOOD", "SIZE", "STALL", "UP", "pack", "unpack"]

# Read `size` bytes, then answer ACK: a sender knows that everything arrived without half-close,
# which most tunnels do not have.
UP: Final = b"U"
# Send `size` bytes.
DOWN: Final = b"D"
# Send back whatever comes.
ECHO: Final = b"E"
# Read until the end and note in the log how much had arrived when.
FLOOD: Final = b"F"
# Read `size` bytes, answer ACK, and never read another byte.
STALL: Final = b"S"

ACK: Final = b"k"

_LAYOUT: Final = struct.Struct("!cQQ")
SIZE: Final = _LAYOUT.size


def pack(kind: bytes, size: int = 0, tag: int = 0) -> bytes:
    """The opening of a stream; `tag` comes back in the log of a FLOOD."""
    return _LAYOUT.pack(kind, size, tag)


def unpack(data: bytes) -> tuple[bytes, int, int]:
    """Kind, size, tag."""
    kind, size, tag = _LAYOUT.unpack(data)
    return kind, size, tag
