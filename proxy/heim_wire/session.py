"""One tunnel session, sans-IO: bytes in, events out; commands in, bytes out; time passed in.

The owner feeds what arrived to `receive`, writes what `take` hands out while its transport has
room, and calls `tick` when `deadline` has come. Whatever may make `take` useful (any command, and
`receive`) can be checked with `wants_write`; whatever `take` brings about is in `events`.
"""

from __future__ import annotations

import os

from heim_wire.errors import Code, WireError
from heim_wire.events import Auth, Dead, GoAway, Hello, Notice, Opened, Ready, Reset
from heim_wire.frames import (
    MAX_REASON,
    MAX_TEXT,
    FrameReader,
    Type,
    goaway_frame,
    goaway_payload,
    plain_frame,
    reset_payload,
)
from heim_wire.liveness import Liveness
from heim_wire.messages import decode, encode, printable
from heim_wire.outbox import Outbox
from heim_wire.pace import Pace
from heim_wire.settings import Settings
from heim_wire.stream import State
from heim_wire.streams import Streams
from heim_wire.window import Purse, WindowBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from heim_wire.events import Event
    from heim_wire.frames import Buffer
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["VERSION", "Session"]

VERSION: Final = 1
# A WINDOW below this was not worth its frame: an honest peer grants half a window, 32 KiB or more.
_WORTHWHILE: Final = 16_384


