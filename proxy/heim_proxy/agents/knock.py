"""A connection at the door: who it is, proven within 5 s; then it is a lane, or is sent away.

Until the proof has come there is no task, no session and nothing but a place in the waiting room.
Nothing about agents is told before it is good.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.agents.judging import Claim
from heim_proxy.agents.lane import Lane
from heim_proxy.agents.occupant import ChannelOccupant
from heim_proxy.agents.proof import Challenge, read_greeting, read_proof
from heim_proxy.agents.refused import LaneRefused
from heim_proxy.agents.registry import DUPLICATE_RETRY_S
from heim_proxy.certs.store import presented_key
from heim_runtime.tasks import spawn
from heim_wire.aio.channel import Channel
from heim_wire.aio.sockets import tune_carriage
from heim_wire.errors import Code
from heim_wire.events import Auth, Hello, Opened
from heim_wire.handshake import answer_upgrade
from heim_wire.session import Session as WireSession
from heim_wire.settings import Settings
from heim_wire.websocket import WebSocket

if TYPE_CHECKING:
    from heim_proxy.agents.door import AgentDoor
    from heim_proxy.agents.judging import Admitted
    from heim_proxy.agents.proof import Greeting, Proof
    from heim_proxy.edge.connection import Front
    from heim_wire.events import Event
    from heim_wire.messages import Message

__all__ = ["HANDSHAKE_S", "Knock"]

log = logging.getLogger(__name__)

HANDSHAKE_S: Final = 5.0
"""For HELLO and AUTH together: three round trips by satellite and a slow machine's signature."""

# One stream of the agent's is let in, so that it can be told that there must be none; our HELLO
# says so already. Agents ask every 15 s whether we are there; we ask only one that does not, and
# are right about it within the same 25 s.
_SETTINGS: Final = Settings(max_streams=1, quiet=20.0)
_FIRST_BYTES: Final = 16 * 1024


