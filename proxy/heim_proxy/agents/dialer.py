"""Connections through agents: an OPEN on one of an agent's lanes, answered, as a transport.

What is asked for is a target by its name, never an address: the agent alone knows where it is
(security.md, O1 and O7). Whom the connection is for goes with it, signed for the one machine that
is asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from heim_proxy.agents import words
from heim_proxy.agents.assertions import stream_assertion
from heim_proxy.agents.opening import Opening, Secured, Unanswered
from heim_proxy.agents.presence import Offline
from heim_proxy.agents.shares import EACH, PUBLIC
from heim_proxy.edge.dial import AgentDialError, DialError
from heim_wire.errors import FAILURES, Code, OpenRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_proxy.agents.lane import Lane
    from heim_proxy.agents.registry import Registry
    from heim_proxy.edge.dial import Errand
    from heim_proxy.routing import Endpoint
    from heim_proxy.snapshot import Snapshot

__all__ = ["DIALS_AT_ONCE", "AgentDialer", "AgentDialers"]

DIALS_AT_ONCE: Final = 24
"""Unanswered OPENs for one target. A lane has 64: targets that swallow SYNs must not take them all,
so the others of the same target wait for their turn here."""

# The second one on another lane, or after a lane's end nobody had noticed.
_TRIES: Final = 2
# Of our patience the agent gets this much less, so that its own answer comes before our deadline.
_MARGIN_S: Final = 0.5
_MARGIN: Final = 0.1
# Whoever gives up so close to the deadline gave up for it, not because a client left.
_LATE_S: Final = 0.1


class _Gate:
    """Who may ask for one target just now."""

    __slots__ = ("turns", "users")

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(DIALS_AT_ONCE)
        self.users = 0


class AgentDialers:
    """Makes dialers for endpoints of agents (`edge.dial.AgentDialing`). One per process."""

    def __init__(
        self,
        registry: Registry,
        *,
        snapshot: Callable[[], Snapshot],
        now: Callable[[], float],
    ) -> None:
        """Nothing is asked of anybody yet.

        Args:
            registry: Which agents are here.
            snapshot: The one in force.
            now: Seconds since the epoch.
        """
        self.registry = registry
        self.snapshot = snapshot
        self.now = now
        self._gates: dict[tuple[str, str], _Gate] = {}

    def dialer(self, endpoint: Endpoint, errand: Errand) -> AgentDialer:
        """A dialer for one connection to `endpoint` (scheme agent), on somebody's behalf."""
        return AgentDialer(self, endpoint, errand)

    async def take_turn(self, endpoint: Endpoint) -> None:
        """Wait for a turn to ask for a target; first come, first served. `end_turn` follows."""
        key = (endpoint.host, endpoint.target)
        gate = self._gates.get(key)
        if gate is None:
            gate = self._gates[key] = _Gate()
        gate.users += 1
        try:
            await gate.turns.acquire()
        except BaseException:
            self._forget(key, gate)
            raise

    def end_turn(self, endpoint: Endpoint) -> None:
        """The next one may ask for the target."""
        key = (endpoint.host, endpoint.target)
        gate = self._gates[key]
        gate.turns.release()
        self._forget(key, gate)

    def _forget(self, key: tuple[str, str], gate: _Gate) -> None:
        gate.users -= 1
        if not gate.users:
            del self._gates[key]


