"""Every exchange that outlives its decision, to be ended when the decision no longer holds.

An exchange (an HTTP request and its response, a WebSocket, later a tunnel stream) is registered
before anything is dialled for it and closed when it is over. Registration is two set operations,
because it happens for every request.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

__all__ = ["EndReason", "LiveExchange", "LiveRegistry", "LiveSession"]


class EndReason(enum.Enum):
    """Why an established exchange or a session was ended; the value is what logs show."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    EXPIRED = "expired"
    IDLE = "idle"
    SESSION_TOO_OLD = "session_too_old"
    POLICY_CHANGED = "policy_changed"
    BACKEND_REMOVED = "backend_removed"
    SHUTDOWN = "shutdown"


class LiveSession(Protocol):
    """What the registry needs of a session."""

    live: set[LiveExchange]


class LiveExchange(Protocol):
    """What the registry needs of an exchange."""

    @property
    def live_session(self) -> LiveSession | None:
        """The session it runs under; None for a public backend."""

    @property
    def valid_until(self) -> float:
        """Seconds since the epoch after which its decision no longer holds; inf for never."""

    def end(self, reason: EndReason) -> None:
        """Stop it now, telling the client why where the protocol allows."""


class LiveRegistry:
    """All exchanges in flight. One per process."""

    __slots__ = ("_exchanges",)

    def __init__(self) -> None:
        self._exchanges: set[LiveExchange] = set()

    def __len__(self) -> int:
        return len(self._exchanges)

    def add(self, exchange: LiveExchange) -> None:
        """Register before dialling."""
        self._exchanges.add(exchange)
        session = exchange.live_session
        if session is not None:
            session.live.add(exchange)

    def discard(self, exchange: LiveExchange) -> None:
        """Forget an exchange that is over; harmless when it was not registered."""
        self._exchanges.discard(exchange)
        session = exchange.live_session
        if session is not None:
            session.live.discard(exchange)

    def end_session(self, session: LiveSession, reason: EndReason) -> int:
        """End every exchange of one session; returns how many."""
        doomed = list(session.live)
        for exchange in doomed:
            exchange.end(reason)
        return len(doomed)

    def expire(self, now: float) -> int:
        """End every exchange whose decision ran out by `now`; returns how many."""
        doomed = [exchange for exchange in self._exchanges if exchange.valid_until <= now]
        for exchange in doomed:
            exchange.end(EndReason.EXPIRED)
        return len(doomed)

    def review(self, judge: Callable[[LiveExchange], EndReason | None]) -> int:
        """End every exchange for which `judge` gives a reason; returns how many."""
        doomed = [(exchange, judge(exchange)) for exchange in self._exchanges]
        ended = 0
        for exchange, reason in doomed:
            if reason is not None:
                exchange.end(reason)
                ended += 1
        return ended
