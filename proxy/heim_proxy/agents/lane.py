"""One connection of an agent: from its first frame to its last, and the streams it carries.

The API that the rest of the proxy uses; see `registry.Registry.pick` for where lanes come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heim_proxy.agents.presence import LanePresence
    from heim_wire.aio.channel import Channel
    from heim_wire.stream import Stream

__all__ = ["Lane"]


class Lane:
    """A connection of an agent. Streams on it are the proxy's; the agent opens none.

    Attributes:
        name: The agent's.
        thumbprint: Of its key (RFC 7638), base64url: the audience of assertions.
        channel: For `StreamTransport` and the like. Streams whose lane ends are reset with
            AGENT_LOST, whatever the reason.
        boot: Which run of the program it belongs to.
        number: Which of its lanes, 0 to 3.
        address: Where it comes from.
        device: The machine's own name, as it says.
        version: The program's.
        since: When it was let in, seconds since the epoch.
        expires: When its certificate ends, seconds since the epoch.
        heavy: Whether something large is on its way: more than 8 MiB in some 10 s.
    """

    name: str
    thumbprint: str
    channel: Channel
    boot: str
    number: int
    address: str
    device: str
    version: str
    since: float
    expires: float
    heavy: bool

    def open(self, message: Mapping[str, object]) -> Stream:
        """Ask the agent for a stream; set its `context` before the next turn of the loop.

        `Accepted` or `Reset` follows. Wakes the channel.

        Raises:
            OpenRefused: BUSY or GOING_AWAY, or the lane is over (AGENT_LOST).
            ValueError: `message` is too large, or no message.
        """
        raise NotImplementedError

    def presence(self) -> LanePresence:
        """What is told about it."""
        raise NotImplementedError
