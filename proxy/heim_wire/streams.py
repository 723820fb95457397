"""All streams of a session: their numbers, how many there may be, and what is left of old ones.

The initiator's streams have odd numbers and the acceptor's even ones, rising, never used again.
Frames of a stream that ended here may still be on their way: they are dropped in silence for a
minute, as long as they are within what the stream had been allowed to send.
"""

from __future__ import annotations

from heim_wire.errors import Code, OpenRefused, WireError
from heim_wire.frames import Type, plain_frame, reset_frame
from heim_wire.stream import Act, State, Stream
from heim_wire.window import INITIAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_wire.liveness import Liveness
    from heim_wire.outbox import Outbox
    from heim_wire.settings import Settings
    from heim_wire.window import Purse

__all__ = ["MAX_OPENING", "MAX_UNKNOWN", "REMEMBERED_S", "SESSION_FULL", "Streams"]

# Not answered yet, in each direction: what a dialler has to keep in mind at once.
MAX_OPENING: Final = 64
# Queued in one session; beyond it another session should take new streams.
SESSION_FULL: Final = 16_777_216
REMEMBERED_S: Final = 60.0
# At 4000 streams a second still a whole second, and that is many round trips.
_REMEMBERED: Final = 4_096
# ACCEPT, EOF, RESET, a NOTICE and a few WINDOWs may have crossed our RESET.
_LATE_FRAMES: Final = 8
MAX_UNKNOWN: Final = 1_000
_LAST_ID: Final = 0xFFFF_FFFF


