"""The WebSocket carriage after 101: a byte stream inside binary frames (RFC 6455).

Middleboxes may refragment messages, so message borders mean nothing here: payload is passed on as
it comes, unmasked, and nothing is ever put together. Sans-IO, both roles; extensions are never
offered, so the reserved bits must be 0.
"""

from __future__ import annotations

import os

from heim_wire.errors import Code, WireError
from heim_wire.mask import mask
from heim_wire.messages import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["CONTROL_BYTES", "Close", "WebSocket"]

# RFC 6455, 5.5: control frames carry at most this much.
CONTROL_BYTES: Final = 125

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_BINARY: Final = 0x2
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
# A frame as large and of as few pieces is masked piece by piece: joining it first is a copy more.
_APART_BYTES: Final = 16 * 1024
_APART: Final = 8
_FIN: Final = 0x80
_RESERVED: Final = 0x70
# RFC 6455, 7.4.1: a close frame without a code counts as this one, which is never on the wire.
_NO_CODE: Final = 1005
# Registered since, RFC 6455, 7.4: 1012 to 1014. 1004 is reserved, 1005 and 1006 are never sent.
_CLOSE_CODES: Final = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
_PRIVATE_CODES: Final = range(3000, 5000)


class Close:
    """The peer's close frame: its code (1005 when it gave none) and reason, a printable line."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Close {self.code} {self.reason!r}>"


class WebSocket:
    """One connection's data phase.

    Attributes:
        closed: The peer's close frame, once it came; what follows it is ignored.
        closing: Whether our close frame was made; `frame` must not be called any more.
    """

    __slots__ = (
        "_client",
        "_entropy",
        "_fragmented",
        "_key",
        "_left",
        "_mask_bit",
        "_offset",
        "_pong",
        "_rest",
        "_unsaid",
        "closed",
        "closing",
    )

    def __init__(self, *, client: bool, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Start after the handshake.

        Args:
            client: Whether we are the client: then what we send is masked, what we get is not.
            entropy: Gives the masking keys (RFC 6455, 5.3: fresh and unpredictable per frame).
        """
        self.closed: Close | None = None
        self.closing = False
        self._client = client
        self._entropy = entropy
        self._mask_bit = 0x80 if client else 0
        # An incomplete frame header or control frame: at most 14 + 125 bytes.
        self._rest = b""
        # The data frame under way: payload bytes to come, bytes that came, its masking key.
        self._left = 0
        self._offset = 0
        self._key = b""
        # Whether the peer's message has more frames to come.
        self._fragmented = False
        # Payload of the newest ping that is not answered.
        self._pong: bytes | None = None
        # Our answer to the peer's close.
        self._unsaid = b""

    def receive(self, data: bytes) -> list[bytes | memoryview]:
        """Take bytes from the transport; the payload among them, in order.

        Pieces may be views into `data`, so `data` must not change afterwards. Afterwards look at
        `replies()` and at `closed`.

        Raises:
            WireError: The peer broke RFC 6455 or sent text; the connection must end (close 1002).
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        view = memoryview(data)
        pieces: list[bytes | memoryview] = []
        position, size = 0, len(data)
        while position < size and self.closed is None:
            if not self._left:
                after = self._header(data, position, size)
                if not after:
                    self._rest = data[position:]
                    break
                position = after
                continue
            end = min(position + self._left, size)
            piece: bytes | memoryview = view[position:end]
            if not self._client:
                piece = mask(piece, self._key, self._offset)
                self._offset += end - position
            pieces.append(piece)
            self._left -= end - position
            position = end
        return pieces

    def replies(self) -> bytes:
        """Pong or close frames to be written now, once; empty mostly.

        Only the newest ping is answered (RFC 6455, 5.5.3), so what waits here is bounded.
        """
        if self._unsaid:
            said, self._unsaid = self._unsaid, b""
            return said
        payload = self._pong
        if payload is None or self.closing:
            return b""
        self._pong = None
        return self._control(_PONG, payload)

    @property
    def owes(self) -> bool:
        """Whether `replies` has something."""
        return self._pong is not None or bool(self._unsaid)

    def frame(self, parts: list[bytes | memoryview], total: int) -> bytes:
        """One binary frame around `parts`, `total` bytes together, as one piece."""
        head = _head(_FIN | _BINARY, self._mask_bit, total)
        if not self._client:
            return b"".join((head, *parts))
        key = self._entropy(4)
        if len(parts) > _APART or total < _APART_BYTES:
            return b"".join((head, key, mask(b"".join(parts), key)))
        masked = [head, key]
        offset = 0
        for part in parts:
            masked.append(mask(part, key, offset))
            offset += len(part)
        return b"".join(masked)

    def ping(self, payload: bytes = b"") -> bytes:
        """A ping frame; at most 125 bytes of payload."""
        return self._control(_PING, payload)

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Our close frame, the first time; later, or when the peer's was answered, b"".

        `reason` is cut to 123 bytes, between characters.
        """
        if self.closing:
            return b""
        self.closing = True
        text = reason.encode("utf-8", "replace")[: CONTROL_BYTES - 2].decode("utf-8", "ignore")
        return self._control(_CLOSE, code.to_bytes(2, "big") + text.encode())

    def _control(self, opcode: int, payload: bytes) -> bytes:
        if len(payload) > CONTROL_BYTES:
            raise ValueError(f"a control frame carries {CONTROL_BYTES} bytes, not {len(payload)}")
        head = bytes((_FIN | opcode, self._mask_bit | len(payload)))
        if not self._client:
            return head + payload
        key = self._entropy(4)
        return head + key + mask(payload, key)

    def _header(self, data: bytes, start: int, size: int) -> int:
        """Act on the frame header at `start`; where its payload begins, or 0 if it is incomplete.

        A control frame is taken with its payload: then it is where the next frame begins.
        """
        if size - start < 2:
            return 0
        first, second = data[start], data[start + 1]
        opcode = first & 0x0F
        self._check(first, second)
        length = second & 0x7F
        begin = start + 2
        if length > CONTROL_BYTES:
            wide = 2 if length == 126 else 8
            begin += wide
            if begin > size:
                return 0
            length = int.from_bytes(data[begin - wide : begin], "big")
            if length >> 63:
                raise _broken("a frame length has its highest bit set")
        key = b""
        if second & 0x80:
            begin += 4
            if begin > size:
                return 0
            key = data[begin - 4 : begin]
        if opcode >= _CLOSE:
            end = begin + length
            if end > size:
                return 0
            payload = data[begin:end]
            self._controlled(opcode, mask(payload, key) if key else payload)
            return end
        self._fragmented = not first & _FIN
        self._left = length
        self._offset = 0
        self._key = key
        return begin

    def _check(self, first: int, second: int) -> None:
        """Refuse a frame by its first two bytes."""
        if first & _RESERVED:
            raise _broken("a frame has reserved bits set, as if an extension had been agreed on")
        opcode = first & 0x0F
        if (second & 0x80 != 0) is self._client:
            raise _broken("a frame is masked" if self._client else "a frame is not masked")
        if opcode >= _CLOSE:
            if opcode > _PONG:
                raise _broken(f"a frame has the unknown opcode {opcode}")
            if not first & _FIN:
                raise _broken("a control frame is fragmented")
            if second & 0x7F > CONTROL_BYTES:
                raise _broken("a control frame is longer than 125 bytes")
        elif opcode == _BINARY:
            if self._fragmented:
                raise _broken("a message begins inside another")
        elif opcode == _CONTINUATION:
            if not self._fragmented:
                raise _broken("a continuation frame continues nothing")
        elif opcode == _TEXT:
            raise _broken("a frame is text; the tunnel is binary")
        else:
            raise _broken(f"a frame has the unknown opcode {opcode}")

    def _controlled(self, opcode: int, payload: bytes) -> None:
        """A whole control frame came."""
        if opcode == _PING:
            self._pong = payload
        elif opcode == _CLOSE:
            self.closed = _closed(payload)
            if not self.closing:
                self.closing = True
                # The same code back (RFC 6455, 5.5.1); the reason need not be repeated.
                self._unsaid = self._control(_CLOSE, payload[:2])


def _head(first: int, mask_bit: int, length: int) -> bytes:
    if length <= CONTROL_BYTES:
        return bytes((first, mask_bit | length))
    if length < 1 << 16:
        return bytes((first, mask_bit | 126, length >> 8, length & 0xFF))
    return bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")


def _closed(payload: bytes) -> Close:
    if not payload:
        return Close(_NO_CODE, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _CLOSE_CODES or code in _PRIVATE_CODES):
        raise _broken("a close frame has no valid code")
    try:
        return Close(code, printable(payload[2:].decode(), CONTROL_BYTES))
    except UnicodeDecodeError:
        raise _broken("the reason in a close frame is not UTF-8") from None


def _broken(what: str) -> WireError:
    return WireError(Code.PROTOCOL, f"WebSocket: {what}")
