"""What a session tells its owner: small objects, compared by type (`type(event) is Data`).

`Session.receive`, `Session.tick` and `Session.events` return them in the order in which things
happened. After `Reset` or `Closed` nothing more comes for that stream. Resetting a stream of one's
own brings no event, and does not take back what is on the same list already: look at its state.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = [
    "Accepted",
    "Auth",
    "Closed",
    "Data",
    "Dead",
    "Drained",
    "Ended",
    "Event",
    "GoAway",
    "Hello",
    "Notice",
    "Opened",
    "Ready",
    "Reset",
]


class Event:
    """Any of the below."""

    __slots__: tuple[str, ...] = ()

    def __repr__(self) -> str:
        fields = (f"{name}={_shown(getattr(self, name))}" for name in self.__slots__)
        return f"<{' '.join((type(self).__name__, *fields))}>"


def _shown(value: object) -> str:
    # Payloads and messages hold people's bytes and tokens: their size, never their content.
    if isinstance(value, bytes | memoryview | dict):
        return f"[{len(value)}]"
    return repr(value)


class Hello(Event):
    """The peer's HELLO; always the first event."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message


class Auth(Event):
    """The initiator proves who it is, or refreshes its token. Only the acceptor sees it."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message


class Ready(Event):
    """The acceptor says as whom it knows us, and until when. Only the initiator sees it."""

    __slots__ = ("message",)

    def __init__(self, message: Message) -> None:
        self.message = message


class Opened(Event):
    """The peer asks for a stream: answer with `stream.accept()` or `stream.reset()`."""

    __slots__ = ("message", "stream")

    def __init__(self, stream: Stream, message: Message) -> None:
        self.stream = stream
        self.message = message


class Accepted(Event):
    """The peer accepted a stream of ours."""

    __slots__ = ("message", "stream")

    def __init__(self, stream: Stream, message: Message) -> None:
        self.stream = stream
        self.message = message


class Data(Event):
    """Bytes of a stream, never empty. Call `stream.consumed(len(payload))` once they are gone."""

    __slots__ = ("payload", "stream")

    def __init__(self, stream: Stream, payload: bytes | memoryview) -> None:
        self.stream = stream
        self.payload = payload


class Ended(Event):
    """The peer will send nothing more on this stream; our direction stays as it is."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class Closed(Event):
    """Both directions ended with EOF, and ours is on its way: the stream is over, and well."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class Reset(Event):
    """The stream is over at once, both ways; what was queued is dropped.

    The peer said so, or it broke the stream's rules (FLOW, PROTOCOL) and was told.
    """

    __slots__ = ("code", "reason", "stream")

    def __init__(self, stream: Stream, code: int, reason: str) -> None:
        self.stream = stream
        self.code = code
        self.reason = reason


class Drained(Event):
    """A queue that was full fell below its low mark: read the stream's source again."""

    __slots__ = ("stream",)

    def __init__(self, stream: Stream) -> None:
        self.stream = stream


class Notice(Event):
    """A line for a person, about a stream or (None) the session; printable, at most 1 KiB."""

    __slots__ = ("stream", "text")

    def __init__(self, stream: Stream | None, text: str) -> None:
        self.stream = stream
        self.text = text


class GoAway(Event):
    """The peer takes no new streams and will end the session. Times in seconds from now.

    Attributes:
        code: Why, a number of `Code`.
        reconnect_in: Earliest time for a new session.
        try_for: How long the peer expects to be away.
        drain: How long streams may go on here.
        reason: One printable line.
    """

    __slots__ = ("code", "drain", "reason", "reconnect_in", "try_for")

    def __init__(
        self, code: int, *, reconnect_in: float, try_for: float, drain: float, reason: str
    ) -> None:
        self.code = code
        self.reconnect_in = reconnect_in
        self.try_for = try_for
        self.drain = drain
        self.reason = reason


class Dead(Event):
    """The peer is gone (silence, or no HELLO): abort the connection and close the session."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason
