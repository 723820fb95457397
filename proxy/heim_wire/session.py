"""One tunnel session, sans-IO: bytes in, events out; commands in, bytes out; time passed in.

The owner feeds what arrived to `receive`, writes what `take` hands out while its transport has
room, and calls `tick` when `deadline` has come. Whatever may make `take` useful (any command, and
`receive`) can be checked with `wants_write`; whatever `take` brings about is in `events`.
"""

from __future__ import annotations

import os

from heim_wire.errors import WireError
from heim_wire.events import Dead, Reset
from heim_wire.frames import MAX_REASON, MAX_TEXT, Type, goaway_frame, plain_frame
from heim_wire.inbox import VERSION, Inbox
from heim_wire.liveness import Liveness
from heim_wire.messages import encode, printable
from heim_wire.outbox import Outbox
from heim_wire.settings import Settings
from heim_wire.stream import State
from heim_wire.streams import Streams
from heim_wire.window import Purse, WindowBudget

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from heim_wire.events import Event
    from heim_wire.frames import Buffer
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["Session"]


class Session:
    """One end of a session. Not thread-safe; never reads a clock; never does I/O."""

    __slots__ = ("_failure", "_inbox", "_initiator", "_liveness", "_outbox", "_streams")

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
        self._initiator = initiator
        self._failure: WireError | None = None
        self._outbox = Outbox()
        self._liveness = Liveness(now, entropy, settings.quiet)
        self._streams = Streams(
            initiator=initiator,
            outbox=self._outbox,
            liveness=self._liveness,
            purse=Purse(settings.session_window, budget or WindowBudget()),
            settings=settings,
        )
        self._inbox = Inbox(self._streams, initiator=initiator)
        greeting = {"v": [VERSION], "max_streams": settings.max_streams, **(hello or {})}
        self._outbox.control(plain_frame(Type.HELLO, 0, encode(greeting)))

    def __repr__(self) -> str:
        side = "initiator" if self._initiator else "acceptor"
        return f"<Session {side} streams={len(self.streams)} queued={self.queued}>"

    @property
    def peer(self) -> Message | None:
        """The peer's HELLO, once it came."""
        return self._inbox.peer

    @property
    def streams(self) -> Mapping[int, Stream]:
        """Streams that are not closed, by number; not to be changed."""
        return self._streams.live

    @property
    def rtt(self) -> float | None:
        """Round trip in seconds, as it was measured last; None before the first PONG."""
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

        Empty `data` says that there was a sign of life that is not ours to read (a WebSocket pong).

        Raises:
            WireError: The peer broke the protocol. What came before is in `events()`. Send
                `goaway(error.code, error.reason)` if the transport still takes it, then close;
                nothing more can be received.
        """
        if self._failure is not None:
            raise self._failure
        self._liveness.heard(now)
        try:
            self._inbox.receive(data)
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
        self._streams.leaving = True
        streams = list(self._streams.live.values())
        for stream in streams:
            stream.lose()
        self._outbox.clear()
        return [Reset(stream, code, reason) for stream in streams]
