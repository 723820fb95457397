"""Frames: eight bytes of head, then a payload; read from a byte stream in any pieces.

The carriage (WebSocket) has borders of its own, which mean nothing here. DATA is passed on as it
comes, never reassembled; every other frame is small and kept until it is complete. A length is
judged before anything is kept, so that a reader holds at most one frame of 4104 bytes.
"""

from __future__ import annotations

from struct import Struct

from heim_wire.errors import Code, WireError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = [
    "CRITICAL",
    "HEAD",
    "HEAD_BYTES",
    "KINDS",
    "MAX_DATA",
    "MAX_FRAME",
    "MAX_PAYLOAD",
    "MAX_REASON",
    "MAX_TEXT",
    "Buffer",
    "FrameReader",
    "Kind",
    "Scope",
    "Type",
    "goaway_frame",
    "goaway_payload",
    "plain_frame",
    "reset_frame",
    "reset_payload",
    "window_frame",
]

Buffer = bytes | memoryview
# type, flags, length of the payload, stream; big endian.
HEAD: Final = Struct("!BBHI")
HEAD_BYTES: Final = 8
# As long as the length field allows. Receivers never hold it, so it costs them nothing.
MAX_DATA: Final = 65_535
# Every frame but DATA is kept until it is complete.
MAX_PAYLOAD: Final = 4_096
MAX_FRAME: Final = HEAD_BYTES + MAX_PAYLOAD
# Text for people: RESET and GOAWAY say why, NOTICE says more.
MAX_REASON: Final = 512
MAX_TEXT: Final = 1_024
# The flag of a frame that must not be ignored by whoever does not know its type.
CRITICAL: Final = 1

_GOAWAY: Final = Struct("!HIII")


class Type:
    """Frame types. 14 (DGRAM), 15 (RESUME) and 16 (ACK) are reserved."""

    HELLO = 0
    AUTH = 1
    READY = 2
    OPEN = 3
    ACCEPT = 4
    DATA = 5
    EOF = 6
    RESET = 7
    WINDOW = 8
    PING = 9
    PONG = 10
    GOAWAY = 11
    NOTICE = 12


class Scope:
    """What a frame may be about."""

    SESSION = "0"
    STREAM = "id"
    EITHER = "id or 0"


class Kind:
    """What is known of one frame type before its payload is looked at."""

    __slots__ = ("largest", "name", "payload", "scope", "smallest")

    def __init__(self, name: str, scope: str, sizes: tuple[int, int], payload: str) -> None:
        self.name = name
        self.scope = scope
        self.smallest, self.largest = sizes
        self.payload = payload


_JSON = "JSON object"
KINDS: Final = {
    Type.HELLO: Kind("HELLO", Scope.SESSION, (2, MAX_PAYLOAD), _JSON),
    Type.AUTH: Kind("AUTH", Scope.SESSION, (2, MAX_PAYLOAD), _JSON),
    Type.READY: Kind("READY", Scope.SESSION, (2, MAX_PAYLOAD), _JSON),
    Type.OPEN: Kind("OPEN", Scope.STREAM, (2, MAX_PAYLOAD), _JSON),
    Type.ACCEPT: Kind("ACCEPT", Scope.STREAM, (2, MAX_PAYLOAD), _JSON),
    Type.DATA: Kind("DATA", Scope.STREAM, (0, MAX_DATA), "bytes"),
    Type.EOF: Kind("EOF", Scope.STREAM, (0, 0), "none"),
    Type.RESET: Kind("RESET", Scope.STREAM, (2, 2 + MAX_REASON), "code u16, reason UTF-8"),
    Type.WINDOW: Kind("WINDOW", Scope.STREAM, (4, 4), "credit u32"),
    Type.PING: Kind("PING", Scope.SESSION, (8, 8), "8 bytes of any kind"),
    Type.PONG: Kind("PONG", Scope.SESSION, (8, 8), "the 8 bytes of the PING"),
    Type.GOAWAY: Kind(
        "GOAWAY",
        Scope.SESSION,
        (_GOAWAY.size, _GOAWAY.size + MAX_REASON),
        "code u16; reconnect_in, try_for, drain u32 each, in ms; reason UTF-8",
    ),
    Type.NOTICE: Kind("NOTICE", Scope.EITHER, (0, MAX_TEXT), "text UTF-8"),
}