class AgentDialer:
    """Dials one target of one agent for one `Errand`; see `edge.dial.Dialer`."""

    __slots__ = ("_dialers", "_endpoint", "_errand")

    def __init__(self, dialers: AgentDialers, endpoint: Endpoint, errand: Errand) -> None:
        self._dialers = dialers
        self._endpoint = endpoint
        self._errand = errand

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """A protocol connected to the target. The caller owns the deadline, `Errand.patience_s`.

        Raises:
            AgentDialError: Why not, with a code, in words.
            DialError: The target's TLS is not what it should be.
        """
        count = self._dialers.registry.count
        name = self._endpoint.host
        deadline = asyncio.get_running_loop().time() + self._errand.patience_s
        try:
            await self._dialers.take_turn(self._endpoint)
            try:
                protocol = await self._dial(factory, deadline)
            finally:
                self._dialers.end_turn(self._endpoint)
        except DialError as error:
            code = error.code if isinstance(error, AgentDialError) else Code.DIAL_REFUSED
            count(name, FAILURES[code].slug)
            raise
        except asyncio.CancelledError:
            if asyncio.get_running_loop().time() >= deadline - _LATE_S:
                count(name, FAILURES[Code.DIAL_TIMEOUT].slug)
            raise
        count(name, "opened")
        return protocol

    async def _dial(
        self, factory: Callable[[], asyncio.BaseProtocol], deadline: float
    ) -> asyncio.BaseProtocol:
        endpoint = self._endpoint
        failure: AgentDialError | None = None
        for _ in range(_TRIES):
            self._check()
            lane = self._dialers.registry.pick(endpoint.host)
            if isinstance(lane, Offline):
                raise words.offline(endpoint, lane, self._dialers.now())
            try:
                opening = self._open(lane, factory, deadline)
            except OpenRefused as refused:
                failure = words.not_taken(endpoint, refused)
                continue
            try:
                return await opening.protocol()
            except Unanswered as unanswered:
                failure = words.refused(endpoint, unanswered)
                if not unanswered.again:
                    break
        assert failure is not None
        raise failure

    def _check(self) -> None:
        """The configuration in force must know the agent and the target, whoever asks.

        And somebody must still be asking: nothing is signed for a login that ended, or for a
        request that was taken back, while it waited for its turn.
        """
        endpoint = self._endpoint
        if not self._errand.wanted():
            raise words.given_up(endpoint)
        grant = self._dialers.snapshot().agents.get(endpoint.host)
        if grant is None or endpoint.target not in grant.targets:
            raise words.not_configured(endpoint)

    def _share(self, lane: Lane) -> tuple[str, str] | None:
        """Whose stream it will be on `lane`: a person's, or everybody's (None).

        Raises:
            AgentDialError: They have as many there as they may.
        """
        session = self._errand.session
        owner = None if session is None else (session.subject.issuer, session.subject.subject)
        each = max(EACH, self._dialers.snapshot().config.tunnel.streams_per_user)
        limit = PUBLIC if owner is None else each
        if lane.shares.full(owner, lane.channel.session.streams, limit=limit):
            raise words.too_many(self._endpoint, self._errand, limit)
        return owner

    def _open(
        self, lane: Lane, factory: Callable[[], asyncio.BaseProtocol], deadline: float
    ) -> Opening:
        """Ask the machine behind `lane`.

        Raises:
            OpenRefused: The lane takes no more.
            AgentDialError: The person's statement is too long, or they have their share of it.
        """
        errand, endpoint = self._errand, self._endpoint
        owner = self._share(lane)
        snapshot = self._dialers.snapshot()
        left = max(deadline - asyncio.get_running_loop().time(), 0.0)
        message = {
            "target": endpoint.target,
            "proto": errand.proto,
            "deadline_ms": int((left - min(_MARGIN_S, left * _MARGIN)) * 1000),
            "request_id": errand.request_id,
            "assertion": stream_assertion(
                snapshot,
                errand,
                target=endpoint.target,
                audience=lane.thumbprint,
                now=self._dialers.now(),
            ),
        }
        try:
            stream = lane.open(message)
        except ValueError as error:
            raise words.too_long(endpoint, errand) from error
        lane.shares.note(stream.id, owner, lane.channel.session.streams)
        if endpoint.tls is None:
            return Opening(lane.channel, stream, endpoint, factory)
        context = snapshot.endpoints.get(endpoint)
        if context is None:
            stream.reset(Code.GOING_AWAY, "the configuration changed")
            raise words.not_configured(endpoint)
        return Secured(lane.channel, stream, endpoint, factory, context)