class Session:
    """One end of a session. Not thread-safe; never reads a clock; never does I/O.

    Attributes:
        peer: The peer's HELLO, once it came.
    """

    __slots__ = (
        "_failure", "_initiator", "_liveness", "_outbox", "_pace", "_reader", "_streams", "peer",
    )  # fmt: skip

    def __init__(
        self,
        *,
        initiator: bool,
        now: float,
        settings: Settings | None = None,
        budget: WindowBudget | None = None,
        hello: Mapping[str, object] | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Begin a session; HELLO is queued as its first frame.

        Args:
            initiator: Whether we dialled; decides which stream ids are ours.
            now: Monotonic seconds, as in every other call.
            settings: Limits; None is the protocol's defaults.
            budget: Shared by all sessions of the process; None is a budget of its own.
            hello: Keys to add to HELLO (`agent`, `replica`, `caps` …).
            entropy: Source of random bytes, for PING and its jitter.
        """
        settings = settings or Settings()
        self.peer: Message | None = None
        self._initiator = initiator
        self._failure: WireError | None = None
        self._reader = FrameReader()
        self._outbox = Outbox()
        self._pace = Pace(now)
        self._liveness = Liveness(now, entropy)
        self._streams = Streams(
            initiator=initiator,
            outbox=self._outbox,
            liveness=self._liveness,
            purse=Purse(settings.session_window, budget or WindowBudget()),
            settings=settings,
        )
        greeting = {"v": [VERSION], "max_streams": settings.max_streams, **(hello or {})}
        self._outbox.control(plain_frame(Type.HELLO, 0, encode(greeting)))

    def __repr__(self) -> str:
        side = "initiator" if self._initiator else "acceptor"
        return f"<Session {side} streams={len(self.streams)} queued={self.queued}>"

    @property
    def streams(self) -> Mapping[int, Stream]:
        """Streams that are not closed, by number; not to be changed."""
        return self._streams.live

    @property
    def rtt(self) -> float | None:
        """Smoothed round trip in seconds; None before the first PONG."""
        return self._liveness.rtt

    @property
    def queued(self) -> int:
        """Bytes of all streams that wait to be sent."""
        return self._outbox.scheduler.queued

    @property
    def full(self) -> bool:
        """Whether 16 MiB or more are queued, so that new streams are refused."""
        return self._streams.full

    @property
    def going_away(self) -> bool:
        """Whether either side said GOAWAY."""
        return self._streams.leaving or self._streams.peer_leaving

    # Bytes.

    def receive(self, data: Buffer, now: float) -> list[Event]:
        """Take what arrived; the bytes must not change afterwards (payloads may be views of it).

        Raises:
            WireError: The peer broke the protocol. Send `goaway(error.code, error.reason)` if the
                transport still takes it, then close; nothing more can be received.
        """
        if self._failure is not None:
            raise self._failure
        self._liveness.heard(now)
        try:
            self._reader.feed(data, self._on_data, self._on_frame)
            self._outbox.check()
        except WireError as error:
            self._failure = error
            raise
        return self._outbox.events()

    def take(self, limit: int) -> tuple[list[Buffer], int]:
        """What to write next: buffers and the sum of their sizes, at most `limit`.

        Control frames first, then streams by deficit round robin. Frames are always whole, so a
        limit below 4104 (the largest control frame) may hold up the session. ([], 0): nothing now.
        """
        return self._outbox.take(limit)

    def events(self) -> list[Event]:
        """What `take`, `end` and `consumed` brought about since last asked: Drained, Closed.

        Ask after every `take`. `receive` and `tick` hand out whatever is there along with theirs.
        """
        return self._outbox.events()

    @property
    def wants_write(self) -> bool:
        """Whether `take` has something just now."""
        return self._outbox.wants_write

    # Time.

    @property
    def deadline(self) -> float:
        """When `tick` should be called next; moves later when bytes arrive, so look at it again."""
        return self._liveness.deadline

    def tick(self, now: float, wall: float | None = None) -> list[Event]:
        """Do what is due: PING, or `Dead`. Calling too often is harmless.

        Args:
            now: Monotonic seconds.
            wall: time.time(), if known: when it ran 5 s ahead of `now` since the last tick, the
                machine was suspended, and the peer has 3 s to answer a probe.
        """
        ping, dead = self._liveness.tick(now, wall)
        if ping is not None:
            self._outbox.control(plain_frame(Type.PING, 0, ping))
        if dead is not None:
            self._outbox.happened.append(Dead(dead))
        return self._outbox.events()

    # Commands.

    def adopt(self, stream_id: int = 1) -> Stream:
        """The stream that an HTTP upgrade opened and accepted (`connect` leg, both ends).

        Raises:
            ValueError: Not an odd number, or in use.
        """
        return self._streams.adopt(stream_id)

    def open(self, message: Mapping[str, object]) -> Stream:
        """Ask the peer for a stream; `Accepted` or `Reset` follows. DATA may be sent at once.

        Raises:
            OpenRefused: BUSY (limits of this session or the peer), GOING_AWAY.
            ValueError: `message` is no message (see `heim_wire.messages.encode`).
        """
        return self._streams.open(encode(message))

    def auth(self, message: Mapping[str, object]) -> None:
        """Send AUTH (initiator only): `{"kind": "bearer", "token": …}`."""
        assert self._initiator
        self._outbox.control(plain_frame(Type.AUTH, 0, encode(message)))

    def ready(self, message: Mapping[str, object]) -> None:
        """Send READY (acceptor only): `{"user", "backend", "expires", "request_id"}`."""
        assert not self._initiator
        self._outbox.control(plain_frame(Type.READY, 0, encode(message)))

    def notice(self, text: str, stream: Stream | None = None) -> None:
        """Send a line for a person; unprintable characters are taken out, 1 KiB is the limit."""
        stream_id = 0 if stream is None else stream.id
        if stream is None or (stream.state != State.CLOSED and self._streams.announced(stream)):
            payload = printable(text, MAX_TEXT).encode()
            self._outbox.control(plain_frame(Type.NOTICE, stream_id, payload))

    def goaway(
        self,
        code: int,
        reason: str = "",
        *,
        reconnect_in: float = 0.0,
        try_for: float = 0.0,
        drain: float = 0.0,
    ) -> None:
        """Take no new streams from now on, and tell the peer. Times in seconds from now."""
        self._streams.leaving = True
        text = printable(reason, MAX_REASON).encode()
        self._outbox.control(goaway_frame(code, (reconnect_in, try_for, drain), text))

    def close(self, code: int, reason: str) -> list[Reset]:
        """The connection is gone: every stream ends with `code`, and its memory is given back.

        Call it whenever a session ends, however it ended. Nothing is sent.
        """
        streams = list(self._streams.live.values())
        for stream in streams:
            stream.lose()
        self._outbox.clear()
        return [Reset(stream, code, reason) for stream in streams]

    # Frames.

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
        stream = self._streams.live.get(stream_id)
        if on_stream is not None and stream is not None:
            on_stream(self, stream, payload)
            return
        self._pace.spend(self._liveness.now)
        if on_stream is not None:
            self._streams.late(stream_id, 0, ends=True)
        elif kind in _SESSION_FRAMES:
            _SESSION_FRAMES[kind](self, payload)

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
        if stream is None:
            self._pace.spend(self._liveness.now)
        else:
            self._outbox.happened.append(Opened(stream, message))

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
    Type.AUTH: Session._on_auth,
    Type.READY: Session._on_ready,
    Type.PING: Session._on_ping,
    Type.PONG: Session._on_pong,
    Type.GOAWAY: Session._on_goaway,
    Type.NOTICE: Session._on_session_notice,
}
_STREAM_FRAMES: Final = {
    Type.ACCEPT: Session._on_accept,
    Type.DATA: Session._on_empty_data,
    Type.EOF: Session._on_eof,
    Type.RESET: Session._on_reset,
    Type.WINDOW: Session._on_window,
    Type.NOTICE: Session._on_notice,
}
