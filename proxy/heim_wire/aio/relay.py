"""A stream joined with a local connection: bytes, ends and resets pass both ways.

`Relay` is the protocol of the local TCP or unix connection and the owner of the stream. It works
without tasks and futures; whatever is slow on one side stops the other by its window or its gate.
Each direction ends on its own: ssh sends its last bytes after the other side's end, `nc -N` waits
for the whole answer after its own.
"""

from __future__ import annotations

import asyncio

from heim_wire.aio.buffers import read_buffer
from heim_wire.aio.gate import ReadGate, turn_bytes
from heim_wire.aio.sockets import reset_on_close, tune
from heim_wire.aio.transport import StreamReset
from heim_wire.errors import Code
from heim_wire.stream import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from heim_wire.aio.channel import Channel
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["Relay"]

# What the local transport holds before the stream's window stops to be opened again. It comes on
# top of the window when a reader stalls: window + 128 KiB + one read is the bound.
_HIGH_BYTES: Final = 128 * 1024
# One read is one DATA frame in one write of `Channel`, with no rest to be written on its own.
_READ_BYTES: Final = 65_520
# For the local side to take the rest once both directions have ended; people do page through it.
_REST_S: Final = 300.0
# Reads above this are charged to the turn's budget; smaller ones cannot starve anybody.
_BULK_BYTES: Final = 16 * 1024
# Reasons not to read the local side, as bits beside `gate.TURN`.
_FULL: Final = 1
_UNJOINED: Final = 2


