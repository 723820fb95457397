"""One stream of a session: its state, what waits to be sent, and what its owner may do with it.

Streams are made by `Session` (`open`, `adopt`, or the peer's OPEN) and never block: `send` only
queues, and the owner stops reading its source while `full` says so, until `Drained`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from heim_wire.messages import Message

__all__ = ["State", "Stream"]


class State:
    """Names of the states of a stream (RFC 9113, 5.1 has the same picture)."""

    IDLE = "idle"
    OPENING = "opening"  # we sent OPEN; may send DATA already, within the first 64 KiB
    OFFERED = "offered"  # the peer sent OPEN; its early DATA may come
    OPEN = "open"
    LOCAL_OPEN = "local_open"  # the peer's EOF came; we may go on sending
    REMOTE_OPEN = "remote_open"  # our EOF went; the peer may go on sending
    CLOSED = "closed"


class Stream:
    """One stream, as its owner sees it.

    Attributes:
        id: Its number on the wire.
        state: One of `State`.
        context: The owner's slot; the session never looks at it.
        queued: Bytes that wait to be sent.
    """

    __slots__ = ("context", "id", "queued", "state")
    id: int
    state: str
    context: object
    queued: int

    @property
    def full(self) -> bool:
        """Whether 128 KiB or more are queued: stop reading the source until `Drained`."""
        raise NotImplementedError

    @property
    def sink_paused(self) -> bool:
        """Whether the owner's sink is slow just now; set by the owner, stops window growth."""
        raise NotImplementedError

    @sink_paused.setter
    def sink_paused(self, paused: bool) -> None:
        raise NotImplementedError

    def send(self, data: bytes | memoryview) -> None:
        """Queue bytes; they must not change afterwards. Ignored once the stream is closed.

        Raises:
            ValueError: After `end()`, or on an offered stream that was not accepted.
        """
        raise NotImplementedError

    def end(self) -> None:
        """Send EOF after everything that is queued; idempotent, ignored when closed."""
        raise NotImplementedError

    def reset(self, code: int, reason: str = "") -> None:
        """End both directions at once and drop the queue; idempotent. Brings no event here.

        Args:
            code: A number of `heim_wire.errors.Code`.
            reason: One line for a person at the other end; at most 512 bytes are sent.
        """
        raise NotImplementedError

    def accept(self, message: Message | None = None) -> None:
        """Answer the peer's OPEN (the `Opened` event) with ACCEPT."""
        raise NotImplementedError

    def consumed(self, size: int) -> None:
        """Say that `size` bytes of `Data` have left our memory, so that the peer may send more."""
        raise NotImplementedError