class Knock(ChannelOccupant):
    """Owns a client connection from its 101 until it is known whose it is."""

    __slots__ = ("_challenge", "_greeting", "_judging", "_proof", "_tls_key")

    def __init__(self, door: AgentDoor, front: Front) -> None:
        """Nothing is said before `start`."""
        super().__init__(door, front)
        self._challenge = Challenge.fresh(replica=door.replica, host=front.edge.snapshot.login_host)
        self._tls_key = presented_key(front.transport.get_extra_info("ssl_object"))
        self._greeting: Greeting | None = None
        self._proof: Proof | None = None
        self._judging = False

    def __repr__(self) -> str:
        return f"<Knock {self.claimed or '?'} from {self.address}>"

    @property
    def claimed(self) -> str:
        """The name that it said, proven or not; "" before it did."""
        return self._greeting.agent if self._greeting is not None else ""

    @property
    def certificate(self) -> bytes:
        """That it came with, DER, good or not; b"" before it did."""
        return self._proof.certificate if self._proof is not None else b""

    def start(self, key: str) -> None:
        """Answer 101 and HELLO in one write; `key` is the request's Sec-WebSocket-Key."""
        front = self._front
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
        answer = answer_upgrade(key, (("Heim-Request-Id", front.request_id.decode("ascii")),))
        front.write(answer + websocket.frame(parts, total))
        tune_carriage(front.transport.get_extra_info("socket"))
        self.channel = Channel(wire, websocket, front.transport, self, lost=Code.AGENT_LOST)
        front.expect(HANDSHAKE_S, "handshake")
        if front.write_paused:
            self.channel.pause_writing()

    # -- for the edge and the channel -------------------------------------------------------

    def timed_out(self, kind: str) -> None:
        """A deadline passed: `kind` is handshake."""
        if self._judging:
            self.refuse(LaneRefused(Code.BUSY, "the proxy takes too long to judge this agent"))
        else:
            words = f"no proof within {HANDSHAKE_S:g} s of the upgrade"
            self.refuse(LaneRefused(Code.UNAUTHENTICATED, words))

    def event(self, channel: Channel, event: Event) -> None:
        """HELLO and AUTH, and what must not be."""
        try:
            if type(event) is Hello:
                self._greeting = read_greeting(event.message)
            elif type(event) is Auth:
                self._auth(event.message)
            elif type(event) is Opened:
                raise LaneRefused(Code.PROTOCOL, "agents open no streams; update heim-agent")
        except LaneRefused as refused:
            self.refuse(refused)

    def _auth(self, message: Message) -> None:
        if self._judging or self._greeting is None:
            raise LaneRefused(Code.PROTOCOL, "AUTH at the wrong time; update heim-agent")
        proof = self._proof = read_proof(message)
        self._judging = True
        spawn("agents.judge", self._judge(proof, self._greeting))

    # -- who it is --------------------------------------------------------------------------

    async def _judge(self, proof: Proof, greeting: Greeting) -> None:
        try:
            admitted = await self._admitted(proof, greeting)
            if not self.over:
                self._let_in(admitted, greeting, proof)
        except LaneRefused as refused:
            self.refuse(refused)
        except Exception:
            # Fail closed: whatever went wrong in a decision is a refusal.
            log.exception("agent.judge_failed", extra={"client": self.address})
            words = "the proxy failed to judge this agent"
            self.refuse(LaneRefused(Code.INTERNAL, words))
            lane = self._front.exchange
            if isinstance(lane, Lane):
                lane.dismiss(Code.INTERNAL, words)

    async def _admitted(self, proof: Proof, greeting: Greeting) -> Admitted:
        edge = self._front.edge
        own = (self._tls_key,) if self._tls_key else ()
        listed = edge.snapshot.config.tunnel.agent_tls_keys
        claim = Claim(greeting, self._challenge, proof, (*own, *listed))
        while True:
            admitted = await self._door.judge.judge(claim, edge.now())
            verified = admitted.verified
            if not admitted.grant.group:
                await self._door.clear_way(verified.name, verified.thumbprint)
            if self.over or edge.snapshot.agents.get(verified.name) == admitted.grant:
                break
            # Another configuration came while the store was asked: once more, by that one.
        if not admitted.session.usable:
            raise LaneRefused(Code.REVOKED, f"this machine is not agent {verified.name} any more")
        return admitted

    def _let_in(self, admitted: Admitted, greeting: Greeting, proof: Proof) -> None:
        """Hand over to a lane, unless another machine has its key."""
        door = self._door
        lane = Lane(door, self._front, self.channel, admitted, greeting, proof.certificate)
        arrival = door.registry.arrive(lane, monotonic())
        if arrival.twin is not None:
            raise self._twin(lane, arrival.twin)
        for old in arrival.replaced:
            old.dismiss(Code.SUPERSEDED, f"agent {lane.name} has a newer connection")
        door.proven(self)
        self.over = True
        self.channel.hand_over(lane)
        self._front.exchange = lane
        lane.begin()

    def _twin(self, lane: Lane, staying: Lane) -> LaneRefused:
        """Two machines have one key: tell both, and everybody who should know."""
        self._door.told.duplicate(lane, staying)
        words = (
            f"{lane.device} at {lane.address} and {staying.device} at {staying.address} use one "
            f"key of agent {lane.name}: was a disk cloned?"
        )
        staying.notice(words)
        self.channel.session.notice(words)
        return LaneRefused(Code.SUPERSEDED, words, reconnect_in=DUPLICATE_RETRY_S)

    # -- ends -------------------------------------------------------------------------------

    def refuse(self, refused: LaneRefused) -> None:
        """Send it away."""
        if self.over:
            return
        self.end_reason = refused.slug
        self._door.told.refused(self, refused)
        self.channel.close(refused.code, refused.reason, reconnect_in=refused.reconnect_in)

    def _ended(self) -> None:
        self._door.leave_waiting(self)
        self._door.refused.add(self.end_reason)
