"""The edge as a whole: what all client connections share, and the sweep that keeps deadlines.

One per process. A new snapshot replaces `judge` by one assignment: requests that are being
judged keep the old one, exchanges under way are judged again by the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.access.policy import Allow
from heim_proxy.edge.dial import DialError, EndpointDialer, InProcessDialer
from heim_proxy.edge.exchange import Exchange
from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.judge import Client, Forward, Judge, Portal
from heim_proxy.edge.limits import READ_BYTES, SWEEP_S
from heim_proxy.edge.personal import PersonalPools
from heim_proxy.edge.pool import Pool
from heim_proxy.edge.record import Recorder
from heim_proxy.edge.upstream import Upstream
from heim_proxy.edge.webroot import Webroot
from heim_proxy.live import EndReason, LiveExchange, LiveRegistry
from heim_proxy.routing import Backend, Endpoint, PathMatch, Route, Timeouts
from heim_runtime.tasks import spawn

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.dial import AgentDialing, Dialer
    from heim_proxy.edge.door import TunnelDoor
    from heim_proxy.identity.session import Sessions
    from heim_proxy.observe.access_log import AccessLog
    from heim_proxy.observe.audit import Audit
    from heim_proxy.observe.metrics import Metrics
    from heim_proxy.snapshot import Snapshot
    from heim_runtime.clock import Clock

__all__ = ["Edge"]

log = logging.getLogger(__name__)

_PORTAL_BACKEND: Final = Backend(
    "portal",
    public=True,
    dialects=(),
    upgrades=frozenset(),
    # An identity provider may take its 10 s twice (metadata and code exchange).
    timeouts=Timeouts(connect=2.0, first_byte=30.0, idle=30.0),
)
_PORTAL_ROUTE: Final = Route(_PORTAL_BACKEND, b"/", PathMatch.PREFIX, ())
_PORTAL_ALLOW: Final = Allow("portal", "Heim's own pages", public=True)
# Seconds for close frames and last answers to leave when time is up.
_GOODBYE_S: Final = 1.0
# How late a stalled write of an agent's connection, or of a tunnel, may be noticed.
_PARKED_EVERY_S: Final = 10.0
# Addresses whose trust is remembered; then the memory starts over.
_REMEMBERED_PEERS: Final = 10_000


class _Turns:
    """The endpoints of one route, taking turns."""

    __slots__ = ("_turn", "pools")

    def __init__(self, pools: tuple[Pool, ...]) -> None:
        self.pools = pools
        self._turn = 0

    def next(self, forward: Forward, client: Client) -> tuple[Pool, ...]:
        """All of them, beginning with the next one that works; those that failed come last."""
        now = monotonic()
        first = self._turn = (self._turn + 1) % len(self.pools)
        order = self.pools[first:] + self.pools[:first]
        return tuple(sorted(order, key=lambda pool: pool.cooling(now)))


class _Personal(_Turns):
    """The one endpoint of a route through an agent: which pool it is depends on who asks."""

    __slots__ = ("_shelf",)

    def __init__(self, shelf: PersonalPools) -> None:
        super().__init__(())
        self._shelf = shelf

    def next(self, forward: Forward, client: Client) -> tuple[Pool, ...]:
        """See `_Turns.next`."""
        return (self._shelf.find(forward, client, monotonic()),)


class Edge:
    """Shared state of the data plane. Everything runs on one event loop."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        sessions: Sessions,
        live: LiveRegistry,
        portal: Dialer,
        door: TunnelDoor,
        agents: AgentDialing,
        access_log: AccessLog,
        audit: Audit,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.sessions = sessions
        self.live = live
        self.door = door
        self.metrics = metrics
        self.now = clock.now
        self.draining = False
        # What client connections read into, one at a time.
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.portal_pools = (Pool("portal", portal),)
        self.agents = agents
        self.personal_pools = PersonalPools(agents)
        self.snapshot = snapshot
        self.judge = Judge(snapshot, sessions)
        self.recorder = Recorder(access_log=access_log, audit=audit, metrics=metrics, now=clock.now)
        self._fronts: set[Front] = set()
        # Those of them that have no deadline, and when they are looked at all the same.
        self._parked: set[Front] = set()
        self._look_at_parked = 0.0
        self._empty = asyncio.Event()
        self._pools: dict[Endpoint, Pool] = {}
        self._turns: dict[Route, _Turns] = {}
        self._trust: dict[str, bool] = {}

    # -- snapshots --------------------------------------------------------------------------

    def swap(self, snapshot: Snapshot) -> None:
        """Put a new snapshot in force and end what it no longer allows."""
        self.snapshot = snapshot
        self.judge = Judge(snapshot, self.sessions)
        self._trust = {}
        self._turns = {}
        # TLS ones anew: a CA file of the same name may hold another authority now.
        kept = {endpoint for endpoint, context in snapshot.endpoints.items() if context is None}
        for endpoint in [endpoint for endpoint in self._pools if endpoint not in kept]:
            self._pools.pop(endpoint).close()
        # What agents were told is of the old snapshot, too.
        self.personal_pools.close()
        ended = self.live.review(self._review)
        if ended:
            log.info("exchanges.ended_by_config", extra={"count": ended})

    def _review(self, exchange: LiveExchange) -> EndReason | None:
        if not isinstance(exchange, Exchange):
            return self.door.review(exchange)
        if exchange.to_portal:
            return None
        head = exchange.front.head
        forward = exchange.forward
        reason = self.judge.review(forward, head.method, forward.host, head.target)
        return reason or self._told(forward, head.method, head.target.path)

    def _told(self, forward: Forward, method: bytes, path: bytes) -> EndReason | None:
        """Why what the agent was told of a request that goes through one is not true any more.

        A list of targets is a permission: what it no longer gives must not go on for hours. Nor do
        we know by which of the roles that it was told of the agent let the request in.
        """
        if not forward.route.via:
            return None
        if forward.session is not None:
            grants = self.judge.grants(forward.session)
            decision = grants.decide(forward.route.backend.name, method, path)
            if not isinstance(decision, Allow):
                return EndReason.POLICY_CHANGED
            if not set(forward.allow.roles) <= set(decision.roles):
                return EndReason.POLICY_CHANGED
        routes = self.snapshot.routes.lookup(forward.host)
        route = routes.match(path) if routes is not None else None
        same = route is not None and route.endpoints == forward.route.endpoints
        return None if same else EndReason.BACKEND_MOVED

    def trusts(self, address: str) -> bool:
        """Whether forwarding headers from this address are believed (`trusted_proxies`)."""
        known = self._trust.get(address)
        if known is None:
            known = _contains(self.snapshot.trusted_proxies, address)
            if len(self._trust) >= _REMEMBERED_PEERS:
                self._trust.clear()
            self._trust[address] = known
        return known

    # -- connections ------------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Client connections that are open."""
        return len(self._fronts)

    def opened(self, front: Front) -> None:
        """A client connection is ready."""
        self._fronts.add(front)

    def closed(self, front: Front) -> None:
        """A client connection is gone."""
        self._fronts.discard(front)
        self._parked.discard(front)
        if not self._fronts:
            self._empty.set()

    def unpark(self, front: Front) -> None:
        """Something is expected of a connection again, soon."""
        self._parked.discard(front)
        front.parked = False

    async def sweep(self) -> None:
        """Check every deadline twice a second, for as long as the process lives."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self._check_fronts(self.loop.time())
            for pool in (*self._pools.values(), *self.portal_pools):
                pool.sweep(monotonic())
            if self.draining:
                # What is kept for later would keep an agent's connection, and that keeps us.
                self.personal_pools.close()
            else:
                self.personal_pools.sweep(monotonic())
            now = self.now()
            self.live.expire(now)
            self.door.tick(now)

    def _check_fronts(self, now: float) -> None:
        """Have every connection look at its deadlines; of those without one some at a time.

        Ten thousand idle agents cost 2 % of a core when they were all looked at twice a second, to
        find out that they are idle. What they may miss is a write that stalls for two minutes.
        """
        if now >= self._look_at_parked:
            self._look_at_parked = now + _PARKED_EVERY_S
            for front in self._parked:
                front.parked = False
            self._parked.clear()
        for front in self._fronts - self._parked if self._parked else list(self._fronts):
            try:
                front.check(now)
            except Exception:
                # Everybody else's deadlines are still to be kept.
                log.exception("edge.check_failed")
                front.abort()
                continue
            if front.parked:
                self._parked.add(front)

    async def drain(self, patience_s: float) -> None:
        """Let exchanges finish for `patience_s` seconds, then end what is left, telling why."""
        self.draining = True
        for front in list(self._fronts):
            front.drain()
        self.door.drain(patience_s)
        await self._emptied(patience_s)
        self.live.review(lambda _: EndReason.SHUTDOWN)
        await self._emptied(_GOODBYE_S)
        for front in list(self._fronts):
            front.abort()
        for pool in (*self._pools.values(), *self.portal_pools):
            pool.close()
        self.personal_pools.close()

    async def _emptied(self, patience_s: float) -> None:
        """Wait until no client connection is left, `patience_s` seconds at most."""
        self._empty.clear()
        if self._fronts:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._empty.wait()

    # -- upstreams --------------------------------------------------------------------------

    def pools(self, forward: Forward, client: Client) -> tuple[Pool, ...]:
        """The pools of a route's endpoints: the one whose turn it is first, failed ones last."""
        route = forward.route
        turns = self._turns.get(route)
        if turns is None:
            turns = self._turns[route] = self._take_turns(route)
        return turns.pools if len(turns.pools) == 1 else turns.next(forward, client)

    def _take_turns(self, route: Route) -> _Turns:
        if route.via:
            return _Personal(self.personal_pools)
        return _Turns(tuple(self._pool(endpoint) for endpoint in route.endpoints))

    def _pool(self, endpoint: Endpoint) -> Pool:
        pool = self._pools.get(endpoint)
        if pool is None:
            context = self.snapshot.endpoints.get(endpoint)
            dialer: Dialer = EndpointDialer(endpoint, context)
            if endpoint.scheme == "webroot":
                dialer = InProcessDialer(Webroot(Path(endpoint.host)))
            pool = self._pools[endpoint] = Pool(str(endpoint), dialer)
        return pool

    def dial(self, exchange: Exchange, pools: tuple[Pool, ...]) -> None:
        """Make a connection for an exchange that found none idle."""
        spawn("edge.dial", self._dial(exchange, pools))

    async def _dial(self, exchange: Exchange, pools: tuple[Pool, ...]) -> None:
        """Try each endpoint in turn, each within the backend's connect timeout."""
        failure: DialError | TimeoutError = DialError("no upstream")
        for pool in pools:
            exchange.upstream_name = pool.name
            try:
                async with asyncio.timeout(exchange.backend.timeouts.connect):
                    upstream = await pool.dialer_for(exchange).dial(
                        partial(Upstream, pool, self.loop)
                    )
            except (DialError, TimeoutError) as error:
                failure = error
                pool.cool(monotonic())
                detail = "connect timeout" if isinstance(error, TimeoutError) else str(error)
                self.recorder.upstream_failed(exchange, f"dial failed: {detail}")
                continue
            assert isinstance(upstream, Upstream)
            if exchange.over:
                pool.give(upstream, monotonic())
            else:
                exchange.connected(upstream)
            return
        exchange.dial_failed(failure)

    def portal_forward(
        self, head: RequestHead, client: Client, portal: Portal, request_id: bytes
    ) -> Forward:
        """A request for our own pages, with what the portal needs to know about it.

        Clients cannot send these headers: their family is stripped from every request.
        """
        lines = [
            f"X-Heim-Host: {portal.host}",
            f"X-Heim-Surface: {'login' if portal.backend is None else 'backend'}",
            f"X-Heim-Client: {client.address}",
            f"X-Heim-Request: {request_id.decode('ascii')}",
            "X-Heim-Scheme: https",
        ]
        if portal.backend is not None:
            lines.append(f"X-Heim-Backend: {portal.backend}")
        identity = "".join(f"{line}\r\n" for line in lines).encode("ascii")
        path = head.target.path + head.target.query
        return Forward(_PORTAL_ROUTE, _PORTAL_ALLOW, None, identity, path, portal.host)


def _contains(
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...], address: str
) -> bool:
    with contextlib.suppress(ValueError):
        parsed = ipaddress.ip_address(address)
        return any(parsed in network for network in networks)
    return False
