"""Chunked bodies: where they end, strictly, without copying what can pass as it is.

A relay forwards the framing it received (`keep`) or only the data (`strip`, for HTTP/1.0
clients). Chunk extensions and trailers end here: extensions are removed, trailers dropped, since
a trailer delivered as a header would bypass what was judged (RFC 9112, 7.1).
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["BadChunk", "ChunkRelay", "chunk"]

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e\x80-\xff]*)?\r\n")
# A size line with its extensions. Nothing in use sends extensions; signatures of AWS streaming
# uploads are the longest known at about 90 bytes.
_SIZE_LINE_BYTES: Final = 512
# All trailer fields together; they are read only to find the end.
_TRAILER_BYTES: Final = 8 * 1024


class BadChunk(ValueError):  # noqa: N818 - reads as what it is at the raise
    """Chunked framing that is not exactly RFC 9112, 7.1; the connection cannot be used further."""


class _State:
    """Where in the framing the next byte is. Plain integers, as in `names`."""

    SIZE: Final = 0
    DATA: Final = 1
    DATA_END: Final = 2
    TRAILER: Final = 3
    DONE: Final = 4


def chunk(data: bytes) -> bytes:
    """`data` as one chunk; `data` must not be empty, since that would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkRelay:
    """Follows one chunked body. Feed it bytes until `done`."""

    __slots__ = ("_held", "_keep", "_need", "_state", "_trailer_bytes", "lines")

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._state: int = _State.SIZE
        self._need = 0
        # An incomplete size, data-end or trailer line of the previous feed; not forwarded yet.
        self._held = b""
        self._trailer_bytes = 0
        # Lines of framing the last `feed` went through: work that its size does not tell.
        self.lines = 0

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailer section have been read."""
        return self._state == _State.DONE

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Consume body bytes; returns what to forward and how many bytes belonged to this body.

        Raises:
            BadChunk: On anything that is not strict chunked framing.
        """
        size = len(data)
        self.lines = 0
        if self._state == _State.DATA and size < self._need:
            self._need -= size
            return data, size
        out: list[bytes] = []
        position = 0
        while position < size and self._state != _State.DONE:
            if self._state == _State.DATA:
                step = min(self._need, size - position)
                out.append(data[position : position + step])
                position += step
                self._need -= step
                if not self._need:
                    self._state = _State.DATA_END
            else:
                position = self._line(data, position, out)
        return b"".join(out), position

    def _line(self, data: bytes, position: int, out: list[bytes]) -> int:
        self.lines += 1
        end = data.find(b"\n", position) + 1
        line = self._held + data[position : end or len(data)]
        if len(line) > (_TRAILER_BYTES if self._state == _State.TRAILER else _SIZE_LINE_BYTES):
            raise BadChunk("line of chunked framing is too long")
        if not end:
            self._held = line
            return len(data)
        self._held = b""
        if self._state == _State.SIZE:
            self._size_line(line, out)
        elif self._state == _State.DATA_END:
            if line != b"\r\n":
                raise BadChunk("chunk data is longer than its size")
            if self._keep:
                out.append(line)
            self._state = _State.SIZE
        else:
            self._trailer_line(line, out)
        return end

    def _size_line(self, line: bytes, out: list[bytes]) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise BadChunk("chunk size is not hexadecimal")
        digits = match.group(1)
        self._need = int(digits, 16)
        if not self._need:
            self._state = _State.TRAILER
            return
        self._state = _State.DATA
        if self._keep:
            out.append(digits + b"\r\n")

    def _trailer_line(self, line: bytes, out: list[bytes]) -> None:
        if not line.endswith(b"\r\n"):
            raise BadChunk("bare line feed in the trailer section")
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILER_BYTES:
            raise BadChunk("trailer section is too long")
        if line == b"\r\n":
            self._state = _State.DONE
            if self._keep:
                out.append(b"0\r\n\r\n")
