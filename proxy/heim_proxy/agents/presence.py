"""What people and programs are told about agents: which are here, and since when one is not."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LanePresence", "Offline", "Presence"]


@dataclass(frozen=True, slots=True)
class Offline:
    """An agent that is not connected.

    Attributes:
        since: When it was last here, seconds since the epoch; None when nobody knows.
        joined: Whether a machine ever became this agent.
        revoked: Whether the last of its connections ended because its enrolment did.
    """

    since: float | None = None
    joined: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class LanePresence:
    """One connection of an agent. Times in seconds, sizes in bytes.

    Attributes:
        number: 0 to 3.
        address: Where it comes from.
        since: When it was let in, seconds since the epoch.
        streams: How many are open on it.
        queued: What waits to be sent on it.
        rtt: Round trip, as it was measured last.
        heavy: Whether something large is on its way.
        going_away: Whether it takes no new streams.
    """

    number: int
    address: str
    since: float
    streams: int
    queued: int
    rtt: float | None
    heavy: bool
    going_away: bool


@dataclass(frozen=True, slots=True)
class Presence:
    """One machine that is connected; an agent that is a group may have several.

    Attributes:
        name: The agent's.
        thumbprint: Of its key (RFC 7638), base64url.
        device: The machine's own name, as it says.
        version: The program's.
        boot: Of the program's run.
        since: When the first of its lanes was let in, seconds since the epoch.
        expires: When its certificate ends.
        lanes: At least one.
    """

    name: str
    thumbprint: str
    device: str
    version: str
    boot: str
    since: float
    expires: float
    lanes: tuple[LanePresence, ...]

    @property
    def streams(self) -> int:
        """How many are open on it."""
        return sum(lane.streams for lane in self.lanes)