class Streams:
    """The streams of a session that are not closed, and what all of them share.

    Attributes:
        live: By number.
        peer_limit: How many streams of ours the peer allows.
        leaving: Whether we said GOAWAY.
        peer_leaving: Whether the peer did.
    """

    __slots__ = (
        "_last_theirs", "_next_id", "_offered", "_opening", "_ours", "_past", "_theirs", "_unknown",
        "_waiting", "leaving", "live", "liveness", "outbox", "peer_leaving", "peer_limit", "purse",
        "settings",
    )  # fmt: skip

    def __init__(
        self, *, initiator: bool, outbox: Outbox, liveness: Liveness, purse: Purse,
        settings: Settings,
    ) -> None:  # fmt: skip
        self.outbox = outbox
        self.liveness = liveness
        self.purse = purse
        self.settings = settings
        self.live: dict[int, Stream] = {}
        self.peer_limit = 1024
        self.leaving = False
        self.peer_leaving = False
        self._next_id = 1 if initiator else 2
        # Odd while the initiator had none, even for the acceptor: never a number of ours.
        self._last_theirs = 0 if initiator else -1
        self._ours = 0
        self._theirs = 0
        # OPENs without an answer: ours that went, theirs; and ours that wait to go.
        self._opening = 0
        self._offered = 0
        self._waiting: dict[int, bytes] = {}
        # Closed streams, oldest first: until when they are known, how much DATA and how many
        # other frames may still come.
        self._past: dict[int, tuple[float, int, int]] = {}
        self._unknown = 0

    @property
    def full(self) -> bool:
        """Whether so much is queued that new streams should go elsewhere."""
        return self.outbox.scheduler.queued >= SESSION_FULL

    # Ours.

    def adopt(self, stream_id: int) -> Stream:
        """A stream that is open without any frame; it counts as the initiator's."""
        if stream_id in self.live or stream_id % 2 == 0:
            raise ValueError(f"stream {stream_id} cannot be adopted")
        if self._next_id % 2:
            self._next_id = max(self._next_id, stream_id + 2)
            self._ours += 1
        else:
            self._last_theirs = max(self._last_theirs, stream_id)
            self._theirs += 1
        stream = Stream(self, stream_id, credit=INITIAL)
        self.live[stream_id] = stream
        stream.move(Act.ADOPT)
        stream.grant_first()
        return stream

    def open(self, payload: bytes) -> Stream:
        """A stream of ours; its OPEN goes at once, or when fewer than 64 wait for an answer.

        Raises:
            OpenRefused: See `Session.open`.
        """
        if self.leaving or self.peer_leaving:
            raise OpenRefused(Code.GOING_AWAY, "the session is going away")
        if self._next_id > _LAST_ID:
            raise OpenRefused(Code.GOING_AWAY, "the session has no stream numbers left")
        if self._ours >= self.peer_limit:
            raise OpenRefused(Code.BUSY, f"{self._ours} streams are open, and that is the limit")
        if self.full:
            raise OpenRefused(Code.BUSY, "too much waits to be sent")
        # Without credit nothing can be taken from it before its OPEN went.
        stream = Stream(self, self._next_id, credit=0)
        self._next_id += 2
        self._ours += 1
        self.live[stream.id] = stream
        stream.move(Act.SEND_OPEN)
        self._waiting[stream.id] = payload
        self._announce()
        return stream

    def announced(self, stream: Stream) -> bool:
        """Whether the peer has heard of a stream; of one that waits for its turn it has not."""
        return stream.id not in self._waiting

    def _announce(self) -> None:
        while self._waiting and self._opening < MAX_OPENING:
            stream_id = next(iter(self._waiting))
            self._opening += 1
            self.outbox.control(plain_frame(Type.OPEN, stream_id, self._waiting.pop(stream_id)))
            stream = self.live[stream_id]
            self.outbox.scheduler.allow(stream, INITIAL)
            stream.grant_first()

    # Theirs.

    def offer(self, stream_id: int) -> Stream | None:
        """A stream of the peer's OPEN; None when it was refused and told so.

        Raises:
            WireError: A number that is not the peer's to use, or not any more.
        """
        if stream_id % 2 == self._next_id % 2:
            raise WireError(Code.PROTOCOL, f"OPEN of stream {stream_id}, a number of ours")
        if stream_id <= self._last_theirs:
            raise WireError(Code.PROTOCOL, f"OPEN of stream {stream_id} again")
        self._last_theirs = stream_id
        refusal = self._refusal()
        if refusal is not None:
            code, reason = refusal
            self.outbox.control(reset_frame(stream_id, code, reason))
            # Early data may follow.
            self._remember(stream_id, INITIAL)
            return None
        stream = Stream(self, stream_id, credit=INITIAL)
        self._theirs += 1
        self._offered += 1
        self.live[stream_id] = stream
        stream.move(Act.RECV_OPEN)
        return stream

    def _refusal(self) -> tuple[int, bytes] | None:
        if self.leaving:
            return Code.GOING_AWAY, b"going away"
        if self._theirs >= self.settings.max_streams:
            return Code.BUSY, b"too many streams"
        if self._offered >= MAX_OPENING:
            return Code.BUSY, b"too many streams are being opened"
        if self.full:
            return Code.BUSY, b"too much waits to be sent"
        return None

    # What becomes of them.

    def answered(self, stream: Stream) -> None:
        """A stream was accepted."""
        if self._is_ours(stream.id):
            self._opening -= 1
            self._announce()
        else:
            self._offered -= 1

    def left(self, stream: Stream, before: str) -> None:
        """A stream closed; `before` is the state that it was in."""
        del self.live[stream.id]
        if self._is_ours(stream.id):
            self._ours -= 1
            if self._waiting.pop(stream.id, None) is None and before == State.OPENING:
                self._opening -= 1
            self._announce()
        else:
            self._theirs -= 1
            if before == State.OFFERED:
                self._offered -= 1
        self._remember(stream.id, max(stream.window.credit, 0))

    def late(self, stream_id: int, size: int, *, ends: bool) -> None:
        """Account for a frame of a stream that is not live.

        Args:
            stream_id: Its stream.
            size: Of its DATA, or of a piece of it.
            ends: Whether it is complete with this.

        Raises:
            WireError: One too many that nobody can explain.
        """
        until, credit, frames = self._past.get(stream_id, (0.0, 0, 0))
        frames -= not size
        if self.liveness.now < until and size <= credit and frames >= 0:
            self._past[stream_id] = (until, credit - size, frames)
            return
        self._unknown += ends
        if self._unknown > MAX_UNKNOWN:
            raise WireError(Code.PROTOCOL, f"more than {MAX_UNKNOWN} frames of unknown streams")

    def _is_ours(self, stream_id: int) -> bool:
        return stream_id % 2 == self._next_id % 2

    def _remember(self, stream_id: int, credit: int) -> None:
        now = self.liveness.now
        past = self._past
        past[stream_id] = (now + REMEMBERED_S, credit, _LATE_FRAMES)
        while True:
            oldest = next(iter(past))
            if len(past) <= _REMEMBERED and past[oldest][0] > now:
                return
            del past[oldest]
