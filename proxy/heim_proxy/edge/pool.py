"""Idle connections to one endpoint, newest first.

The newest is the least likely to be closed by the upstream in the same moment; old ones age out
at the bottom. A connection is in the pool only between two exchanges, clean on both sides.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from heim_proxy.edge.dial import Dialer
from heim_proxy.edge.limits import POOL_COOL_S, POOL_FRESH_S, POOL_IDLE_S, POOL_SIZE

if TYPE_CHECKING:
    from heim_proxy.edge.exchange import Exchange
    from heim_proxy.edge.upstream import Upstream

__all__ = ["Pool"]


class Pool:
    """LIFO of idle connections, at most POOL_SIZE, none idle longer than POOL_IDLE_S."""

    __slots__ = ("_closed", "_cool_until", "_dialer", "_idle", "name")

    def __init__(self, name: str, dialer: Dialer | None) -> None:
        """Without `dialer` a subclass says where connections come from (`dialer_for`)."""
        self.name = name
        self._dialer = dialer
        self._idle: deque[Upstream] = deque()
        self._closed = False
        self._cool_until = 0.0

    def __len__(self) -> int:
        return len(self._idle)

    def dialer_for(self, exchange: Exchange) -> Dialer:
        """What makes a connection for an exchange that found none idle."""
        assert self._dialer is not None
        return self._dialer

    def take(self, now: float, *, repeatable: bool) -> Upstream | None:
        """An idle connection or None. `now` is monotonic time in seconds.

        An exchange that cannot be repeated (it is not idempotent, or has a body) only takes one
        that is too fresh to have been timed out by the upstream.
        """
        if not self._idle:
            return None
        if not repeatable and now - self._idle[-1].idle_since > POOL_FRESH_S:
            return None
        return self._idle.pop()

    def give(self, upstream: Upstream, now: float) -> None:
        """Keep a clean connection for the next exchange, or close it when the pool is full."""
        if self._closed or len(self._idle) >= POOL_SIZE:
            upstream.close()
            return
        # From here on the upstream may close it at any time, even if it has served nothing yet.
        upstream.used = True
        upstream.idle_since = now
        self._idle.append(upstream)

    def cool(self, now: float) -> None:
        """A connection could not be made: other endpoints go first for a while."""
        self._cool_until = now + POOL_COOL_S

    def cooling(self, now: float) -> bool:
        """Whether a connection could not be made lately."""
        return now < self._cool_until

    def forget(self, upstream: Upstream) -> None:
        """An idle connection was closed by the other side."""
        try:
            self._idle.remove(upstream)
        except ValueError:
            return

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        while self._idle and now - self._idle[0].idle_since > POOL_IDLE_S:
            self._idle.popleft().close()

    def close(self) -> None:
        """Close every idle connection, and those that come back later."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
