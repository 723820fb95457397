"""Idle connections through agents: a pool for each person, because a stream speaks for one.

The agent was told whom a stream is for, signed, when it was opened, and it may have decided by it.
So the stream serves requests of that session alone, from the same address, by the same roles, on
the same backend; another request gets another stream. On public backends they are everybody's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heim_proxy.edge.dial import Errand
from heim_proxy.edge.limits import (
    AGENT_IDLE,
    AGENT_POOL_IDLE_S,
    AGENT_POOL_SIZE,
    AGENT_POOLS,
    POOL_SIZE,
)
from heim_proxy.edge.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Hashable

    from heim_proxy.edge.dial import AgentDialing, Dialer
    from heim_proxy.edge.exchange import Exchange
    from heim_proxy.edge.judge import Client, Forward
    from heim_proxy.edge.upstream import Upstream
    from heim_proxy.identity.session import Session
    from heim_proxy.routing import Endpoint

__all__ = ["PersonalPool", "PersonalPools"]


class PersonalPool(Pool):
    """Connections that were made on one person's behalf; see the module."""

    __slots__ = ("_client", "_session", "_shelf", "_size", "endpoint", "used_at")

    def __init__(
        self, shelf: PersonalPools, endpoint: Endpoint, session: Session | None, client: str
    ) -> None:
        """A pool of `shelf`, for one session (None: everybody's) and one client's address."""
        super().__init__(str(endpoint), None)
        self.endpoint: Final = endpoint
        self.used_at = 0.0
        self._shelf = shelf
        self._session = session
        self._client = client
        self._size = POOL_SIZE if session is None else AGENT_POOL_SIZE

    def dialer_for(self, exchange: Exchange) -> Dialer:
        """See `Pool.dialer_for`: the agent is told whom this is for."""
        errand = Errand(
            session=self._session,
            backend=exchange.backend.name,
            roles=exchange.forward.allow.roles,
            client=self._client,
            request_id=exchange.request_id.decode("ascii"),
            proto="http",
            patience_s=exchange.backend.timeouts.connect,
            wanted=lambda: not exchange.over,
        )
        return self._shelf.agents.dialer(self.endpoint, errand)

    def give(self, upstream: Upstream, now: float) -> None:
        """See `Pool.give`: the agent's machine keeps a connection for each, so they are few."""
        if not self.good or len(self) >= self._size or self._shelf.crowded(self.endpoint.host):
            upstream.close()
        else:
            super().give(upstream, now)

    @property
    def good(self) -> bool:
        """Whether the session it speaks for still lives."""
        return self._session is None or self._session.usable

    def is_for(self, session: Session | None) -> bool:
        """Whether it was made for this very session, not for one that was reloaded since."""
        return self._session is session

    def sweep(self, now: float) -> None:
        """See `Pool.sweep`: they go sooner than connections that everybody shares."""
        while self._idle and now - self._idle[0].idle_since > AGENT_POOL_IDLE_S:
            self._idle.popleft().close()


class PersonalPools:
    """All pools of endpoints of agents: AGENT_POOLS at most, the longest unused go first."""

    __slots__ = ("_pools", "agents")

    def __init__(self, agents: AgentDialing) -> None:
        self.agents = agents
        self._pools: dict[Hashable, PersonalPool] = {}

    def __len__(self) -> int:
        return len(self._pools)

    def find(self, forward: Forward, client: Client, now: float) -> PersonalPool:
        """The pool for a request that was allowed. `now` is monotonic time in seconds."""
        session, allow = forward.session, forward.allow
        endpoint = forward.route.endpoints[0]
        sid, address = ("", "") if session is None else (session.sid, client.address)
        key = (endpoint, allow.backend, sid, address, allow.roles)
        pool = self._pools.pop(key, None)
        if pool is not None and not pool.is_for(session):
            pool.close()
            pool = None
        if pool is None:
            if len(self._pools) >= AGENT_POOLS:
                self._drop(next(iter(self._pools)))
            pool = PersonalPool(self, endpoint, session, address)
        # At the end, where the latest are.
        self._pools[key] = pool
        pool.used_at = now
        return pool

    def crowded(self, agent: str) -> bool:
        """Whether enough idle connections are kept on an agent's machine."""
        kept = sum(len(pool) for pool in self._pools.values() if pool.endpoint.host == agent)
        return kept >= AGENT_IDLE

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long, and what spoke for sessions that ended."""
        for key, pool in list(self._pools.items()):
            pool.sweep(now)
            if not pool.good or (not pool and now - pool.used_at > AGENT_POOL_IDLE_S):
                self._drop(key)

    def close(self) -> None:
        """Close every idle connection, and those that come back later."""
        for key in list(self._pools):
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        self._pools.pop(key).close()
