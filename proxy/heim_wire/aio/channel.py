"""A session over one connection: drives `Session` and `WebSocket` on an asyncio transport.

Everything of one turn of the loop leaves in one write. What waits is kept in the streams' queues,
where it can be scheduled, and not in the transport: that takes only what it can send soon.
"""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from heim_wire.session import Event, Session
    from heim_wire.websocket import WebSocket

    class Handler(Protocol):
        """Who owns a channel."""

        def event(self, channel: Channel, event: Event) -> None:
            """Everything that is not for one stream's owner: Hello, Auth, Ready, Opened,
            Notice, GoAway, Dead, and events of streams without a `context`.
            """

        def closed(self, channel: Channel, code: int, reason: str) -> None:
            """The channel ended; once, after every stream's owner was told by `lost`.

            `code` is 0 when the peer closed in good order, else a `heim_wire.errors.Code`.
            """

    class Owner(Protocol):
        """What is kept in `stream.context`: the one who takes what comes for a stream."""

        def received(self, payload: bytes | memoryview) -> None:
            """Payload, in order; to be credited with `stream.consumed` when it is disposed of."""

        def accepted(self, message: dict[str, object]) -> None:
            """The peer accepted the stream."""

        def ended(self) -> None:
            """The peer sent its EOF."""

        def reset(self, code: int, reason: str) -> None:
            """The peer reset the stream."""

        def drained(self) -> None:
            """The stream takes data again."""

        def lost(self, code: int, reason: str) -> None:
            """The channel ended under the stream."""


__all__ = ["Channel"]


class Channel:
    """One session on one transport. The transport's protocol passes its events on.

    `wake()` after anything that gave the session something to write: it flushes once per turn.
    """

    def __init__(
        self,
        session: Session,
        websocket: WebSocket,
        transport: asyncio.Transport,
        handler: Handler,
        *,
        single: bool = False,
    ) -> None:
        """Take over `transport`, whose handshake is done.

        Args:
            session: Its HELLO is queued; it is sent in the next turn.
            websocket: In the same role as the connection.
            transport: Closed by the channel.
            handler: Told what is for nobody else.
            single: The session carries one stream, so that nobody waits behind it: more may be
                handed to the transport at a time.
        """
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Bytes from the transport. A peer that breaks the protocol ends the channel."""

    def eof(self) -> None:
        """The transport reached its end of input: the channel is over."""

    def wake(self) -> None:
        """Flush what the session has to write in the next turn of the loop; idempotent."""

    def pause_writing(self) -> None:
        """asyncio: the transport is full; streams' queues hold their sources when they fill."""

    def resume_writing(self) -> None:
        """asyncio: the transport takes more."""

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the transport is gone."""

    def finish(self) -> None:
        """Close in good order (1000) once everything that is queued was written."""

    def close(self, code: int, reason: str) -> None:
        """End now with a close frame that says why; `code` is a `heim_wire.errors.Code`."""

    def abort(self) -> None:
        """End without a word: what was not sent is lost."""
