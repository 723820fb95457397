"""After 101: two byte streams relayed, and a way to say goodbye in the middle.

A WebSocket whose session ends must be told why. A close frame may only stand between two frames,
so the relay follows frame borders in both directions (headers only; payloads are never looked at)
and a goodbye waits for the next border. Other protocols are relayed without looking and closed.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = ["FrameBorders", "close_frame"]

_CLOSE_OPCODE: Final = 0x88
_MAX_HEADER: Final = 14


class FrameBorders:
    """Follows RFC 6455 frame borders of one direction. Sans-IO."""

    __slots__ = ("_header", "_remaining")

    def __init__(self) -> None:
        # Payload bytes left of the current frame, and the incomplete header of the next one.
        self._remaining = 0
        self._header = b""

    @property
    def at_border(self) -> bool:
        """Whether everything fed so far ends exactly between two frames."""
        return not self._remaining and not self._header

    def feed(self, data: bytes) -> int:
        """Account for relayed bytes; returns the offset in `data` of its last frame border.

        The offset is -1 when no frame ends within `data`.
        """
        position, size, border = 0, len(data), -1
        while position < size:
            if self._remaining:
                step = min(self._remaining, size - position)
                self._remaining -= step
                position += step
            else:
                take = data[position : position + _MAX_HEADER - len(self._header)]
                header = self._header + take
                length = _header_length(header)
                if len(header) < length:
                    self._header = header
                    return border
                position += length - len(self._header)
                self._header = b""
                self._remaining = _payload_length(header)
            if not self._remaining:
                border = position
        return border


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A close frame (RFC 6455, 5.5.1). `reason` is cut to 123 bytes; clients' frames are masked."""
    # Cut between characters: a peer fails the connection over a reason that is not UTF-8.
    text = reason.encode("utf-8")[:123].decode("utf-8", "ignore")
    payload = code.to_bytes(2, "big") + text.encode("utf-8")
    if not masked:
        return bytes((_CLOSE_OPCODE, len(payload))) + payload
    mask = os.urandom(4)
    hidden = bytes(byte ^ mask[index & 3] for index, byte in enumerate(payload))
    return bytes((_CLOSE_OPCODE, 0x80 | len(payload))) + mask + hidden


def _header_length(header: bytes) -> int:
    """Length of the frame header that starts with `header`; 2 while that is not known."""
    if len(header) < 2:
        return 2
    length = header[1] & 0x7F
    extended = 8 if length == 127 else 2 if length == 126 else 0
    return 2 + extended + (4 if header[1] & 0x80 else 0)


def _payload_length(header: bytes) -> int:
    length = header[1] & 0x7F
    if length == 126:
        return int.from_bytes(header[2:4], "big")
    if length == 127:
        return int.from_bytes(header[2:10], "big")
    return length
