"""How the load speaks to a tunnel's near end: nothing, HTTP, WebSocket, or with Heim's frames too.

Written against the protocol (docs/reference/wire.md), not with heim_wire: what is measured must not
be the one that says whether it was right. Bulk data goes out in frames that were built once.
"""

from __future__ import annotations

import json
import struct
from typing import Final, Protocol

__all__ = ["BULK", "Codec", "CodecError", "Heim", "Raw", "Upgraded", "WebSocket", "make"]

# Payload of a prebuilt bulk frame. Heim's DATA carries 65,535 at the most.
BULK: Final = 65_520

# A fixed mask is as good as any for a load: masking costs the receiver the same.
_MASK: Final = b"\x37\xfa\x21\x3d"
_CLOSE: Final = 8
_HEADER: Final = struct.Struct("!BBHI")
_DATA: Final = 5
_RESET: Final = 7
_WINDOW: Final = 8
_PING: Final = 9
_PONG: Final = 10
_GOAWAY: Final = 11
# What the wire's constants promise: credit of a stream before any WINDOW.
_INITIAL_CREDIT: Final = 64 * 1024
# Our own window for what comes down, granted again when half of it is used.
_WINDOW_BYTES: Final = 1024 * 1024
_STREAM: Final = 1


class CodecError(Exception):
    """The tunnel's end refused or ended the stream."""


class Codec(Protocol):
    """One stream's framing. `room` is what may be sent now, `got` what has arrived."""

    request: bytes
    greeting: bytes
    got: int
    kept: bytearray | None
    most: int
    answers: bool

    @property
    def room(self) -> int: ...

    def answered(self, data: bytes) -> bool:
        """Take what answers `request`; True when the stream is open, `greeting` is due then."""

    def frame(self, payload: bytes) -> bytes: ...

    def receive(self, data: bytes) -> None: ...

    def reply(self) -> bytes:
        """What has to be sent because of what came, often nothing."""

    def sent(self, payload: int) -> None: ...


class Raw:
    """The stream itself, for tunnels that only wrap it into TLS."""

    def __init__(self, head: bytes = b"") -> None:
        self.request = head
        self.greeting = b""
        self.got = 0
        # Set it to keep what comes instead of only counting it.
        self.kept: bytearray | None = None
        # The most that the peer ever allowed at once; 0 where nobody counts.
        self.most = 0
        # Whether PINGs are answered. The peer's windows grow only by a round trip that it knows.
        self.answers = True

    @property
    def room(self) -> int:
        return 1 << 62

    def answered(self, data: bytes) -> bool:
        return True

    def frame(self, payload: bytes) -> bytes:
        return payload

    def receive(self, data: bytes) -> None:
        self._take(memoryview(data))

    def reply(self) -> bytes:
        return b""

    def sent(self, payload: int) -> None: ...

    def _take(self, piece: memoryview) -> None:
        self.got += len(piece)
        if self.kept is not None:
            self.kept += piece


class Upgraded(Raw):
    """The stream itself behind an upgraded HTTP request (RFC 9110, 7.8)."""

    def __init__(self, head: bytes) -> None:
        super().__init__(head)
        self._answer = b""

    def answered(self, data: bytes) -> bool:
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            raise CodecError(self._answer[:600].decode("latin-1"))
        if rest:
            self.receive(rest)
        return True


