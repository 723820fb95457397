"""A stream joined with a local connection: bytes, ends and resets pass both ways.

`Relay` is the protocol of the local TCP or unix connection and the owner of the stream. It works
without tasks and futures; whatever is slow on one side stops the other by its window or its gate.
"""

from __future__ import annotations

import asyncio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_wire.aio.channel import Channel
    from heim_wire.session import Stream

__all__ = ["Relay"]


class Relay(asyncio.Protocol):
    """One local connection and, once `join`ed, one stream.

    Attributes:
        sent: Bytes read from the local side and given to the stream.
        received: Bytes taken from the stream and given to the local side.
    """

    def __init__(self, over: Callable[[Relay, int, str], None]) -> None:
        """Wait for the local connection (`connection_made`) and the stream (`join`), in any order.

        Args:
            over: Called once when both sides are done with: the relay, a `Code` (0: both
                directions ended in good order) and a reason in words.
        """
        self.sent = 0
        self.received = 0

    def join(self, channel: Channel, stream: Stream) -> None:
        """Become the owner of `stream` (its `context`) and start to read the local side."""

    def end(self, code: int, reason: str) -> None:
        """End both sides now: RESET to the stream, RST to the local connection; idempotent."""
