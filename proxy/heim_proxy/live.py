"""Every exchange that outlives its decision, to be ended when the decision no longer holds.

An exchange (an HTTP request and its response, a WebSocket, a tunnel stream, an agent's connection)
is registered before anything is dialled for it and closed when it is over. Registration is two set
operations, because it happens for every request.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

__all__ = ["EndReason", "LiveExchange", "LiveRegistry", "LiveSession"]

log = logging.getLogger(__name__)

# Looking at 10 000 connections of agents twice a second took 2 % of a core, for permissions that
# last for a day. What is good for longer than this is looked at again after half of it.
_FAR_S: Final = 30.0


class EndReason(enum.Enum):
    """Why an established exchange or a session was ended; the value is what logs show."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    EXPIRED = "expired"
    IDLE = "idle"
    SESSION_TOO_OLD = "session_too_old"
    POLICY_CHANGED = "policy_changed"
    BACKEND_REMOVED = "backend_removed"
    BACKEND_MOVED = "backend_moved"
    SHUTDOWN = "shutdown"


class LiveSession(Protocol):
    """What the registry needs of a session."""

    live: set[LiveExchange]


class LiveExchange(Protocol):
    """What the registry needs of an exchange."""

    @property
    def live_session(self) -> LiveSession | None:
        """The session it runs under, the same one for life; None for a public backend."""

    @property
    def valid_until(self) -> float:
        """Seconds since the epoch after which its decision no longer holds; inf for never.

        It may move earlier only while `LiveRegistry.review` is under way, or before it.
        """

    def end(self, reason: EndReason) -> None:
        """Stop it now, telling the client why where the protocol allows."""


class LiveRegistry:
    """All exchanges in flight. One per process."""

    __slots__ = ("_exchanges", "_far", "_look_at")

    def __init__(self) -> None:
        self._exchanges: set[LiveExchange] = set()
        # Those of them that do not end before `expire` looks at all of them again, and when.
        self._far: set[LiveExchange] = set()
        self._look_at = 0.0

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
        self._far.discard(exchange)
        session = exchange.live_session
        if session is not None:
            session.live.discard(exchange)

    def end_session(self, session: LiveSession, reason: EndReason) -> int:
        """End every exchange of one session; returns how many."""
        return self._end([(exchange, reason) for exchange in session.live])

    def expire(self, now: float) -> int:
        """End every exchange whose decision ran out by `now`; returns how many."""
        if now >= self._look_at:
            far = now + _FAR_S
            self._far = {one for one in self._exchanges if one.valid_until > far}
            self._look_at = now + _FAR_S / 2
        near = self._exchanges - self._far if self._far else self._exchanges
        return self._end([(one, EndReason.EXPIRED) for one in near if one.valid_until <= now])

    def review(self, judge: Callable[[LiveExchange], EndReason | None]) -> int:
        """End every exchange for which `judge` gives a reason; returns how many.

        An exchange that cannot be judged is ended too: no answer from policy is a deny.
        """
        self._look_at = 0.0
        doomed: list[tuple[LiveExchange, EndReason]] = []
        for exchange in list(self._exchanges):
            try:
                reason = judge(exchange)
            except Exception:
                log.exception("live.judge_failed")
                reason = EndReason.POLICY_CHANGED
            if reason is not None:
                doomed.append((exchange, reason))
        return self._end(doomed)

    def _end(self, doomed: Iterable[tuple[LiveExchange, EndReason]]) -> int:
        """End each that is still there; one that fails to end does not save the others."""
        ended = 0
        for exchange, reason in doomed:
            if exchange not in self._exchanges:
                # It went with another one, of the same connection for example.
                continue
            ended += 1
            try:
                exchange.end(reason)
            except Exception:
                log.exception("live.end_failed", extra={"reason": reason.value})
        return ended
