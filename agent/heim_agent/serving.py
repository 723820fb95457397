"""Streams that the proxy opens: each is verified, looked up in our own list, dialled and relayed.

Nothing of what the proxy sends decides where a connection goes: it names a target, and the target
is in `agent.toml` or it is not (security.md, O7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from heim_agent.config import Settings
    from heim_agent.identity import Identity
    from heim_wire.aio.channel import Channel
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["MAX_DIALS", "Serving"]

MAX_DIALS: Final = 64
"""Dials in flight: a target that swallows SYNs holds one for its connect_timeout."""


class Serving:
    """Serves the streams of every lane; one per process.

    Attributes:
        streams: How many are open just now, those that dial included.
    """

    def __init__(self, identity: Identity, settings: Settings) -> None:
        """Serve `settings.targets` to whoever an assertion by `identity.keys` names."""
        self.streams = 0

    def swap(self, settings: Settings) -> None:
        """Have other targets from now on; streams that are open go on."""
        raise NotImplementedError

    def opened(self, channel: Channel, stream: Stream, message: Message, *, now: float) -> None:
        """Take over a stream that the proxy opened (the `Opened` event of a lane).

        Call it at once: it sets `stream.context`, so that nothing of the stream is lost, and
        answers by ACCEPT or RESET later. Everything after that is not the lane's business.

        Args:
            channel: The lane's channel.
            stream: In state OFFERED.
            message: Of OPEN, unverified.
            now: The proxy's time, in seconds since the epoch: `iat` of the statement that this
                lane verified last, and what has passed since (suspended time included).
        """
        raise NotImplementedError

    async def finish(self, timeout_s: float) -> None:
        """Wait until every stream is over, `timeout_s` at most; then end the rest (GOING_AWAY)."""
        raise NotImplementedError
