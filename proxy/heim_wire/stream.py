"""One stream of a session: its state, what waits to be sent, and what its owner may do with it.

Streams are made by `Session` (`open`, `adopt`, or the peer's OPEN) and never block: `send` only
queues, and the owner stops reading its source while `full` says so, until `Drained`. Whatever may
be sent or received when is in `TRANSITIONS`; what is not in there is a mistake of somebody.
"""

from __future__ import annotations

from heim_wire.errors import Code
from heim_wire.events import Accepted, Closed, Data, Drained, Ended, Reset
from heim_wire.frames import MAX_REASON, Type, plain_frame, reset_frame
from heim_wire.messages import encode, printable
from heim_wire.scheduler import SendQueue
from heim_wire.window import MAX_CREDIT, ReceiveWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from heim_wire.messages import Message
    from heim_wire.streams import Streams

__all__ = ["TRANSITIONS", "Act", "State", "Stream"]


class State:
    """Names of the states of a stream (RFC 9113, 5.1 has nearly the same picture)."""

    IDLE = "idle"
    OPENING = "opening"  # we sent OPEN; may send DATA already, within the first 64 KiB
    OFFERED = "offered"  # the peer sent OPEN; its early DATA may come
    OPEN = "open"
    LOCAL_OPEN = "local open"  # the peer's EOF came; we may go on sending
    REMOTE_OPEN = "remote open"  # our EOF went; the peer may go on sending
    CLOSED = "closed"


class Act:
    """What moves a stream from state to state: frames sent and received."""

    ADOPT = "adopted"
    SEND_OPEN = "send OPEN"
    RECV_OPEN = "receive OPEN"
    SEND_ACCEPT = "send ACCEPT"
    RECV_ACCEPT = "receive ACCEPT"
    SEND_DATA = "send DATA"
    RECV_DATA = "receive DATA"
    SEND_EOF = "send EOF"
    RECV_EOF = "receive EOF"
    SEND_RESET = "send RESET"
    RECV_RESET = "receive RESET"


TRANSITIONS: Final = {
    (State.IDLE, Act.ADOPT): State.OPEN,
    (State.IDLE, Act.SEND_OPEN): State.OPENING,
    (State.IDLE, Act.RECV_OPEN): State.OFFERED,
    # Early data saves a round trip; EOF waits for the answer.
    (State.OPENING, Act.SEND_DATA): State.OPENING,
    (State.OPENING, Act.RECV_ACCEPT): State.OPEN,
    (State.OPENING, Act.SEND_RESET): State.CLOSED,
    (State.OPENING, Act.RECV_RESET): State.CLOSED,
    (State.OFFERED, Act.RECV_DATA): State.OFFERED,
    (State.OFFERED, Act.SEND_ACCEPT): State.OPEN,
    (State.OFFERED, Act.SEND_RESET): State.CLOSED,
    (State.OFFERED, Act.RECV_RESET): State.CLOSED,
    (State.OPEN, Act.SEND_DATA): State.OPEN,
    (State.OPEN, Act.RECV_DATA): State.OPEN,
    (State.OPEN, Act.SEND_EOF): State.REMOTE_OPEN,
    (State.OPEN, Act.RECV_EOF): State.LOCAL_OPEN,
    (State.OPEN, Act.SEND_RESET): State.CLOSED,
    (State.OPEN, Act.RECV_RESET): State.CLOSED,
    (State.LOCAL_OPEN, Act.SEND_DATA): State.LOCAL_OPEN,
    (State.LOCAL_OPEN, Act.SEND_EOF): State.CLOSED,
    (State.LOCAL_OPEN, Act.SEND_RESET): State.CLOSED,
    (State.LOCAL_OPEN, Act.RECV_RESET): State.CLOSED,
    # ssh sends its last bytes after we sent EOF, so a half-closed stream keeps flowing.
    (State.REMOTE_OPEN, Act.RECV_DATA): State.REMOTE_OPEN,
    (State.REMOTE_OPEN, Act.RECV_EOF): State.CLOSED,
    (State.REMOTE_OPEN, Act.SEND_RESET): State.CLOSED,
    (State.REMOTE_OPEN, Act.RECV_RESET): State.CLOSED,
}
_SENDING: Final = frozenset(state for state, act in TRANSITIONS if act == Act.SEND_DATA)
_RECEIVING: Final = frozenset(state for state, act in TRANSITIONS if act == Act.RECV_DATA)


