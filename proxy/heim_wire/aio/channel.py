"""A session over one connection: drives `Session` and `WebSocket` on an asyncio transport.

Everything of one turn of the loop leaves in one write. What waits is kept in the streams' queues,
where it can be scheduled, and not in the transport: that takes only what it can send soon. A full
transport therefore stops no reader; a stream's full queue stops its own source and nobody else's.
"""

from __future__ import annotations

import asyncio
import time

from heim_wire.aio.alarms import alarms
from heim_wire.errors import Code, WireError
from heim_wire.events import Accepted, Closed, Data, Dead, Drained, Ended, Reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final, Protocol

    from heim_wire.events import Event
    from heim_wire.messages import Message
    from heim_wire.session import Session
    from heim_wire.websocket import WebSocket

    class Handler(Protocol):
        """Who owns a channel."""

        def event(self, channel: Channel, event: Event) -> None:
            """What is not for a stream's owner: Hello, Auth, Ready, Opened, Notice, GoAway, Dead.

            And the events of streams whose `context` is None.
            """

        def closed(self, channel: Channel, code: int, reason: str) -> None:
            """The channel ended; once, after the owners of its streams were told by `reset`.

            `code` is 0 when it was closed in good order, else a `heim_wire.errors.Code`.
            """

    class Owner(Protocol):
        """What is kept in `stream.context`: the one who takes what comes for a stream."""

        def data(self, payload: bytes | memoryview) -> None:
            """Payload, in order; to be credited with `stream.consumed` when it is disposed of."""

        def accepted(self, message: Message) -> None:
            """The peer accepted the stream."""

        def drained(self) -> None:
            """The stream takes data again."""

        def ended(self) -> None:
            """The peer will send nothing more."""

        def finished(self) -> None:
            """Both directions ended in good order."""

        def reset(self, code: int, reason: str) -> None:
            """The stream is over: the peer reset it, or the channel ended under it."""


__all__ = ["CLOSE_S", "FINISH_S", "Channel"]

# What the transport may hold. 64 KiB and the kernel's 64 KiB are what a key press waits behind:
# 70 ms beside a bulk upload at 100 Mbit/s and 40 ms, against 335 ms with a kernel's own buffer
# (bench/README.md). A stream that is alone disturbs nobody.
_HIGH_BYTES: Final = 64 * 1024
_SINGLE_HIGH_BYTES: Final = 256 * 1024
# One write: four TLS records, less the longest WebSocket head there is of it; a few bytes more are
# a fifth record. 64 KiB for 32 saves a tenth of the CPU, the fifth record less (bench/README.md).
_BATCH_BYTES: Final = 65_528
# With as much room left over in a batch nothing waits that could be sent: more than any frame of
# control, and than the scheduler leaves because a cut would be small.
_SURE_BYTES: Final = 8 * 1024
# A close frame and what is before it must leave within this, or the connection is cut.
CLOSE_S: Final = 2.0
# What was queued when `finish` was called must arrive, and the peer's close frame come back, within
# this: as long as TCP_USER_TIMEOUT waits for an acknowledgement.
FINISH_S: Final = 20.0
# Room for GOAWAY before a close: the largest control frame, some waiting ones, a reply.
_LAST_WORDS_BYTES: Final = 16 * 1024
_CLOSE_CODES: Final = {Code.PROTOCOL: 1002, Code.GOING_AWAY: 1001, Code.INTERNAL: 1011}
_POLICY_CLOSE: Final = 1008
# What a peer's close frame means, 0 for an end in good order; others are a lost peer.
_CLOSED: Final = {
    1000: 0, 1005: 0, 1001: Code.GOING_AWAY, 1002: Code.PROTOCOL, 1011: Code.INTERNAL,
}  # fmt: skip


