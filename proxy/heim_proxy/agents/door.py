"""Agents as a whole: what their lanes share, and what is asked of all of them together."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING, Final

from heim_proxy.agents.authority import CertificateRefused
from heim_proxy.agents.entrance import Entrance
from heim_proxy.agents.knock import Knock
from heim_proxy.agents.lane import Lane
from heim_proxy.agents.record import Told
from heim_proxy.agents.refused import LaneRefused
from heim_proxy.agents.registry import Registry
from heim_proxy.agents.waiting import WaitingRoom, retry_after
from heim_proxy.live import EndReason
from heim_proxy.observe.metrics import LabelledCounter
from heim_runtime.tasks import spawn
from heim_wire.errors import Code
from heim_wire.window import WindowBudget

if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_proxy.agents.authority import Authority
    from heim_proxy.agents.judging import Judge
    from heim_proxy.edge.connection import Front
    from heim_proxy.live import LiveExchange
    from heim_proxy.observe.audit import Audit
    from heim_proxy.snapshot import Snapshot

__all__ = ["MAX_LANES_HERE", "AgentDoor"]

log = logging.getLogger(__name__)

MAX_LANES_HERE: Final = 10_000
"""Lanes of one process: some 60 KB each with TLS, and half of its connections."""

# Agents whose proxy restarts come back within this, each at its own moment.
_SPREAD_S: Final = 10.0
# How often the enrolments of those who are connected are noted as seen. A crash forgets a minute.
_SEEN_EVERY_S: Final = 60.0
# Reasons for the end of a lane that leave its machine with nothing to come back with.
_ENROLMENT_ENDED: Final = (EndReason.REVOKED.value, EndReason.LOGOUT.value)
# Statements signed, or certificates checked, in one turn of the loop: a few ms with RSA.
_SLICE: Final = 20


class AgentDoor:
    """The `edge.door.TunnelDoor` of agents. One per process, on the edge's event loop.

    Attributes:
        registry: Who is here.
        judge: Says who may be.
        authority: The authority in force.
        replica: This process, as agents know it; another after a restart.
        budget: What all lanes may promise to take.
        told: What is said of those who are not let in.
        refused: Connections that were not let in, by reason.
        busy: Lanes that carry something.
        edition: Grows when what statements say changes.
    """

    def __init__(
        self,
        *,
        judge: Judge,
        authority: Callable[[], Authority],
        snapshot: Callable[[], Snapshot],
        audit: Audit,
    ) -> None:
        """Nobody is here yet."""
        self.judge: Final = judge
        self.authority: Final = authority
        self.audit: Final = audit
        self.told: Final = Told(audit)
        self.registry: Final = Registry()
        self.replica: Final = secrets.token_hex(8)
        self.budget: Final = WindowBudget()
        self.refused: Final = LabelledCounter()
        self.busy: Final[set[Lane]] = set()
        self.edition = 0
        self._snapshot: Final = snapshot
        self._waiting: Final[WaitingRoom[Knock]] = WaitingRoom()
        self._seen_at = 0.0
        self._draining = False
        self._random: Final = secrets.SystemRandom()
        self._refreshing: asyncio.Task[None] | None = None
        # What statements say at present: keys of assertions, and roots.
        self._stated: tuple[object, list[dict[str, str]]] = (None, [])

    # -- lanes ------------------------------------------------------------------------------

    def enter(self, front: Front, host: str) -> Entrance:
        """See `edge.door.TunnelDoor`."""
        return Entrance(self, front)

    @property
    def full(self) -> bool:
        """Whether there are as many lanes as there may be."""
        return len(self.registry) >= MAX_LANES_HERE

    @property
    def connecting(self) -> int:
        """Connections that have not proven yet whose they are."""
        return len(self._waiting)

    def let_wait(self, knock: Knock) -> bool:
        """Give a connection a place for its handshake; False when there is none."""
        if self._waiting.enter(knock, knock.address):
            return True
        other = self._waiting.crowd(knock.address)
        if other is None:
            return False
        words = "too many agents are connecting"
        other.refuse(LaneRefused(Code.BUSY, words, reconnect_in=float(retry_after())))
        return self._waiting.enter(knock, knock.address)

    def proven(self, knock: Knock) -> None:
        """Its handshake is over, and it is a lane."""
        self._waiting.learn(knock.address)
        self.leave_waiting(knock)

    def leave_waiting(self, knock: Knock) -> None:
        """Its handshake is over, one way or the other."""
        self._waiting.leave(knock, knock.address)

    async def clear_way(self, name: str, own_key: bytes) -> None:
        """One machine has a name that is not a group's: this one, or one that is still enrolled.

        Args:
            name: The agent's.
            own_key: Thumbprint of the newcomer's key.

        Raises:
            LaneRefused: The other one is; or the store does not say.
        """
        while others := {
            lane.key: lane for lane in self.registry.lanes_of(name) if lane.key != own_key
        }:
            staying = await self.judge.in_the_way(name, others)
            if staying is not None:
                raise LaneRefused(
                    Code.FORBIDDEN,
                    f"agent {name} is another machine ({others[staying].device}) and not a group; "
                    "revoke one of them: heim-proxy agent revoke --id ID",
                )
            # Their enrolments ended, and the feed has not told us yet.
            for lane in self.registry.lanes_of(name):
                if lane.key in others:
                    lane.end(EndReason.REVOKED)

    def took(self, lane: Lane) -> None:
        """A lane has a stream."""
        self.busy.add(lane)
        self.registry.took(lane)

    def left(self, lane: Lane) -> None:
        """A lane that had been ready is over."""
        now = lane.now()
        self.busy.discard(lane)
        grant = self._snapshot().agents.get(lane.name)
        # Of a group another machine may be enrolled, and only be away.
        alone = grant is not None and not grant.group
        revoked = alone and lane.end_reason in _ENROLMENT_ENDED
        self.registry.leave(lane, now, revoked=revoked)
        lane.live_session.last_seen = now

    # -- for the edge -----------------------------------------------------------------------

    def review(self, exchange: LiveExchange) -> EndReason | None:
        """See `edge.door.TunnelDoor`: may this agent still exist?"""
        if not isinstance(exchange, Lane):
            return None
        grant = self._snapshot().agents.get(exchange.name)
        if grant is None:
            return EndReason.POLICY_CHANGED
        if not grant.group:
            first = min(self.registry.lanes_of(exchange.name), key=lambda lane: lane.since)
            if first.thumbprint != exchange.thumbprint:
                # It was a group, and is one machine from now on: the one that came first.
                return EndReason.POLICY_CHANGED
        return None

    def tick(self, now: float) -> None:
        """See `edge.door.TunnelDoor`."""
        for lane in list(self.busy):
            if not lane.sample():
                self.busy.discard(lane)
                self.registry.freed(lane)
                if self._draining:
                    lane.finish()
        if now - self._seen_at >= _SEEN_EVERY_S:
            self._seen_at = now
            for lane in self.registry.lanes():
                lane.live_session.last_seen = now

    def drain(self, patience_s: float) -> None:
        """See `edge.door.TunnelDoor`: agents go elsewhere, not all at once; streams go on."""
        self._draining = True
        for knock in self._waiting.everybody():
            words = "the proxy is restarting"
            knock.refuse(LaneRefused(Code.GOING_AWAY, words, reconnect_in=self._moment()))
        for lane in self.registry.lanes():
            lane.go_away(self._moment(), patience_s)
            if lane.idle:
                lane.finish()

    def _moment(self) -> float:
        return self._random.uniform(0.0, _SPREAD_S)

    # -- configuration ----------------------------------------------------------------------

    def changed(self) -> None:
        """Another configuration or authority is in force: tell those who stay what is new.

        Every lane gets a statement of its own, signed, so this takes a while with many. Those whose
        certificate is of an authority that is gone are ended.
        """
        snapshot = self._snapshot()
        self.registry.retain(snapshot.agents)
        keys, roots = snapshot.signing_keys.jwks(), self.authority().roots()
        gone = any(root not in roots for root in self._stated[1])
        if self._stated != (keys, roots):
            self._stated = (keys, roots)
            self.edition += 1
        if len(self.registry):
            recheck = gone or (self._refreshing is not None and not self._refreshing.done())
            if self._refreshing is not None:
                self._refreshing.cancel()
            self._refreshing = spawn("agents.refresh", self._refresh(recheck=recheck))

    async def _refresh(self, *, recheck: bool) -> None:
        for count, lane in enumerate(self.registry.lanes(), start=1):
            if recheck:
                self._recheck(lane)
            lane.say_ready()
            if count % _SLICE == 0:
                await asyncio.sleep(0)

    def _recheck(self, lane: Lane) -> None:
        try:
            self.authority().verify(lane.certificate, now=lane.now())
        except CertificateRefused as refused:
            lane.dismiss(Code.UNAUTHENTICATED, str(refused))
