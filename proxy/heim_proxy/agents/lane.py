"""One connection of an agent: from its first frame to its last, and the streams it carries.

A thin shell over `heim_wire.aio.channel.Channel`. Before the agent has proven who it is there is no
task and no session, only a timer and a place in the waiting room; then a lane is in the registry
and, as what lets it be here may end, in the live registry. What is decided is decided elsewhere:
`proof` and `judging` who it is, `registry` which of several lanes stays.
"""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.agents import record, welcome
from heim_proxy.agents.authority import CertificateRefused
from heim_proxy.agents.judging import Claim
from heim_proxy.agents.load import Load
from heim_proxy.agents.presence import LanePresence
from heim_proxy.agents.proof import Challenge, read_greeting, read_proof
from heim_proxy.agents.refused import LaneRefused, ending
from heim_proxy.agents.registry import DUPLICATE_RETRY_S
from heim_proxy.certs.store import presented_key
from heim_proxy.live import EndReason
from heim_runtime.tasks import spawn
from heim_wire.agents import RENEW_KIND
from heim_wire.aio.channel import Channel
from heim_wire.aio.sockets import tune_carriage
from heim_wire.errors import FAILURES, Code, OpenRefused
from heim_wire.events import Auth, Hello, Opened
from heim_wire.handshake import answer_upgrade
from heim_wire.session import Session as WireSession
from heim_wire.settings import Settings
from heim_wire.websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heim_proxy.agents.door import AgentDoor
    from heim_proxy.agents.judging import Admitted
    from heim_proxy.agents.proof import Greeting, Proof
    from heim_proxy.edge.connection import Front
    from heim_proxy.identity.session import Session
    from heim_wire.events import Event
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["HANDSHAKE_S", "Lane"]

log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 5.0
"""For HELLO and AUTH together: three round trips by satellite and a slow machine's signature."""

# One stream of the agent's is let in, so that it can be told that there must be none; its HELLO
# says so already. Agents ask every 15 s whether we are there; we ask only one that does not, and
# are right about it within the same 25 s.
_SETTINGS: Final = Settings(max_streams=1, quiet=20.0)
_FIRST_BYTES: Final = 16 * 1024
_RENEWAL_EVERY_S: Final = 60.0
_GREETING, _PROVING, _JUDGING, _READY, _OVER = range(5)


