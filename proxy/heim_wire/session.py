"""One tunnel session, sans-IO: bytes in, events out; commands in, bytes out; time passed in.

The owner feeds what arrived to `receive`, writes what `take` hands out while its transport has
room, and calls `tick` when `deadline` has come. Whatever may make `take` useful (any command, and
`receive`) can be checked with `wants_write`; whatever `take` brings about is in `events`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from heim_wire.events import Event, Reset
    from heim_wire.messages import Message
    from heim_wire.stream import Stream
    from heim_wire.window import WindowBudget

    Buffer: TypeAlias = bytes | memoryview

__all__ = ["Session", "Settings"]


class Settings:
    """Limits of a session; the defaults are the protocol's. Sizes in bytes."""

    __slots__ = ("max_streams", "max_window", "session_window", "window")

    def __init__(
        self,
        *,
        window: int = 262_144,
        max_window: int = 16_777_216,
        session_window: int = 67_108_864,
        max_streams: int = 1024,
    ) -> None:
        self.window = window
        self.max_window = max_window
        self.session_window = session_window
        # How many streams the peer may have open here; 0 on the `connect` leg.
        self.max_streams = max_streams


class Session:
    """One end of a session. Not thread-safe; never reads a clock; never does I/O.

    Attributes:
        peer: The peer's HELLO, once it came.
        rtt: Smoothed round trip in seconds; None before the first PONG.
        streams: Streams that are not closed, by id.
    """

    peer: Message | None
    rtt: float | None
    streams: dict[int, Stream]

    def __init__(
        self,
        *,
        initiator: bool,
        now: float,
        settings: Settings | None = None,
        budget: WindowBudget | None = None,
        hello: Message | None = None,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        """Begin a session; HELLO is queued as its first frame.

        Args:
            initiator: Whether we dialled; decides which stream ids are ours.
            now: Monotonic seconds, as in every other call.
            settings: Limits; None is the protocol's defaults.
            budget: Shared by all sessions of the process; None is a budget of its own.
            hello: Keys to add to HELLO (`agent`, `replica`, `caps` …).
            entropy: Source of random bytes (os.urandom), for PING and its jitter.
        """
        raise NotImplementedError

    # --- bytes

    def receive(self, data: bytes | memoryview, now: float) -> list[Event]:
        """Take what arrived; the bytes must not change afterwards (payloads may be views of it).

        Raises:
            WireError: The peer broke the protocol. Send `goaway(error.code, error.reason)` if the
                transport still takes it, then close; nothing more can be received.
        """
        raise NotImplementedError

    def take(self, limit: int) -> tuple[list[Buffer], int]:
        """What to write next: buffers and the sum of their sizes, at most `limit`.

        Control frames first, then streams by deficit round robin. Frames are always whole, so a
        limit below 4104 (the largest control frame) may hold up the session. ([], 0): nothing now.
        """
        raise NotImplementedError

    def events(self) -> list[Event]:
        """What `take`, `end` and `consumed` brought about since last asked: Drained, Closed.

        Ask after every `take`. `receive` and `tick` hand out whatever is there along with theirs.
        """
        raise NotImplementedError

    @property
    def wants_write(self) -> bool:
        """Whether `take` has something just now."""
        raise NotImplementedError

    # --- time

    @property
    def deadline(self) -> float:
        """When `tick` should be called next; moves later when bytes arrive, so look at it again."""
        raise NotImplementedError

    def tick(self, now: float, wall: float | None = None) -> list[Event]:
        """Do what is due: PING, or `Dead`. Calling too often is harmless.

        Args:
            now: Monotonic seconds.
            wall: time.time(), if known: when it ran 5 s ahead of `now` the machine was suspended,
                and the peer has 3 s to answer a probe.
        """
        raise NotImplementedError

    # --- commands

    def adopt(self, stream_id: int = 1) -> Stream:
        """The stream that an HTTP upgrade opened and accepted (`connect` leg, both ends)."""
        raise NotImplementedError

    def open(self, message: Message) -> Stream:
        """Ask the peer for a stream; `Accepted` or `Reset` follows. DATA may be sent at once.

        Raises:
            OpenRefused: BUSY (limits of this session or the peer), GOING_AWAY.
        """
        raise NotImplementedError

    def auth(self, message: Message) -> None:
        """Send AUTH (initiator only): `{"kind": "bearer", "token": …}`."""
        raise NotImplementedError

    def ready(self, message: Message) -> None:
        """Send READY (acceptor only): `{"user", "backend", "expires", "request_id"}`."""
        raise NotImplementedError

    def notice(self, text: str, stream: Stream | None = None) -> None:
        """Send a line for a person; unprintable characters are taken out, 1 KiB is the limit."""
        raise NotImplementedError

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
        raise NotImplementedError

    def close(self, code: int, reason: str) -> list[Reset]:
        """The connection is gone: every stream ends with `code`, and its memory is given back.

        Call it whenever a session ends, however it ended. Nothing is sent.
        """
        raise NotImplementedError
