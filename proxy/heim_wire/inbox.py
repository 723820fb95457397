"""What becomes of each frame that arrives: the receiving half of a session.

A mistake about one stream ends that stream; a mistake about the session, or about what frames look
like, ends the session.
"""

from __future__ import annotations

from heim_wire.errors import Code, WireError
from heim_wire.events import Auth, GoAway, Hello, Notice, Opened, Ready
from heim_wire.frames import (
    MAX_REASON,
    MAX_TEXT,
    FrameReader,
    Type,
    goaway_payload,
    plain_frame,
    reset_payload,
)
from heim_wire.messages import decode, printable
from heim_wire.pace import Pace
from heim_wire.stream import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_wire.frames import Buffer
    from heim_wire.messages import Message
    from heim_wire.stream import Stream
    from heim_wire.streams import Streams

__all__ = ["VERSION", "Inbox"]

VERSION: Final = 1
# A WINDOW below this was not worth its frame: an honest peer grants half a window, 32 KiB or more.
_WORTHWHILE: Final = 16_384


class Inbox:
    """Reads the peer's frames and tells streams and owner about them.

    Attributes:
        peer: The peer's HELLO, once it came.
    """

    __slots__ = ("_initiator", "_liveness", "_outbox", "_pace", "_reader", "_streams", "peer")

    def __init__(self, streams: Streams, *, initiator: bool) -> None:
        self.peer: Message | None = None
        self._initiator = initiator
        self._streams = streams
        self._outbox = streams.outbox
        self._liveness = streams.liveness
        self._reader = FrameReader()
        self._pace = Pace(streams.liveness.now)

    def receive(self, data: Buffer) -> None:
        """Take what arrived; events go to the outbox.

        Raises:
            WireError: The peer broke the protocol.
        """
        self._reader.feed(data, self._on_data, self._on_frame)
        self._outbox.check()

    def _on_data(self, stream_id: int, payload: Buffer) -> None:
        stream = self._streams.live.get(stream_id)
        if stream is not None and self.peer is not None:
            stream.on_data(payload)
            return
        self._greeted()
        self._streams.late(stream_id, len(payload), ends=not self._reader.left)

    def _on_frame(self, kind: int, stream_id: int, payload: bytes) -> None:
        if kind == Type.HELLO:
            self._on_hello(payload)
            return
        self._greeted()
        if kind == Type.OPEN:
            self._on_open(stream_id, payload)
            return
        on_stream = _STREAM_FRAMES.get(kind) if stream_id else None
        if on_stream is None:
            self._pace.spend(self._liveness.now)
            on_session = _SESSION_FRAMES.get(kind)
            if on_session is not None:
                on_session(self, payload)
            return
        stream = self._streams.live.get(stream_id)
        if stream is not None:
            on_stream(self, stream, payload)
        else:
            self._streams.late(stream_id, 0, ends=True)

    def _greeted(self) -> None:
        if self.peer is None:
            raise WireError(Code.PROTOCOL, "the first frame is not HELLO")

    def _on_hello(self, payload: bytes) -> None:
        if self.peer is not None:
            raise WireError(Code.PROTOCOL, "HELLO twice")
        hello = decode(payload)
        versions = hello.get("v")
        if not isinstance(versions, list) or VERSION not in versions:
            raise WireError(Code.PROTOCOL, f"no common version; ours is {VERSION}")
        limit = hello.get("max_streams")
        if type(limit) is int:
            self._streams.peer_limit = limit
        self.peer = hello
        self._liveness.greeted = True
        self._outbox.happened.append(Hello(hello))
        ping = self._liveness.measure()
        if ping is not None:
            self._outbox.control(plain_frame(Type.PING, 0, ping))

    def _on_auth(self, payload: bytes) -> None:
        if self._initiator:
            raise WireError(Code.PROTOCOL, "AUTH from the acceptor")
        self._outbox.happened.append(Auth(decode(payload)))

    def _on_ready(self, payload: bytes) -> None:
        if not self._initiator:
            raise WireError(Code.PROTOCOL, "READY from the initiator")
        self._outbox.happened.append(Ready(decode(payload)))

    def _on_ping(self, payload: bytes) -> None:
        self._outbox.control(plain_frame(Type.PONG, 0, payload))

    def _on_pong(self, payload: bytes) -> None:
        self._liveness.pong(payload)

    def _on_goaway(self, payload: bytes) -> None:
        code, (reconnect_in, try_for, drain), reason = goaway_payload(payload)
        self._streams.peer_leaving = True
        self._outbox.happened.append(
            GoAway(code, reconnect_in=reconnect_in, try_for=try_for, drain=drain,
                   reason=_text(reason, MAX_REASON))
        )  # fmt: skip

    def _on_session_notice(self, payload: bytes) -> None:
        self._outbox.happened.append(Notice(None, _text(payload, MAX_TEXT)))

    def _on_open(self, stream_id: int, payload: bytes) -> None:
        message = decode(payload)
        stream = self._streams.offer(stream_id)
        if stream is not None:
            self._outbox.happened.append(Opened(stream, message))
        elif not self._streams.full:
            # The peer knew that limit. How full we are it cannot know.
            self._pace.spend(self._liveness.now)

    def _on_accept(self, stream: Stream, payload: bytes) -> None:
        stream.on_accept(decode(payload))

    def _on_empty_data(self, stream: Stream, payload: bytes) -> None:
        # Allowed, and worth nothing: some writers flush with it.
        self._pace.spend(self._liveness.now)

    def _on_eof(self, stream: Stream, payload: bytes) -> None:
        stream.on_eof()

    def _on_reset(self, stream: Stream, payload: bytes) -> None:
        if stream.state == State.OFFERED:
            # Opening and giving up at once makes us dial for nothing (CVE-2023-44487).
            self._pace.spend(self._liveness.now)
        code, reason = reset_payload(payload)
        stream.on_reset(code, _text(reason, MAX_REASON))

    def _on_window(self, stream: Stream, payload: bytes) -> None:
        credit = int.from_bytes(payload, "big")
        if credit < _WORTHWHILE:
            self._pace.spend(self._liveness.now)
        stream.on_window(credit)

    def _on_notice(self, stream: Stream, payload: bytes) -> None:
        self._pace.spend(self._liveness.now)
        self._outbox.happened.append(Notice(stream, _text(payload, MAX_TEXT)))


def _text(payload: bytes, limit: int) -> str:
    return printable(payload.decode(errors="replace"), limit)


_SESSION_FRAMES: Final = {
    Type.AUTH: Inbox._on_auth,
    Type.READY: Inbox._on_ready,
    Type.PING: Inbox._on_ping,
    Type.PONG: Inbox._on_pong,
    Type.GOAWAY: Inbox._on_goaway,
    Type.NOTICE: Inbox._on_session_notice,
}
_STREAM_FRAMES: Final = {
    Type.ACCEPT: Inbox._on_accept,
    Type.DATA: Inbox._on_empty_data,
    Type.EOF: Inbox._on_eof,
    Type.RESET: Inbox._on_reset,
    Type.WINDOW: Inbox._on_window,
    Type.NOTICE: Inbox._on_notice,
}
