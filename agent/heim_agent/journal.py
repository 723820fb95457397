"""What the log says of streams: who used what, how long, how much, and who was refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from heim_wire.errors import FAILURES

if TYPE_CHECKING:
    from heim_agent.assertions import Caller

__all__ = ["Journal"]

log = logging.getLogger(__name__)

_REFUSALS_PER_S: Final = 20
"""Lines; the others of that second are counted in the next one's. A proxy that asks for nonsense as
fast as it can must not fill the disk."""


class Journal:
    """Writes one line when a stream opens, one when it ends, one when it is refused."""

    def __init__(self, agent: str, monotonic: Callable[[], float]) -> None:
        """For the agent of that name."""
        self._agent = agent
        self._monotonic = monotonic
        self._second = float("-inf")
        self._written = 0
        self._unwritten = 0

    def opened(self, caller: Caller, request_id: str, *, address: str, seconds: float) -> None:
        """A target was reached, `seconds` after it was asked for."""
        fields = {"address": address, "source": caller.source, "seconds": round(seconds, 3)}
        log.info("stream.opened", extra={**self._who(caller, request_id), **fields})

    def ended(
        self,
        caller: Caller,
        request_id: str,
        *,
        received: int,
        sent: int,
        seconds: float,
        code: int,
        reason: str,
    ) -> None:
        """A stream that was opened is over; bytes in came from the user, bytes out went there."""
        fields = {
            "bytes_in": received,
            "bytes_out": sent,
            "seconds": round(seconds, 3),
            "end": _slug(code),
            "reason": reason,
        }
        log.info("stream.ended", extra={**self._who(caller, request_id), **fields})

    def failed(
        self, caller: Caller, request_id: str, *, address: str, code: int, reason: str
    ) -> None:
        """A target could not be reached, or nobody wanted it any more."""
        fields = {"address": address, "end": _slug(code), "reason": reason}
        log.warning("stream.failed", extra={**self._who(caller, request_id), **fields})

    def refused(
        self, target: str, request_id: str, *, code: int, reason: str, caller: Caller | None = None
    ) -> None:
        """A stream was not let through. `target` is what was asked for, `caller` if believed."""
        now = self._monotonic()
        if now - self._second >= 1:
            self._second, self._written = now, 0
        if self._written >= _REFUSALS_PER_S:
            self._unwritten += 1
            return
        self._written += 1
        who: dict[str, object] = {"agent": self._agent, "request_id": request_id}
        if caller is not None:
            who = self._who(caller, request_id)
        more, self._unwritten = self._unwritten, 0
        fields = {"target": target, "end": _slug(code), "reason": reason}
        if more:
            fields["others_unwritten"] = str(more)
        log.warning("stream.refused", extra={**who, **fields})

    def _who(self, caller: Caller, request_id: str) -> dict[str, object]:
        return {
            "agent": self._agent,
            "target": caller.target,
            "user": caller.user,
            "session": caller.session,
            "backend": caller.backend,
            "request_id": request_id,
        }


def _slug(code: int) -> str:
    failure = FAILURES.get(code)
    return failure.slug if failure is not None else "done"
