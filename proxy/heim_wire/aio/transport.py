"""A stream as an asyncio transport: whatever speaks over a socket speaks over a stream.

Both kinds of protocol are served. What the stream's queue cannot take pauses the protocol's
writing; what the protocol does not read stays uncredited, so that the stream's window bounds it.
`connection_made` and `connection_lost` always come from the loop, never from within a call of the
protocol's own; and what the protocol does wrong ends its stream, never the session.
"""

from __future__ import annotations

import asyncio
from collections import deque

from heim_wire.errors import Code
from heim_wire.scheduler import HIGH_MARK, LOW_MARK
from heim_wire.stream import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from heim_wire.aio.channel import Channel
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

    Told = Callable[[int, str], tuple[int, str]]

__all__ = ["CLOSE_S", "StreamReset", "StreamTransport"]

# What `close` leaves behind (bytes to be sent, the peer's end) must be done with by then. uvloop's
# TLS waits as long for its last bytes.
CLOSE_S: Final = 30.0


class StreamReset(ConnectionResetError):  # noqa: N818 - named after what the peer sends
    """A stream was reset, or its session ended under it.

    Attributes:
        code: A number of `heim_wire.errors.Code`.
        reason: One printable line.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamTransport(asyncio.Transport):
    """The transport of one accepted stream, and its owner (`stream.context`).

    As of a socket: `close` sends what was written and then the end, and whatever the peer sends
    after that is answered by a reset; `abort` resets. A reset by the peer, or the end of the
    session, is `connection_lost(StreamReset)`.
    """

    __slots__ = (
        "_buffered", "_channel", "_closing", "_eof_told", "_eof_written", "_guard", "_held",
        "_limits", "_loop", "_lost", "_paused", "_peer_ended", "_protocol", "_scheduled",
        "_started", "_stream", "_told", "_unread", "_write_paused",
    )  # fmt: skip

    def __init__(
        self,
        channel: Channel,
        stream: Stream,
        protocol: asyncio.BaseProtocol,
        *,
        extra: Mapping[str, object] | None = None,
        told: Told | None = None,
    ) -> None:
        """Take over `stream`; `protocol.connection_made` is called in the next turn of the loop.

        Args:
            channel: Carries the stream.
            stream: Accepted. May have been accepted in this very turn, with data behind it.
            protocol: A `Protocol` or a `BufferedProtocol`.
            extra: For `get_extra_info`. There is no "socket".
            told: What a code and a reason of a reset mean to the protocol; as they are without.
        """
        super().__init__(dict(extra or {}))
        self._channel = channel
        self._stream = stream
        self._told = told
        self._loop = asyncio.get_running_loop()
        # Payload that cannot be delivered yet; not credited, so that the window is its bound.
        self._held: deque[bytes | memoryview] = deque()
        # Whether a delivery is on the loop's agenda.
        self._scheduled = False
        self._started = False
        self._paused = False
        self._peer_ended = False
        self._eof_told = False
        self._eof_written = False
        self._closing = False
        # The peer sent something that nobody will read: a socket that is closed then is reset.
        self._unread = False
        self._lost = False
        self._write_paused = False
        self._limits = (LOW_MARK - 1, HIGH_MARK - 1)
        self._guard: asyncio.TimerHandle | None = None
        self.set_protocol(protocol)
        stream.context = self
        self._loop.call_soon(self._begin)

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<StreamTransport {self._stream.id} {state} held={len(self._held)}>"

    # -- asyncio.BaseTransport ----------------------------------------------------------------

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """asyncio: another protocol has the connection from now on."""
        self._protocol = protocol
        self._buffered = isinstance(protocol, asyncio.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """asyncio: who has the connection."""
        return self._protocol

    def is_closing(self) -> bool:
        """asyncio: closed, cut or lost; perhaps not to the protocol's knowledge yet."""
        return self._closing

    def close(self) -> None:
        """asyncio: send what was written and the end; CLOSE_S at most. Nothing more is read."""
        if self._closing:
            return
        self._closing = True
        self._unread = bool(self._held)
        self._held.clear()
        stream = self._stream
        stream.end()
        if stream.queued:
            # To be told when everything is on its way.
            stream.set_marks(1, 1)
        else:
            self._flushed()
        if stream.state != State.CLOSED:
            self._guard = self._loop.call_later(CLOSE_S, self.abort)
        self._channel.wake()

    def abort(self) -> None:
        """asyncio: cut the stream; what was not sent is lost."""
        self._reset("the connection was cut")
        self._lose(None)

    # -- reading ------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """asyncio: whether data is delivered."""
        return not self._closing and not self._paused

    def pause_reading(self) -> None:
        """asyncio: deliver nothing; idempotent."""
        if not self._closing and not self._paused:
            self._paused = True
            self._stream.sink_paused = True

    def resume_reading(self) -> None:
        """asyncio: deliver again, from the next turn of the loop on; idempotent."""
        if not self._closing and self._paused:
            self._paused = False
            self._stream.sink_paused = False
            self._schedule()

    # -- writing ------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """asyncio: queue bytes; ignored once the connection is closing.

        Raises:
            RuntimeError: After `write_eof`.
        """
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing or not data:
            return
        stream = self._stream
        stream.send(_unchanging(data))
        self._channel.wake()
        if stream.full:
            self._pause_protocol()

    def can_write_eof(self) -> bool:
        """asyncio: a stream's directions end on their own."""
        return True

    def write_eof(self) -> None:
        """asyncio: end our direction after what was written; idempotent."""
        if not self._closing and not self._eof_written:
            self._eof_written = True
            self._stream.end()
            self._channel.wake()

    def get_write_buffer_size(self) -> int:
        """asyncio: bytes that wait to be sent."""
        return self._stream.queued

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """asyncio: low and high, as they were set; some 64 and 128 KiB by default."""
        return self._limits

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """asyncio: pause the protocol's writing above `high` bytes, resume it at `low`.

        Raises:
            ValueError: Not high >= low >= 0.
        """
        if high is None:
            high = HIGH_MARK - 1 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._limits = (low, high)
        if not self._closing:
            self._stream.set_marks(high + 1, low + 1)
            if self._stream.full:
                self._pause_protocol()

    # -- the stream (`aio.channel.Owner`) -----------------------------------------------------

    def data(self, payload: bytes | memoryview) -> None:
        """See `Owner.data`."""
        if self._closing:
            self._unwanted()
        elif self._held or self._paused or not self._started:
            self._held.append(payload)
        else:
            self._stream.consumed(self._give(payload))

    def accepted(self, message: Message) -> None:
        """See `Owner.accepted`: it was."""

    def drained(self) -> None:
        """See `Owner.drained`. Somebody may have filled the queue again on the way here."""
        stream = self._stream
        if self._closing:
            if not stream.queued:
                self._flushed()
        elif self._write_paused and not stream.full:
            self._write_paused = False
            self._call(self._protocol.resume_writing)

    def ended(self) -> None:
        """See `Owner.ended`."""
        self._peer_ended = True
        if not self._held and not self._paused and self._started:
            self._tell_eof()

    def finished(self) -> None:
        """See `Owner.finished`: what is left is the protocol's to close."""
        self._stop_waiting()
        if self._closing:
            self._lose(None)

    def reset(self, code: int, reason: str) -> None:
        """See `Owner.reset`."""
        self._stop_waiting()
        if self._told is not None:
            code, reason = self._told(code, reason)
        self._lose(StreamReset(code, reason))

    # -- within -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._started = True
        self._schedule()
        self._protocol.connection_made(self)

    def _schedule(self) -> None:
        """Deliver what is held in the next turn of the loop: never from within a call to us."""
        if not self._scheduled and not self._paused and (self._held or self._peer_ended):
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        given = 0
        while self._held and self.is_reading():
            given += self._give(self._held.popleft())
        if given:
            self._stream.consumed(given)
            self._channel.wake()
        if self._peer_ended and not self._held and self.is_reading():
            self._tell_eof()

    def _give(self, payload: bytes | memoryview) -> int:
        """Hand payload to the protocol; returns how much it took, the rest is held."""
        taken = 0
        try:
            if self._buffered:
                taken = self._fill(payload)
            else:
                data = payload if type(payload) is bytes else bytes(payload)
                taken = len(data)
                self._protocol.data_received(data)  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - as of a socket: one protocol's mistake is its own
            self._fail(error, "data_received")
            return taken
        if taken < len(payload):
            if self._closing:
                self._unwanted()
            else:
                self._held.appendleft(memoryview(payload)[taken:])
                self._schedule()
        return taken

    def _fill(self, payload: bytes | memoryview) -> int:
        """Fill buffers of a `BufferedProtocol` until it wants no more."""
        taken, size = 0, len(payload)
        view = memoryview(payload)
        while taken < size and self._buffered and self.is_reading():
            protocol: asyncio.BufferedProtocol = self._protocol  # type: ignore[assignment]
            buffer = memoryview(protocol.get_buffer(size - taken))
            room = min(len(buffer), size - taken)
            if not room:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:room] = view[taken : taken + room]
            taken += room
            protocol.buffer_updated(room)
        return taken

    def _tell_eof(self) -> None:
        if self._eof_told or self._closing:
            return
        self._eof_told = True
        try:
            keep = self._protocol.eof_received()  # type: ignore[attr-defined]
        except Exception as error:  # noqa: BLE001 - see `_give`
            self._fail(error, "eof_received")
            return
        if not keep:
            self.close()

    def _pause_protocol(self) -> None:
        if not self._write_paused:
            self._write_paused = True
            self._call(self._protocol.pause_writing)

    def _call(self, call: Callable[[], None]) -> None:
        """Tell the protocol about flow; a mistake of its is reported, and that is all."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - see `_give`
            self._report(error, "flow control")

    def _unwanted(self) -> None:
        """Data after `close`: behind our end it is answered as a socket would."""
        self._unread = True
        if self._lost:
            self._reset("closed before everything was read")

    def _flushed(self) -> None:
        """Everything was handed over, our end behind it: to the protocol this is all."""
        self._lose(None)
        if self._unread:
            self._reset("closed before everything was read")

    def _reset(self, reason: str) -> None:
        self._stop_waiting()
        self._stream.reset(Code.CONNECTION_RESET, reason)
        self._channel.wake()

    def _fail(self, error: Exception, where: str) -> None:
        self._report(error, where)
        self._reset("the connection was cut")
        self._lose(error)

    def _report(self, error: Exception, where: str) -> None:
        self._loop.call_exception_handler(
            {
                "message": f"protocol.{where}() call failed.",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._closing = True
            self._loop.call_soon(self._tell_lost, error)

    def _tell_lost(self, error: Exception | None) -> None:
        self._held.clear()
        protocol, self._protocol = self._protocol, asyncio.Protocol()
        protocol.connection_lost(error)

    def _stop_waiting(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None


def _unchanging(data: bytes | bytearray | memoryview) -> bytes | memoryview:
    """The same bytes, in something that its owner cannot change while they wait."""
    if type(data) is bytes:
        return data
    if isinstance(data, memoryview) and type(data.obj) is bytes and data.itemsize == 1:
        return data
    return bytes(data)
