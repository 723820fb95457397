"""A stream as an asyncio transport: whatever speaks over a socket speaks over a stream.

Both kinds of protocol are served. What the stream's queue cannot take pauses the protocol's
writing; what the protocol does not read stays uncredited, so that the stream's window bounds it.
Nothing but the protocol's own reactions to data happens inside one of its calls: `connection_made`
and `connection_lost` always come from the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

from heim_wire.errors import Code
from heim_wire.stream import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from heim_wire.aio.channel import Channel
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

    Told = Callable[[int, str], tuple[int, str]]

__all__ = ["CLOSE_S", "StreamReset", "StreamTransport"]

# What `close` leaves behind (bytes to be sent, the peer's end) must be done with by then. uvloop's
# TLS waits as long for its last bytes.
CLOSE_S: Final = 30.0


class StreamReset(ConnectionResetError):
    """A stream was reset, or its session ended under it.

    Attributes:
        code: A number of `heim_wire.errors.Code`.
        reason: One printable line.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamTransport(asyncio.Transport):
    """The transport of one accepted stream, and its owner (`stream.context`).

    As of a socket: `close` sends what was written and then the end, and whatever the peer still
    sends afterwards is answered by a reset; `abort` resets. A reset by the peer, or the end of the
    session, is `connection_lost(StreamReset)`.
    """

    def __init__(
        self,
        channel: Channel,
        stream: Stream,
        protocol: asyncio.BaseProtocol,
        *,
        extra: Mapping[str, object] | None = None,
        told: Told | None = None,
    ) -> None:
        """Take over `stream`; `protocol.connection_made` is called in the next turn of the loop.

        Args:
            channel: Carries the stream.
            stream: Accepted. May have been accepted in this very turn, with data behind it.
            protocol: A `Protocol` or a `BufferedProtocol`.
            extra: For `get_extra_info`. There is no "socket".
            told: What a code and a reason of a reset mean to the protocol; as they are without.
        """
        raise NotImplementedError