class Stream(SendQueue):
    """One stream, as its owner sees it.

    Attributes:
        id: Its number on the wire.
        state: One of `State`.
        context: The owner's slot; the session never looks at it.
        queued: Bytes that wait to be sent.
    """

    __slots__ = ("_ending", "_streams", "context", "state", "window")

    def __init__(self, streams: Streams, stream_id: int, *, credit: int) -> None:
        super().__init__(stream_id, credit)
        self._streams = streams
        self.state = State.IDLE
        self.context: object = None
        self.window = ReceiveWindow(streams.purse, streams.liveness.now)
        # end() was called; EOF goes when the queue is empty and the stream was accepted.
        self._ending = False

    def __repr__(self) -> str:
        return f"<Stream {self.id} {self.state} queued={self.queued} credit={self.credit}>"

    @property
    def sink_paused(self) -> bool:
        """Whether the owner's sink is slow just now; set by the owner, stops window growth."""
        return self.window.paused

    @sink_paused.setter
    def sink_paused(self, paused: bool) -> None:
        self.window.pause(paused)

    # What the owner may do.

    def send(self, data: bytes | memoryview) -> None:
        """Queue bytes; they must not change afterwards. Ignored once the stream is closed.

        Raises:
            ValueError: After `end()`, or on an offered stream that was not accepted.
        """
        if self._ending or self.state not in _SENDING:
            if self.state == State.CLOSED:
                return
            raise ValueError(f"stream {self.id} cannot send: {self.state}")
        if data:
            self._streams.outbox.scheduler.push(self, data)

    def end(self) -> None:
        """Send EOF after everything that is queued; idempotent, ignored when closed."""
        if self.state == State.CLOSED:
            return
        self._ending = True
        if not self.queued:
            self.emptied()

    def reset(self, code: int, reason: str = "") -> None:
        """End both directions at once and drop the queue; idempotent. Brings no event here.

        Args:
            code: A number of `heim_wire.errors.Code`.
            reason: One line for a person at the other end; at most 512 bytes are sent.
        """
        if self.state == State.CLOSED:
            return
        if self._streams.announced(self):
            text = printable(reason, MAX_REASON).encode()
            self._streams.outbox.control(reset_frame(self.id, code, text))
        self._moved(Act.SEND_RESET)

    def accept(self, message: Mapping[str, object] | None = None) -> None:
        """Answer the peer's OPEN (the `Opened` event) with ACCEPT; ignored once closed.

        Raises:
            ValueError: The stream is not the peer's, was accepted before, or `message` is no
                message (see `heim_wire.messages.encode`).
        """
        if self.state == State.CLOSED:
            return
        if (self.state, Act.SEND_ACCEPT) not in TRANSITIONS:
            raise ValueError(f"stream {self.id} cannot be accepted: {self.state}")
        self._streams.outbox.control(plain_frame(Type.ACCEPT, self.id, encode(message or {})))
        self._moved(Act.SEND_ACCEPT)
        self.grant_first()
        self.emptied()

    def consumed(self, size: int) -> None:
        """Say that `size` bytes of `Data` have left our memory, so that the peer may send more."""
        if self.state not in _RECEIVING:
            return
        streams = self._streams
        liveness = streams.liveness
        granted = self.window.consumed(
            size, liveness.now, rtt=liveness.rtt, most=streams.settings.max_window
        )
        if granted:
            streams.outbox.grant(self.id, granted)
            ping = liveness.measure()
            if ping is not None:
                streams.outbox.control(plain_frame(Type.PING, 0, ping))

    # What the session calls.

    def grant_first(self) -> None:
        """Widen the window to what a new stream gets, if there is memory for it."""
        granted = self.window.widen(self._streams.settings.window)
        if granted:
            self._streams.outbox.grant(self.id, granted)

    def move(self, act: str) -> bool:
        """Account for a frame; False when it may not come in this state, and it is RESET."""
        if (self.state, act) in TRANSITIONS:
            self._moved(act)
            return True
        self._fault(Code.PROTOCOL, f"{act} while {self.state}")
        return False

    def on_data(self, payload: bytes | memoryview) -> None:
        """A piece of DATA came."""
        if self.state not in _RECEIVING:
            self._fault(Code.PROTOCOL, f"{Act.RECV_DATA} while {self.state}")
        elif self.window.arrived(len(payload)):
            self._streams.outbox.happened.append(Data(self, payload))
        else:
            self._fault(Code.FLOW, "more DATA than the window allowed")

    def on_eof(self) -> None:
        """EOF came."""
        if self.move(Act.RECV_EOF):
            happened = self._streams.outbox.happened
            happened.append(Ended(self))
            if self.state == State.CLOSED:
                happened.append(Closed(self))

    def on_accept(self, message: Message) -> None:
        """ACCEPT came."""
        if self.move(Act.RECV_ACCEPT):
            self._streams.outbox.happened.append(Accepted(self, message))
            if not self.queued:
                self.emptied()

    def on_reset(self, code: int, reason: str) -> None:
        """RESET came."""
        self._moved(Act.RECV_RESET)
        self._streams.outbox.happened.append(Reset(self, code, reason))

    def on_window(self, credit: int) -> None:
        """WINDOW came."""
        if self.credit + credit > MAX_CREDIT:
            self._fault(Code.FLOW, "more credit than a session has")
        else:
            self._streams.outbox.scheduler.allow(self, credit)

    def lose(self) -> None:
        """The connection is gone."""
        self._moved(Act.SEND_RESET)

    def drained(self) -> None:
        """The queue was full, and is below its low mark."""
        self._streams.outbox.happened.append(Drained(self))

    def emptied(self) -> None:
        """Nothing is queued: EOF, if that is all that is missing."""
        if self._ending and (self.state, Act.SEND_EOF) in TRANSITIONS:
            self._streams.outbox.control(plain_frame(Type.EOF, self.id))
            self._moved(Act.SEND_EOF)
            if self.state == State.CLOSED:
                self._streams.outbox.happened.append(Closed(self))

    def _fault(self, code: int, reason: str) -> None:
        # One stream's mistake ends that stream: the others of a session go on.
        self.reset(code, reason)
        self._streams.outbox.happened.append(Reset(self, code, reason))

    def _moved(self, act: str) -> None:
        before = self.state
        self.state = TRANSITIONS[before, act]
        if self.state == State.CLOSED:
            self._streams.outbox.scheduler.drop(self)
            self._streams.outbox.ungrant(self.id)
            self._streams.left(self, before)
            self.window.release()
        elif act in (Act.RECV_ACCEPT, Act.SEND_ACCEPT):
            self._streams.answered(self)