class Lane:
    """A connection of an agent. Streams on it are the proxy's; the agent opens none.

    It owns a client connection (`edge.door.Occupant`), and is a `live.LiveExchange` once it is
    ready. What is said of the agent is known from then on.

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
        expires: When its certificate ends, seconds since the epoch; what counts as `valid_until`.
        load: How much it carries.
    """

    __slots__ = (
        "_admitted",
        "_certificate",
        "_challenge",
        "_door",
        "_front",
        "_greeting",
        "_phase",
        "_received",
        "_renewed",
        "_tls_key",
        "_told",
        "address",
        "boot",
        "channel",
        "device",
        "end_reason",
        "load",
        "name",
        "number",
        "over",
        "since",
        "started",
        "thumbprint",
        "valid_until",
        "version",
    )  # fmt: skip

    channel: Channel
    _admitted: Admitted
    _greeting: Greeting

    def __init__(self, door: AgentDoor, front: Front) -> None:
        """Nothing is said before `start`."""
        self._door = door
        self._front = front
        self._phase = _GREETING
        self._challenge = Challenge.fresh(replica=door.replica, host=front.edge.snapshot.login_host)
        self._tls_key = presented_key(front.transport.get_extra_info("ssl_object"))
        self._certificate = b""
        self._received = 0
        self._renewed = -math.inf
        # What READY said last: to be said again when it changes.
        self._told: object = None
        self.load = Load()
        self.address = front.client.address
        self.name = self.thumbprint = self.boot = self.device = self.version = ""
        self.number = 0
        self.since = 0.0
        # Asked for twice a second of every exchange there is: a plain attribute.
        self.valid_until = math.inf
        self.started = monotonic()
        # For the record: our reason, if it is our decision.
        self.end_reason = ""
        self.over = False

    def __repr__(self) -> str:
        words = ("greeting", "proving", "judging", "ready", "over")
        return f"<Lane {self.name or '?'}/{self.number} {words[self._phase]}>"

    def start(self, key: str) -> None:
        """Answer 101 and HELLO in one write; `key` is the request's Sec-WebSocket-Key."""
        front = self._front
        request_id = front.request_id.decode("ascii")
        wire = WireSession(
            initiator=False,
            now=monotonic(),
            settings=_SETTINGS,
            budget=self._door.budget,
            hello={
                "max_streams": 0,
                "replica": self._challenge.replica,
                "nonce": self._challenge.nonce,
                "time": int(front.edge.now()),
            },
        )
        websocket = WebSocket(client=False)
        parts, total = wire.take(_FIRST_BYTES)
        answer = answer_upgrade(key, (("Heim-Request-Id", request_id),))
        front.write(answer + websocket.frame(parts, total))
        tune_carriage(front.transport.get_extra_info("socket"))
        self.channel = Channel(wire, websocket, front.transport, self, lost=Code.AGENT_LOST)
        front.expect(HANDSHAKE_S, "handshake")
        if front.write_paused:
            self.channel.pause_writing()

    # -- for those who want streams ---------------------------------------------------------

    def open(self, message: Mapping[str, object]) -> Stream:
        """Ask the agent for a stream; set its `context` before the next turn of the loop.

        `Accepted` or `Reset` follows. Wakes the channel.

        Raises:
            OpenRefused: BUSY or GOING_AWAY, or the lane is over (AGENT_LOST).
            ValueError: `message` is too large, or no message.
        """
        if self._phase != _READY:
            raise OpenRefused(Code.AGENT_LOST, f"the connection to agent {self.name} was lost")
        stream = self.channel.session.open(message)
        self.channel.wake()
        self._door.busy.add(self)
        return stream

    @property
    def heavy(self) -> bool:
        """Whether something large is on its way: more than 8 MiB in some 10 s."""
        return self.load.heavy

    @property
    def expires(self) -> float:
        """When its certificate ends, seconds since the epoch."""
        return self.valid_until

    @property
    def idle(self) -> bool:
        """Whether it carries no stream."""
        return not self.channel.session.streams

    def sample(self) -> bool:
        """Look at how much it carries, twice a second; False when that is nothing any more."""
        self.load.sample(self._received + self.channel.sent)
        return not self.idle or self.load.heavy

    def now(self) -> float:
        """The edge's time, seconds since the epoch."""
        return self._front.edge.now()

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

    # -- for the live registry --------------------------------------------------------------

    @property
    def live_session(self) -> Session:
        """The enrolment that it runs under."""
        return self._admitted.session

    @property
    def public_thumbprint(self) -> bytes:
        """Of its key, as the store has it."""
        return self._admitted.verified.thumbprint

    @property
    def certificate(self) -> bytes:
        """In force, DER."""
        return self._certificate

    def end(self, reason: EndReason) -> None:
        """The permission no longer holds."""
        code, words = ending(reason, self.name)
        self.dismiss(code, words, word=reason.value)

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
        self._received += len(data)
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
        # What whoever uses a stream on it will read, in brackets.
        self.channel.connection_lost(ConnectionError(f"agent {self.name}") if self.name else None)
        self._finish("agent_lost")

    def timed_out(self, kind: str) -> None:
        """A deadline passed: `kind` is handshake."""
        if self._phase == _JUDGING:
            self._refuse(LaneRefused(Code.BUSY, "the proxy takes too long to judge this agent"))
            return
        self._refuse(
            LaneRefused(Code.UNAUTHENTICATED, f"no proof within {HANDSHAKE_S:g} s of the upgrade")
        )

    # -- for the channel --------------------------------------------------------------------

    def event(self, channel: Channel, event: Event) -> None:
        """What is for no stream: who it is, a newer certificate, or what must not be."""
        try:
            if type(event) is Hello:
                self._greeting = read_greeting(event.message)
                self._phase = _PROVING
            elif type(event) is Auth:
                self._auth(event.message)
            elif type(event) is Opened:
                raise LaneRefused(Code.PROTOCOL, "agents open no streams; update heim-agent")
        except LaneRefused as refused:
            self._refuse(refused)

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        """The channel ended; the owners of its streams were told."""
        self._finish(FAILURES[code].slug if code in FAILURES else "left")

    # -- who it is --------------------------------------------------------------------------

    def _auth(self, message: Message) -> None:
        if self._phase == _READY and message.get("kind") == RENEW_KIND:
            self._renew(message)
        elif self._phase == _PROVING:
            proof = read_proof(message)
            self._phase = _JUDGING
            spawn("agents.judge", self._judge(proof))
        else:
            raise LaneRefused(Code.PROTOCOL, "AUTH at the wrong time; update heim-agent")

    async def _judge(self, proof: Proof) -> None:
        try:
            admitted = await self._admitted_for(proof)
            if not self.over:
                self._admit(admitted)
        except LaneRefused as refused:
            self._refuse(refused)
        except Exception:
            # Fail closed: whatever went wrong in a decision is a refusal.
            log.exception("agent.judge_failed", extra={"client": self.address})
            self._refuse(LaneRefused(Code.INTERNAL, "the proxy failed to judge this agent"))

    async def _admitted_for(self, proof: Proof) -> Admitted:
        edge = self._front.edge
        listed = edge.snapshot.config.tunnel.agent_tls_keys
        own = (self._tls_key,) if self._tls_key else ()
        claim = Claim(self._greeting, self._challenge, proof, (*own, *listed))
        judge = self._door.judge
        admitted = await judge.judge(claim, edge.now())
        self._certificate = proof.certificate
        name, own_key = admitted.verified.name, admitted.verified.thumbprint
        if not admitted.grant.group:
            await self._door.clear_way(name, own_key)
        if not admitted.session.usable:
            raise LaneRefused(Code.REVOKED, f"this machine is not agent {name} any more")
        return admitted

    def _admit(self, admitted: Admitted) -> None:
        """Take it in, unless another machine has its key; say READY."""
        front = self._front
        greeting = self._greeting
        self._admitted = admitted
        self.name = admitted.verified.name
        self.thumbprint = welcome.base64url(admitted.verified.thumbprint)
        self.boot, self.number = greeting.boot, greeting.lane
        self.device, self.version = greeting.device, greeting.version
        self.since = front.edge.now()
        self.valid_until = admitted.until
        arrival = self._door.registry.arrive(self, monotonic())
        if arrival.twin is not None:
            record.duplicate(self._door.audit, self, arrival.twin)
            words = f"{self.device} at {self.address} and {arrival.twin.device} at "
            words += f"{arrival.twin.address} use one key of agent {self.name}: was a disk cloned?"
            arrival.twin.notice(words)
            self.notice(words)
            raise LaneRefused(Code.SUPERSEDED, words, reconnect_in=DUPLICATE_RETRY_S)
        for old in arrival.replaced:
            old.dismiss(Code.SUPERSEDED, f"agent {self.name} has a newer connection")
        self._door.leave_waiting(self)
        self._phase = _READY
        front.edge.live.add(self)
        # From here on the session's own pings find out whether the agent is there.
        front.expect(math.inf, "lane")
        record.connected(self._door.audit, self)
        self.say_ready()

    def say_ready(self) -> None:
        """Tell the agent what it may serve, and sign which keys speak for us; if that is news."""
        if self._phase != _READY:
            return
        snapshot = self._front.edge.snapshot
        grant = snapshot.agents.get(self.name)
        told = (grant, self._door.edition)
        if grant is None or told == self._told:
            return
        self._told = told
        self.channel.session.ready(
            welcome.ready(
                grant,
                snapshot,
                self._door.authority(),
                audience=self.thumbprint,
                nonce=self._greeting.nonce,
                replica=self._door.replica,
                expires=self.valid_until,
                now=self._front.edge.now(),
            )
        )
        self.channel.wake()

    def _renew(self, message: Message) -> None:
        now = monotonic()
        try:
            if now - self._renewed < _RENEWAL_EVERY_S:
                raise welcome.RenewalRefusedError("it was asked for a moment ago")
            self._renewed = now
            welcome.check_request(message, self._admitted.verified)
            given = self._door.judge.renew(self._admitted.verified, self._front.edge.now())
        except (welcome.RenewalRefusedError, CertificateRefused) as refused:
            self.notice(f"no newer certificate for agent {self.name}: {refused}")
            log.warning("agent.renewal_refused", extra={"agent": self.name, "error": str(refused)})
            return
        self._certificate, self.valid_until = given
        self.channel.session.ready(welcome.renewal(*given))
        self.channel.wake()
        log.info("agent.renewed", extra={"agent": self.name, "expires": int(given[1])})

    def notice(self, text: str) -> None:
        """Tell the agent's log something."""
        self.channel.session.notice(text)
        self.channel.wake()

    # -- ends -------------------------------------------------------------------------------

    def go_away(self, reconnect_in: float, drain: float) -> None:
        """The proxy shuts down: streams may go on for `drain` seconds."""
        if self._phase != _READY:
            self._refuse(LaneRefused(Code.GOING_AWAY, "the proxy is restarting"))
            return
        self.channel.session.goaway(
            Code.GOING_AWAY, "the proxy is restarting", reconnect_in=reconnect_in, drain=drain
        )
        self.channel.wake()

    def finish(self) -> None:
        """Close in good order; nothing is on it any more."""
        self.end_reason = self.end_reason or FAILURES[Code.GOING_AWAY].slug
        self.channel.finish()

    def dismiss(self, code: int, reason: str, *, word: str = "", reconnect_in: float = 0.0) -> None:
        """End it and tell the agent why; its streams are told that the agent is lost."""
        if self.over:
            return
        self.end_reason = word or FAILURES[code].slug
        self.channel.close(code, reason, reconnect_in=reconnect_in, streams=Code.AGENT_LOST)

    def _refuse(self, refused: LaneRefused) -> None:
        """The agent is not let in, or broke a rule."""
        if self.over:
            return
        if self._phase != _READY:
            record.refused(self._door.audit, self, refused, self._asked_for)
        self.dismiss(refused.code, refused.reason, reconnect_in=refused.reconnect_in)

    def make_room(self, reconnect_in: float) -> None:
        """Another address has a right to its place in the waiting room."""
        self._refuse(
            LaneRefused(Code.BUSY, "too many agents are connecting", reconnect_in=reconnect_in)
        )

    @property
    def _asked_for(self) -> str:
        """The name that it claimed, proven or not."""
        return self._greeting.agent if self._phase != _GREETING else ""

    def _finish(self, end: str) -> None:
        if self.over:
            return
        self.over = True
        ready = self._phase == _READY
        self._phase = _OVER
        self.end_reason = self.end_reason or end
        front = self._front
        door = self._door
        door.leave_waiting(self)
        if ready:
            front.edge.live.discard(self)
            door.left(self)
            record.disconnected(door.audit, self, bytes_out=self.channel.sent)
        else:
            door.refused.add(self.end_reason)
        front.keep_alive = False
        front.exchange_done(self)
