"""One connection of an agent that proved who it is, and the streams it carries.

A thin shell over `heim_wire.aio.channel.Channel`: no task, and no timer but the channel's. It is in
the registry, where whoever wants a stream finds it, and in the live registry, since what lets it be
here may end. `knock` is what comes before.
"""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.agents import record, welcome
from heim_proxy.agents.authority import CertificateRefused
from heim_proxy.agents.load import Load
from heim_proxy.agents.occupant import ChannelOccupant
from heim_proxy.agents.presence import LanePresence
from heim_proxy.agents.refused import ending
from heim_proxy.agents.shares import Shares
from heim_proxy.live import EndReason
from heim_wire.agents import RENEW_KIND
from heim_wire.errors import FAILURES, Code, OpenRefused
from heim_wire.events import Auth, Opened

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heim_proxy.agents.door import AgentDoor
    from heim_proxy.agents.judging import Admitted
    from heim_proxy.agents.proof import Greeting
    from heim_proxy.edge.connection import Front
    from heim_proxy.identity.session import Session
    from heim_wire.aio.channel import Channel
    from heim_wire.events import Event
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["Lane"]

log = logging.getLogger(__name__)

_RENEWAL_EVERY_S: Final = 60.0


class Lane(ChannelOccupant):
    """A connection of an agent. Streams on it are the proxy's; the agent opens none.

    A `live.LiveExchange`.

    Attributes:
        name: The agent's.
        thumbprint: Of its key (RFC 7638), base64url: the audience of assertions.
        channel: For `StreamTransport` and the like. Streams whose lane ends are reset with
            AGENT_LOST, whatever the reason.
        boot: Which run of the program it belongs to.
        number: Which of its lanes, 0 to 3.
        device: The machine's own name, as it says.
        version: The program's.
        since: When it was let in, seconds since the epoch.
        started: Likewise, monotonic.
        valid_until: When its certificate ends, seconds since the epoch.
        certificate: In force, DER.
        load: How much it carries.
        shares: For whom.
    """

    __slots__ = (
        "_admitted", "_nonce", "_received", "_renewed", "_told", "boot", "certificate", "device",
        "load", "name", "number", "shares", "since", "started", "thumbprint", "valid_until",
        "version",
    )  # fmt: skip

    def __init__(
        self,
        door: AgentDoor,
        front: Front,
        channel: Channel,
        admitted: Admitted,
        greeting: Greeting,
        certificate: bytes,
    ) -> None:
        """Nothing has changed for anybody before `begin`.

        Args:
            door: Whose it is.
            front: The connection.
            channel: On it; to be handed over.
            admitted: Who it is.
            greeting: What it said of itself.
            certificate: That it came with, DER.
        """
        super().__init__(door, front)
        self.channel = channel
        self._admitted = admitted
        self._nonce = greeting.nonce
        self._received = 0
        self._renewed = -math.inf
        # What READY said last: to be said again when it changes.
        self._told: object = None
        self.certificate = certificate
        self.load = Load()
        self.shares = Shares()
        self.name = admitted.verified.name
        self.thumbprint = welcome.base64url(admitted.verified.thumbprint)
        self.boot, self.number = greeting.boot, greeting.lane
        self.device, self.version = greeting.device, greeting.version
        self.since = front.edge.now()
        self.started = monotonic()
        # Asked for by every sweep of the live registry: a plain attribute.
        self.valid_until = admitted.until

    def __repr__(self) -> str:
        state = "over" if self.over else "ready"
        return f"<Lane {self.name}/{self.number} {state}>"

    def begin(self) -> None:
        """It is in the registry, and its own handler: tell everybody, the agent included."""
        front = self._front
        front.edge.live.add(self)
        # From here on the session's own pings find out whether the agent is there.
        front.expect(math.inf, "lane")
        record.connected(self._door.audit, self)
        self.say_ready()

    # -- for those who want streams ---------------------------------------------------------

    def open(self, message: Mapping[str, object]) -> Stream:
        """Ask the agent for a stream; set its `context` before the next turn of the loop.

        `Accepted` or `Reset` follows. Wakes the channel.

        Raises:
            OpenRefused: BUSY or GOING_AWAY, or the lane is over (AGENT_LOST).
            ValueError: `message` is too large, or no message.
        """
        if self.over:
            raise OpenRefused(Code.AGENT_LOST, f"the connection to agent {self.name} was lost")
        stream = self.channel.session.open(message)
        self.channel.wake()
        self._door.took(self)
        return stream

    @property
    def heavy(self) -> bool:
        """Whether something large is on its way: more than 8 MiB in some 10 s."""
        return self.load.heavy

    @property
    def idle(self) -> bool:
        """Whether it carries no stream."""
        return not self.channel.session.streams

    def sample(self) -> bool:
        """Look at how much it carries, twice a second; False when that is nothing any more."""
        self.load.sample(self._received + self.channel.sent)
        return not self.idle or self.load.heavy

    def presence(self) -> LanePresence:
        """What is told about it."""
        session = self.channel.session
        return LanePresence(
            number=self.number,
            address=self.address,
            since=self.since,
            streams=len(session.streams),
            queued=session.queued,
            rtt=session.rtt,
            heavy=self.heavy,
            going_away=session.going_away,
        )

    # -- for the live registry and the door -------------------------------------------------

    @property
    def live_session(self) -> Session:
        """The enrolment that it runs under."""
        return self._admitted.session

    @property
    def key(self) -> bytes:
        """Thumbprint of its key, as the store has it."""
        return self._admitted.verified.thumbprint

    def now(self) -> float:
        """The edge's time, seconds since the epoch."""
        return self._front.edge.now()

    def end(self, reason: EndReason) -> None:
        """The permission no longer holds."""
        code, words = ending(reason, self.name)
        if reason is EndReason.EXPIRED and self.now() < self.valid_until:
            # Not its certificate's end: the store has been away for longer than enrolments in
            # memory are believed, and the machine need not join again.
            code, words = Code.BUSY, "the proxy cannot check enrolments just now"
        self.dismiss(code, words, word=reason.value)

    # -- for the edge and the channel -------------------------------------------------------

    def client_data(self, data: bytes) -> bytes:
        """Bytes from the agent."""
        self._received += len(data)
        return super().client_data(data)

    def timed_out(self, kind: str) -> None:
        """None of our deadlines are the edge's."""

    def event(self, channel: Channel, event: Event) -> None:
        """What is for no stream: a wish for a newer certificate, or what must not be."""
        if type(event) is Auth and event.message.get("kind") == RENEW_KIND:
            self._renew(event.message)
        elif type(event) is Auth:
            self.dismiss(Code.PROTOCOL, "AUTH at the wrong time; update heim-agent")
        elif type(event) is Opened:
            self.dismiss(Code.PROTOCOL, "agents open no streams; update heim-agent")

    # -- what it is told --------------------------------------------------------------------

    def say_ready(self) -> None:
        """Tell the agent what it may serve, and sign which keys speak for us; if that is news."""
        snapshot = self._front.edge.snapshot
        grant = snapshot.agents.get(self.name)
        told = (grant, self._door.edition)
        if self.over or grant is None or told == self._told:
            return
        self._told = told
        self.channel.session.ready(
            welcome.ready(
                grant,
                snapshot,
                self._door.authority(),
                audience=self.thumbprint,
                nonce=self._nonce,
                replica=self._door.replica,
                expires=self.valid_until,
                now=self.now(),
            )
        )
        self.channel.wake()

    def notice(self, text: str) -> None:
        """Tell the agent's log something."""
        self.channel.session.notice(text)
        self.channel.wake()

    def _renew(self, message: Message) -> None:
        now = monotonic()
        verified = self._admitted.verified
        if now - self._renewed < _RENEWAL_EVERY_S:
            # Not logged: an agent may ask a hundred times a second.
            words = "it was asked for a moment ago"
            self.notice(f"no newer certificate for agent {self.name}: {words}")
            return
        self._renewed = now
        try:
            welcome.check_request(message, verified)
            given = self._door.judge.renew(verified, self.now())
        except (welcome.RenewalRefusedError, CertificateRefused) as refused:
            self.notice(f"no newer certificate for agent {self.name}: {refused}")
            log.warning("agent.renewal_refused", extra={"agent": self.name, "error": str(refused)})
            return
        self.certificate, self.valid_until = given
        self.channel.session.ready(welcome.renewal(*given))
        # The time, too: over weeks a cheap clock is wrong by more than assertions allow.
        self._told = None
        self.say_ready()
        log.info("agent.renewed", extra={"agent": self.name, "expires": int(given[1])})

    # -- ends -------------------------------------------------------------------------------

    def go_away(self, reconnect_in: float, drain: float) -> None:
        """The proxy shuts down: streams may go on for `drain` seconds."""
        self.channel.session.goaway(
            Code.GOING_AWAY, "the proxy is restarting", reconnect_in=reconnect_in, drain=drain
        )
        self.channel.wake()

    def finish(self) -> None:
        """Close in good order; nothing is on it any more."""
        self.end_reason = self.end_reason or FAILURES[Code.GOING_AWAY].slug
        self.channel.finish()

    def dismiss(self, code: int, reason: str, *, word: str = "") -> None:
        """End it and tell the agent why; its streams are told that the agent is lost.

        Args:
            code: A `heim_wire.errors.Code`.
            reason: One line.
            word: What the record calls it, if not as the code's slug.
        """
        if self.over:
            return
        self.end_reason = word or FAILURES[code].slug
        self.channel.close(code, reason, streams=Code.AGENT_LOST)

    def _lost(self) -> Exception:
        return ConnectionError(f"agent {self.name}")

    def _ended(self) -> None:
        self._front.edge.live.discard(self)
        self._door.left(self)
        record.disconnected(self._door.audit, self, bytes_out=self.channel.sent)