class Relay(asyncio.BufferedProtocol):
    """One local connection and, once `join`ed, one stream; it closes both.

    Attributes:
        sent: Bytes read from the local side and given to the stream.
        received: Bytes taken from the stream and given to the local side.
        over: Whether both sides are done with.
    """

    __slots__ = (
        "_buffer",
        "_channel",
        "_connected",
        "_early",
        "_gate",
        "_local_ended",
        "_over",
        "_owed",
        "_peer_ended",
        "_rest",
        "_stream",
        "_stream_done",
        "_transport",
        "_unsent",
        "_write_paused",
        "over",
        "received",
        "sent",
    )

    def __init__(
        self,
        over: Callable[[Relay, int, str], None],
        *,
        connected: Callable[[asyncio.Transport], None] | None = None,
    ) -> None:
        """Wait for the local connection (`connection_made`) and the stream (`join`), in any order.

        Args:
            over: Called once when both sides are done with: the relay, a `Code` (0: both
                directions ended in good order) and a reason in words.
            connected: Called with the local connection when it is there, before any byte passes:
                may write to it what has to go first, and accept the stream with a message.
        """
        self.sent = 0
        self.received = 0
        self.over = False
        self._over = over
        self._connected = connected
        self._buffer = read_buffer()[:_READ_BYTES]
        self._transport: asyncio.Transport | None = None
        self._gate: ReadGate | None = None
        self._channel: Channel | None = None
        self._stream: Stream | None = None
        # Payload that came before there was a local connection: at most the stream's first window.
        self._unsent: list[bytes | memoryview] = []
        # Bytes read before there was a stream: one read at most, and mostly none.
        self._early: list[bytes] = []
        # Payload that waits in the local transport, not credited to the peer yet.
        self._owed = 0
        self._rest: asyncio.TimerHandle | None = None
        self._write_paused = False
        self._local_ended = False
        self._peer_ended = False
        self._stream_done = False

    def __repr__(self) -> str:
        name = self._stream.id if self._stream is not None else "-"
        return f"<Relay stream={name} sent={self.sent} received={self.received}>"

    def join(self, channel: Channel, stream: Stream) -> None:
        """Become the owner of `stream` (its `context`) and start to read the local side.

        A stream that the peer offered is accepted when the local connection is there, unless its
        owner did.
        """
        self._channel = channel
        self._stream = stream
        if self.over:
            # The local connection was lost in the meantime, or somebody ended us.
            stream.reset(Code.CONNECTION_RESET, "the connection behind was closed")
            channel.wake()
            return
        stream.context = self
        if self._transport is not None:
            self._accept()
        early, self._early = self._early, []
        for data in early:
            self._read(data)
        if self._local_ended:
            self._end_stream()
        if self._gate is not None:
            self._gate.release(_UNJOINED)

    @property
    def complete(self) -> bool:
        """Whether both directions of the stream ended in good order."""
        return self._stream_done and not self.over

    def end(self, code: int, reason: str) -> None:
        """End both sides now: RESET to the stream, RST to the local connection; idempotent.

        Nothing happens once both directions have ended: what the local side did not take yet was
        sent, and its sender was told that it arrived. It has _REST_S for that.
        """
        if self.over or self._stream_done:
            return
        if self._stream is not None:
            self._stream.reset(code, reason)
            self._wake()
        self._cut(code, reason)

    # -- the local connection -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the local connection is there."""
        # uvloop's transports are alike, not subclasses.
        local: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport = local
        if self.over:
            reset_on_close(local.get_extra_info("socket"))
            local.abort()
            return
        tune(local.get_extra_info("socket"))
        local.set_write_buffer_limits(high=_HIGH_BYTES)
        connected, self._connected = self._connected, None
        if connected is not None:
            connected(local)
        loop = asyncio.get_running_loop()
        gate = self._gate = ReadGate(local, loop, turn_bytes(loop))
        if self._stream is None:
            gate.hold(_UNJOINED)
            loop.call_soon(gate.insist)
        else:
            self._accept()
        unsent, self._unsent = self._unsent, []
        for payload in unsent:
            self.data(payload)
        if unsent:
            self._wake()
        if self._peer_ended:
            self._end_local()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes are in the buffer."""
        self._read(bytes(self._buffer[:nbytes]))

    def _read(self, data: bytes) -> None:
        """Bytes from the local side."""
        stream = self._stream
        if stream is None:
            self._early.append(data)
            if self._gate is not None:
                self._gate.insist()
            return
        if self._stream_done:
            return
        size = len(data)
        self.sent += size
        stream.send(data)
        channel, gate = self._channel, self._gate
        assert channel is not None
        if gate is not None:
            if stream.full:
                gate.hold(_FULL)
            if size > _BULK_BYTES:
                gate.spend(size)
        channel.wake()

    def eof_received(self) -> bool:
        """asyncio: the local side will send nothing more; it may still want to read."""
        # It can come twice: a transport that is paused and resumed after its end tells it again.
        if not self._local_ended:
            self._local_ended = True
            if self._stream is not None:
                self._end_stream()
        # Kept open, whatever is true: we close when the other direction is over as well.
        return True

    def pause_writing(self) -> None:
        """asyncio: the local side reads slowly. What comes is credited when it catches up."""
        self._write_paused = True
        if self._stream is not None:
            self._stream.sink_paused = True

    def resume_writing(self) -> None:
        """asyncio: the local side caught up."""
        self._write_paused = False
        stream = self._stream
        if stream is None:
            return
        stream.sink_paused = False
        owed, self._owed = self._owed, 0
        if owed:
            stream.consumed(owed)
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the local connection is gone."""
        self._transport = None
        if self.over:
            return
        if exc is None and self._local_ended and self._peer_ended:
            self._done()
        elif isinstance(exc, StreamReset):
            # The local connection is a stream itself: what became of it is told as it was said.
            self._lost(exc.code, exc.reason)
        else:
            self._lost(Code.CONNECTION_RESET, _why(exc))

    def _lost(self, code: int, reason: str) -> None:
        if self._stream_done:
            self._cut(code, reason)
        else:
            self.end(code, reason)

    # -- the stream ---------------------------------------------------------------------------

    def data(self, payload: bytes | memoryview) -> None:
        """See `Owner.data`."""
        transport = self._transport
        if transport is None:
            if not self.over:
                self._unsent.append(payload)
            return
        size = len(payload)
        self.received += size
        transport.write(payload)
        if self._write_paused:
            self._owed += size
            return
        stream = self._stream
        if stream is not None:
            stream.consumed(size)

    def accepted(self, message: Message) -> None:
        """See `Owner.accepted`: bytes need no permission, they may go before it."""

    def drained(self) -> None:
        """See `Owner.drained`."""
        if self._gate is not None:
            self._gate.release(_FULL)

    def ended(self) -> None:
        """See `Owner.ended`: half of the local connection closes."""
        self._peer_ended = True
        if self._transport is not None:
            self._end_local()

    def finished(self) -> None:
        """See `Owner.finished`."""
        self._stream_done = True
        if self._transport is not None:
            late = (Code.CONNECTION_RESET, "the rest was not taken")
            self._rest = asyncio.get_running_loop().call_later(_REST_S, self._cut, *late)
        self._done()

    def reset(self, code: int, reason: str) -> None:
        """See `Owner.reset`: the local side must not take this for an end."""
        self._stream_done = True
        self._cut(code, reason)

    # -- ends ---------------------------------------------------------------------------------

    def _accept(self) -> None:
        if self._stream is not None and self._stream.state == State.OFFERED:
            self._stream.accept()
            self._wake()

    def _end_stream(self) -> None:
        """The local side ended: say so, in band; TLS has no half-close (tunnel.md, 0.5)."""
        assert self._stream is not None
        self._stream.end()
        self._wake()
        if self._peer_ended and self._transport is not None:
            self._transport.close()

    def _end_local(self) -> None:
        """The peer ended: the local side's reader sees the end behind the last byte."""
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            return
        if self._local_ended:
            transport.close()
        else:
            transport.write_eof()

    def _cut(self, code: int, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self._stop_waiting()
        self._early.clear()
        self._unsent.clear()
        transport, self._transport = self._transport, None
        if transport is not None:
            reset_on_close(transport.get_extra_info("socket"))
            transport.abort()
        self._over(self, code, reason)

    def _done(self) -> None:
        """One side is done with in good order; over when both are."""
        if self._stream_done and self._transport is None and not self.over:
            self.over = True
            self._stop_waiting()
            self._over(self, 0, "both sides ended")

    def _stop_waiting(self) -> None:
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None

    def _wake(self) -> None:
        if self._channel is not None:
            self._channel.wake()


def _why(error: Exception | None) -> str:
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the connection behind was reset"
    if isinstance(error, TimeoutError):
        return "the connection behind timed out"
    return "the connection behind was closed" if error is None else "the connection behind broke"