class Channel:
    """One session on one transport. The transport's protocol passes its events on.

    Call `wake` after anything that gave the session something to write.

    Attributes:
        session: The session.
        over: Whether the channel ended; then nothing is written or told any more.
        sent: Bytes of the session that were handed to the transport.
    """

    __slots__ = (
        "_alarms",
        "_finishing",
        "_guard",
        "_handler",
        "_high",
        "_loop",
        "_lost",
        "_paused",
        "_timer",
        "_transport",
        "_woken",
        "over",
        "sent",
        "session",
        "websocket",
    )

    def __init__(
        self,
        session: Session,
        websocket: WebSocket,
        transport: asyncio.Transport,
        handler: Handler,
        *,
        single: bool = False,
        lost: int = Code.PEER_LOST,
    ) -> None:
        """Take over `transport`, whose handshake is done.

        Args:
            session: Its HELLO is queued; it is sent in the next turn.
            websocket: In the same role as the connection.
            transport: Closed by the channel.
            handler: Told what is for nobody else.
            single: The session carries one stream, so that nobody waits behind it: more may be
                handed to the transport at a time.
            lost: Code for streams whose connection broke under them.
        """
        self.session = session
        self.websocket = websocket
        self.over = False
        self.sent = 0
        self._transport = transport
        self._handler = handler
        self._lost = lost
        self._high = _SINGLE_HIGH_BYTES if single else _HIGH_BYTES
        self._loop = asyncio.get_running_loop()
        # Above the transport's high mark.
        self._paused = False
        # Whether a flush is on the loop's agenda.
        self._woken = False
        self._finishing = False
        self._alarms = alarms()
        self._timer: int | None = None
        # Cuts the connection when an end in good order takes too long.
        self._guard: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(high=self._high)
        self._arm(session.deadline)
        self.wake()

    # -- from the transport's protocol --------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Bytes from the transport. A peer that breaks the protocol ends the channel."""
        if self.over:
            return
        websocket = self.websocket
        try:
            pieces = websocket.receive(data)
            now = time.monotonic()
            receive = self.session.receive
            # Nothing for the session is a sign of life all the same: a pong, half a header.
            for piece in pieces or (b"",):
                self._dispatch(receive(piece, now))
        except WireError as error:
            self.close(error.code, error.reason)
            return
        if websocket.closed is not None:
            self._peer_closed()
        elif self.session.wants_write or websocket.owes:
            if self._woken or self.session.streams:
                self.wake()
            else:
                # Nothing will join it in this turn: mostly a PONG.
                self._flush()

    def eof(self) -> None:
        """The transport reached its end of input: without a close frame the peer was cut off."""
        self._end(self._lost, "the connection ended without a goodbye")
        self._transport.close()

    def pause_writing(self) -> None:
        """asyncio: the transport is full; streams' queues hold their sources when they fill."""
        self._paused = True

    def resume_writing(self) -> None:
        """asyncio: the transport takes more."""
        self._paused = False
        self.wake()

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the transport is gone."""
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None
        self._end(self._lost, f"the connection was lost ({error})" if error else "it was closed")

    # -- from the owner -----------------------------------------------------------------------

    def hand_over(self, handler: Handler) -> None:
        """Tell somebody else from now on."""
        self._handler = handler

    def wake(self) -> None:
        """Flush what the session has to write in the next turn of the loop; idempotent."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._flush)

    def finish(self) -> None:
        """Close in good order (1000) once everything that is queued was written.

        The connection is kept until the peer answers, which tells that it has read everything: a
        socket that is closed earlier would meet the peer's WINDOW frames with a RST, and that can
        destroy what the peer did not read yet. `Handler.closed` is called then; FINISH_S at most.
        """
        if self.over or self._finishing:
            return
        self._finishing = True
        self._guard = self._loop.call_later(FINISH_S, self.abort)
        self.wake()

    def close(self, code: int, reason: str, *, reconnect_in: float = 0.0, streams: int = 0) -> None:
        """End now with GOAWAY and a close frame that say why; a `heim_wire.errors.Code`.

        What is queued is lost. The connection is cut after CLOSE_S if it is not closed by then.

        Args:
            code: For the peer, and for `Handler.closed`.
            reason: One line.
            reconnect_in: How many seconds the peer should wait before it tries again.
            streams: What the streams' owners are told instead of `code`: theirs may be another
                concern than why this connection had to end.
        """
        if self.over:
            return
        self.session.goaway(code, reason, reconnect_in=reconnect_in)
        transport = self._transport
        if not transport.is_closing():
            parts, total = self.session.take(_LAST_WORDS_BYTES)
            last = self.websocket.close(_CLOSE_CODES.get(code, _POLICY_CLOSE), reason)
            if last:
                transport.write((self.websocket.frame(parts, total) if total else b"") + last)
        self._end(code, reason, streams=streams)
        self._close_soon()

    def abort(self) -> None:
        """End without a word: what was not sent is lost."""
        self._transport.abort()
        self._end(self._lost, "the connection was cut")

    # -- within -------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Hand over to the transport what it takes; once per turn of the loop."""
        self._woken = False
        if self.over:
            return
        session, websocket = self.session, self.websocket
        if not self._paused and not websocket.closing and not self._transport.is_closing():
            self._write()
        self._dispatch(session.events())
        if self.over:
            return
        if not session.wants_write:
            if self._finishing:
                self._say_goodbye()
        elif not self._paused and not websocket.closing:
            self.wake()
        if self._timer is None:
            # One that is set is right: deadlines move later. (Only the next PING may be due earlier
            # because of one in between, by no more than its jitter; that can wait.)
            self._arm(self.session.deadline)

    def _write(self) -> None:
        transport, take, frame = self._transport, self.session.take, self.websocket.frame
        replies = self.websocket.replies()
        if replies:
            transport.write(replies)
        left = self._high
        while left > 0 and not self._paused:
            parts, total = take(_BATCH_BYTES)
            if not total:
                break
            transport.write(frame(parts, total))
            left -= total
            self.sent += total
            if _BATCH_BYTES - total > _SURE_BYTES:
                # Whatever there is had room in this one.
                break

    def _dispatch(self, events: Iterable[Event]) -> None:
        for event in events:
            if self.over:
                return
            if type(event) is Data:
                owner: Owner | None = event.stream.context  # type: ignore[assignment]
                if owner is not None:
                    owner.data(event.payload)
                    continue
            self._tell(event)

    def _tell(self, event: Event) -> None:
        """Pass on anything but payload: to the stream's owner, or to the handler."""
        stream = getattr(event, "stream", None)
        owner: Owner | None = stream.context if stream is not None else None
        if type(event) is Dead:
            self._handler.event(self, event)
            self._transport.abort()
            self._end(self._lost, event.reason)
        elif owner is None:
            self._handler.event(self, event)
        elif type(event) is Reset:
            owner.reset(event.code, event.reason)
        elif type(event) is Accepted:
            owner.accepted(event.message)
        elif type(event) is Drained:
            owner.drained()
        elif type(event) is Ended:
            owner.ended()
        elif type(event) is Closed:
            owner.finished()
        else:
            self._handler.event(self, event)

    def _say_goodbye(self) -> None:
        last = self.websocket.close(1000)
        if last:
            self._transport.write(last)

    def _peer_closed(self) -> None:
        """The peer's close frame came: answer it, and that is all."""
        close = self.websocket.closed
        assert close is not None
        if not self._transport.is_closing():
            replies = self.websocket.replies()
            if replies:
                self._transport.write(replies)
        code = _CLOSED.get(close.code, self._lost)
        self._end(code, close.reason or (f"the peer closed ({close.code})" if code else ""))
        self._close_soon()

    def _end(self, code: int, reason: str, *, streams: int = 0) -> None:
        """Tell everybody, once."""
        if self.over:
            return
        self.over = True
        if self._timer is not None:
            self._alarms.cancel(self._timer, self._alarm)
            self._timer = None
        for event in self.session.close(streams or code or self._lost, reason or "the peer closed"):
            owner: Owner | None = event.stream.context  # type: ignore[assignment]
            if owner is not None:
                owner.reset(event.code, event.reason)
            else:
                self._handler.event(self, event)
        self._handler.closed(self, code, reason)

    def _close_soon(self) -> None:
        """Close the transport; cut it if what was written does not leave (uvloop waits 30 s)."""
        self._transport.close()
        if self._guard is not None:
            self._guard.cancel()
        self._guard = self._loop.call_later(CLOSE_S, self._transport.abort)

    def _arm(self, deadline: float) -> None:
        """Have `_alarm` called at the session's deadline, or a moment later.

        A deadline mostly moves later: the timer is left where it is and looks again then.
        """
        self._timer = self._alarms.set(deadline, self._alarm)

    def _alarm(self) -> None:
        self._timer = None
        now = time.monotonic()
        deadline = self.session.deadline
        if now >= deadline:
            self._dispatch(self.session.tick(now, time.time()))
            if self.over:
                return
            self.wake()
            deadline = self.session.deadline
        self._arm(deadline)