class FrameReader:
    """Finds frames in a byte stream that arrives in any pieces.

    Attributes:
        left: How much of the current DATA frame is still to come; 0 at its end.
    """

    __slots__ = ("_kept", "_stream", "_want", "left")

    def __init__(self) -> None:
        self.left = 0
        # Whose payload `left` counts; 0 while an unknown frame is skipped.
        self._stream = 0
        # The beginning of a frame that is not complete, and how much is needed to go on.
        self._kept = bytearray()
        self._want = HEAD_BYTES

    def feed(
        self,
        data: bytes | memoryview,
        on_data: Callable[[int, bytes | memoryview], None],
        on_frame: Callable[[int, int, bytes], None],
    ) -> None:
        """Read all of `data`, which must not change afterwards.

        Args:
            data: What arrived.
            on_data: Called with stream and a piece of DATA, never empty. A piece may be a view
                of `data` when it is at least half of it; a small one is a copy, so that a few
                bytes that wait somewhere do not keep a large buffer alive.
            on_frame: Called with type, stream and payload of every other frame (of an empty DATA
                too). A type that is not in `KINDS` comes without its payload.

        Raises:
            WireError: A head that no version of the protocol sends.
        """
        pos = 0
        size = len(data)
        while pos < size:
            left = self.left
            if left:
                end = pos + left
                if end > size:
                    end = size
                taken = end - pos
                self.left = left - taken
                if self._stream:
                    if taken == size:
                        on_data(self._stream, data)
                    elif taken * 2 >= size:
                        on_data(self._stream, memoryview(data)[pos:end])
                    else:
                        on_data(self._stream, bytes(data[pos:end]))
                pos = end
            elif self._kept or size - pos < HEAD_BYTES:
                pos = self._gather(data, pos, on_frame)
            else:
                kind, flags, length, stream = HEAD.unpack_from(data, pos)
                pos += HEAD_BYTES
                if self._begin(kind, flags, length, stream):
                    end = pos + length
                    if end <= size:
                        on_frame(kind, stream, bytes(data[pos:end]))
                        pos = end
                    else:
                        self._kept += data[pos - HEAD_BYTES :]
                        self._want = HEAD_BYTES + length
                        return
                elif not self._stream:
                    on_frame(kind, stream, b"")

    def _begin(self, kind: int, flags: int, length: int, stream: int) -> bool:
        """Judge a head. True: its payload is to be kept; False: passed on or skipped."""
        if kind == Type.DATA and length and stream:
            self.left = length
            self._stream = stream
            return False
        known = KINDS.get(kind)
        if known is None:
            if flags & CRITICAL:
                raise WireError(Code.PROTOCOL, f"critical frame of unknown type {kind}")
            if length > MAX_PAYLOAD:
                raise WireError(Code.PROTOCOL, f"frame of unknown type {kind} has {length} bytes")
            self.left = length
            self._stream = 0
            return False
        if not known.smallest <= length <= known.largest:
            raise WireError(Code.PROTOCOL, f"{known.name} has {length} bytes")
        if known.scope is not Scope.EITHER and (stream == 0) is not (known.scope is Scope.SESSION):
            raise WireError(Code.PROTOCOL, f"{known.name} for stream {stream}")
        return True

    def _gather(
        self, data: bytes | memoryview, pos: int, on_frame: Callable[[int, int, bytes], None]
    ) -> int:
        """Complete a head or a small frame that came in pieces; returns the new position."""
        kept = self._kept
        end = min(len(data), pos + self._want - len(kept))
        kept += data[pos:end]
        if len(kept) < self._want:
            return end
        kind, flags, length, stream = HEAD.unpack_from(kept)
        if self._want == HEAD_BYTES:
            if not self._begin(kind, flags, length, stream):
                kept.clear()
                if not self._stream:
                    on_frame(kind, stream, b"")
                return end
            if length:
                self._want = HEAD_BYTES + length
                return end
        payload = bytes(kept[HEAD_BYTES:])
        kept.clear()
        self._want = HEAD_BYTES
        on_frame(kind, stream, payload)
        return end


def plain_frame(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame whose payload is ready."""
    return HEAD.pack(kind, 0, len(payload), stream) + payload


def reset_frame(stream: int, code: int, reason: bytes) -> bytes:
    """RESET; `reason` is UTF-8 of at most 512 bytes."""
    return plain_frame(Type.RESET, stream, code.to_bytes(2, "big") + reason)


def reset_payload(payload: bytes) -> tuple[int, bytes]:
    """Code and reason of a RESET."""
    return int.from_bytes(payload[:2], "big"), payload[2:]


def window_frame(stream: int, credit: int) -> bytes:
    """WINDOW: `credit` more bytes may be sent."""
    return plain_frame(Type.WINDOW, stream, credit.to_bytes(4, "big"))


def goaway_frame(code: int, times: tuple[float, float, float], reason: bytes) -> bytes:
    """GOAWAY; times are (reconnect_in, try_for, drain) in seconds, at most 49 days."""
    spans = (min(max(round(seconds * 1000), 0), 0xFFFF_FFFF) for seconds in times)
    return plain_frame(Type.GOAWAY, 0, _GOAWAY.pack(code, *spans) + reason)


def goaway_payload(payload: bytes) -> tuple[int, tuple[float, float, float], bytes]:
    """Code, (reconnect_in, try_for, drain) in seconds, and reason of a GOAWAY."""
    code, reconnect_in, try_for, drain = _GOAWAY.unpack_from(payload)
    return code, (reconnect_in / 1000, try_for / 1000, drain / 1000), payload[_GOAWAY.size :]