class WebSocket(Upgraded):
    """RFC 6455 as a client: masked out, unmasked in, one binary frame for each piece."""

    def __init__(self, head: bytes) -> None:
        super().__init__(head)
        self._rest = b""
        self._left = 0
        self._control = False

    def frame(self, payload: bytes) -> bytes:
        return websocket_frame(payload)

    def receive(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        self._rest = b""
        view, at, end = memoryview(data), 0, len(data)
        while at < end:
            if not self._left:
                header = parse_websocket_header(view[at : at + 10])
                if header is None:
                    self._rest = bytes(view[at:])
                    return
                size, opcode, self._left = header
                if opcode == _CLOSE:
                    raise CodecError(f"WebSocket close: {bytes(view[at : at + 128])!r}")
                self._control = opcode > _CLOSE
                at += size
            count = min(self._left, end - at)
            if not self._control:
                self._take(view[at : at + count])
            at += count
            self._left -= count


class Heim(WebSocket):
    """Heim's frames within WebSocket, as on the connect leg: stream 1 is open from the 101 on."""

    def __init__(self, head: bytes) -> None:
        super().__init__(head)
        hello = json.dumps({"v": [1]}).encode("ascii")
        self.greeting = websocket_frame(
            _HEADER.pack(0, 0, len(hello), 0) + hello + _grant(_WINDOW_BYTES - _INITIAL_CREDIT)
        )
        self._credit = _INITIAL_CREDIT
        self._pong = b""
        self._due = 0
        self._partial = b""
        self._data_left = 0

    @property
    def room(self) -> int:
        return self._credit

    def sent(self, payload: int) -> None:
        self._credit -= payload

    def frame(self, payload: bytes) -> bytes:
        return websocket_frame(_HEADER.pack(_DATA, 0, len(payload), _STREAM) + payload)

    def reply(self) -> bytes:
        frames, self._pong = self._pong, b""
        if self._due >= _WINDOW_BYTES // 2:
            frames += _grant(self._due)
            self._due = 0
        return websocket_frame(frames) if frames else b""

    def _take(self, piece: memoryview) -> None:
        if self._partial:
            piece = memoryview(self._partial + bytes(piece))
            self._partial = b""
        at, end = 0, len(piece)
        while at < end:
            if self._data_left:
                count = min(self._data_left, end - at)
                super()._take(piece[at : at + count])
                self._data_left -= count
                self._due += count
                at += count
                continue
            if end - at < _HEADER.size:
                break
            kind, _, length, stream = _HEADER.unpack_from(piece, at)
            body = at + _HEADER.size
            if kind == _DATA:
                self._data_left = length
                at = body
                continue
            if end - body < length:
                break
            self._control_frame(kind, stream, bytes(piece[body : body + length]))
            at = body + length
        if at < end:
            self._partial = bytes(piece[at:])

    def _control_frame(self, kind: int, stream: int, body: bytes) -> None:
        if kind == _WINDOW and stream == _STREAM:
            self._credit += int.from_bytes(body, "big")
            self.most = max(self.most, self._credit)
        elif kind == _PING and self.answers:
            self._pong = _HEADER.pack(_PONG, 0, len(body), 0) + body
        elif kind in (_RESET, _GOAWAY):
            raise CodecError(f"frame {kind}: {body!r}")


def make(kind: str, head: bytes) -> Codec:
    """A codec for one stream: raw, upgraded, websocket or heim; `head` is the HTTP request."""
    if kind == "raw":
        return Raw()
    if kind == "upgraded":
        return Upgraded(head)
    return WebSocket(head) if kind == "websocket" else Heim(head)


def websocket_frame(payload: bytes) -> bytes:
    """One masked binary frame."""
    size = len(payload)
    if size < 126:
        header = struct.pack("!BB", 0x82, 0x80 | size)
    elif size < 65536:
        header = struct.pack("!BBH", 0x82, 0x80 | 126, size)
    else:
        header = struct.pack("!BBQ", 0x82, 0x80 | 127, size)
    key = int.from_bytes((_MASK * (size // 4 + 1))[:size], "big")
    masked = (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
    return header + _MASK + masked


def parse_websocket_header(data: memoryview) -> tuple[int, int, int] | None:
    """Size of the header, opcode, length of the payload; None while it is incomplete."""
    if len(data) < 2:
        return None
    opcode, short = data[0] & 15, data[1]
    if short & 128:
        raise CodecError("a server must not mask")
    if short < 126:
        return 2, opcode, short
    size = 4 if short == 126 else 10
    if len(data) < size:
        return None
    return size, opcode, int.from_bytes(data[2:size], "big")


def _grant(count: int) -> bytes:
    return _HEADER.pack(_WINDOW, 0, 4, _STREAM) + count.to_bytes(4, "big")
