"""What the edge asks of the owner of an agent's connection, before it is a lane and afterwards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from heim_wire.errors import FAILURES

if TYPE_CHECKING:
    from heim_proxy.agents.door import AgentDoor
    from heim_proxy.edge.connection import Front
    from heim_wire.aio.channel import Channel
    from heim_wire.events import Event

__all__ = ["ChannelOccupant"]


class ChannelOccupant(ABC):
    """Owns a client connection (`edge.door.Occupant`) and the channel on it, until `over`.

    Attributes:
        channel: Its handler is whoever has the connection.
        address: Where it comes from.
        end_reason: Why it ended, for the record: ours, if it was our decision.
        over: Whether it ended, or somebody else has the connection now.
    """

    __slots__ = ("_door", "_front", "address", "channel", "end_reason", "over")

    channel: Channel

    def __init__(self, door: AgentDoor, front: Front) -> None:
        self._door = door
        self._front = front
        self.address = front.client.address
        self.end_reason = ""
        self.over = False

    # -- for the edge -----------------------------------------------------------------------

    @property
    def request_done(self) -> bool:
        """The request had no body."""
        return True

    @property
    def upgraded(self) -> bool:
        """The connection is a byte stream."""
        return True

    def client_data(self, data: bytes) -> bytes:
        """Bytes from the agent."""
        self.channel.feed(data)
        return b""

    def hold_upstream(self) -> None:
        """The connection's transport is full."""
        self.channel.pause_writing()

    def release_upstream(self) -> None:
        """The connection's transport takes more."""
        self.channel.resume_writing()

    def client_gone(self) -> None:
        """The connection is gone."""
        self.channel.connection_lost(self._lost())

    @abstractmethod
    def timed_out(self, kind: str) -> None:
        """A deadline passed that was set with `Front.expect`."""

    # -- for the channel --------------------------------------------------------------------

    @abstractmethod
    def event(self, channel: Channel, event: Event) -> None:
        """What is for no stream."""

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        """The channel ended; the owners of its streams were told."""
        if self.over:
            return
        self.over = True
        word = FAILURES[code].slug if code in FAILURES else "left"
        self.end_reason = self.end_reason or word
        self._ended()
        front = self._front
        front.keep_alive = False
        front.exchange_done(self)

    # -- of the heirs -----------------------------------------------------------------------

    @abstractmethod
    def _ended(self) -> None:
        """Nothing of it is left: leave what was entered, and tell who should know."""

    def _lost(self) -> Exception | None:
        """What users of its streams read, in brackets, when the connection breaks."""
        return None
