"""Keeps one lane up: dial, serve, wait, again; and renews the certificate that it is known by.

What to do next is decided by `pacing` and `renewal`; this is the loop around them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time

from heim_agent.dialling import connect
from heim_agent.endings import Kind, NotConnected
from heim_agent.lane import Lane
from heim_agent.pacing import Pacer
from heim_agent.renewal import Renewals, Urgency
from heim_runtime.clock import SystemClock
from heim_runtime.tasks import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final, Literal

    from heim_agent.endings import Ending
    from heim_agent.lane import Terms
    from heim_runtime.clock import Clock

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

# A wait is cut into pieces so that a machine that was suspended in it notices.
_SLICE_S: Final = 2.0
# Between the clocks in one piece; more means that the machine slept.
_JUMP_S: Final = 5.0
# The proxy says how long streams may go on; this when it does not.
_DRAIN_S: Final = 300.0
_LOOK_S: Final = 0.2
# A certificate's time is looked at again at least so often: clocks get set.
_RENEWAL_LOOK_S: Final = 60.0

_MENDABLE: Final = (Kind.REFUSED, Kind.UNTRUSTED, Kind.SUPERSEDED)


class Keeper:
    """One lane, kept up by `run`.

    Attributes:
        number: Which lane.
        lane: The one that takes streams now; None while there is none.
        drained: Lanes that the proxy sent away and that still have streams.
        ending: How the last attempt or lane ended; None while one is ready.
        retry_at: When the next attempt is, seconds of time.time (for people); 0 when none is due.
        attempts: Attempts since a lane was ready last.
        connected: Set once a lane was ready.
        certificate_problem: Why the last renewal failed, or "".
    """

    def __init__(
        self,
        terms: Terms,
        number: int,
        changed: Callable[[], None],
        *,
        clock: Clock | None = None,
        environ: Mapping[str, str] = os.environ,
        fraction: Callable[[], float] | None = None,
    ) -> None:
        """Prepare; nothing happens before `run`.

        Args:
            terms: Shared by all lanes.
            number: Which lane.
            changed: Called when what the attributes say has changed.
            clock: This machine's, for delays.
            environ: Names the web proxy.
            fraction: Gives numbers in [0, 1) for jitter; tests hand in their own.
        """
        self._terms = terms
        self._changed = changed
        self._clock: Clock = clock or SystemClock()
        self._environ = environ
        self._fraction = fraction
        self._pacer = Pacer(self._clock, fraction)
        self.number = number
        self.lane: Lane | None = None
        self.drained: list[Lane] = []
        self.ending: Ending | None = None
        self.retry_at = 0.0
        self.attempts = 0
        self.connected = asyncio.Event()
        self.certificate_problem = ""

    @property
    def state(self) -> Literal["connected", "connecting", "waiting"]:
        """What it does."""
        if self.lane is not None:
            return "connected"
        return "waiting" if self.retry_at else "connecting"

    async def run(self) -> None:
        """Keep the lane up until cancelled; cancelling leaves `lane` and `drained` as they are."""
        while True:
            try:
                ending = await self._once()
            except NotConnected as e:
                ending = e.ending
            delay = self._pacer.after(ending)
            self._tell(ending, delay)
            await self._wait(delay)

    async def _once(self) -> Ending:
        """One connection from its dialling to its end, or to where another shall take over."""
        self.attempts += 1
        self._changed()
        began = self._clock.monotonic()
        lane = Lane(self._terms, self.number, self._changed)
        connected = await connect(self._terms.way, self._environ)
        grant = await lane.open(connected)
        self.lane, self.ending, self.attempts = lane, None, 0
        self.connected.set()
        self._changed()
        log.info(
            "lane.ready",
            extra={
                "lane": self.number,
                "proxy": self._terms.way.authority,
                "via": connected.via or "direct",
                "replica": grant.replica,
                "targets": len(grant.targets),
                "took_ms": round((self._clock.monotonic() - began) * 1000),
            },
        )
        renewing = spawn(f"lane-{self.number}-renewal", self._renew(lane))
        try:
            await asyncio.wait((lane.ended, lane.leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            renewing.cancel()
        self.lane = None
        if lane.ended.done():
            return lane.ended.result()
        self.drained.append(lane)
        spawn(f"lane-{self.number}-drain", self._drain(lane))
        return lane.leaving.result()

    def _tell(self, ending: Ending, delay: float) -> None:
        self.ending = ending
        self.retry_at = time.time() + delay
        fields = {
            "lane": self.number,
            "proxy": self._terms.way.authority,
            "reason": ending.text,
            "kind": ending.kind.value,
            "retry_in_s": round(delay, 1),
            "attempts": self.attempts,
            **({"hint": ending.hint} if ending.hint else {}),
            **({"code": ending.code} if ending.code else {}),
            **({"request_id": ending.request_id} if ending.request_id else {}),
        }
        if ending.kind in _MENDABLE:
            log.error("lane.refused", extra=fields)
        elif ending.kind is Kind.AWAY:
            log.info("lane.away", extra=fields)
        else:
            event = "lane.lost" if ending.lived_s else "lane.failed"
            log.warning(event, extra=fields)
        self._changed()

    async def _wait(self, delay: float) -> None:
        """Wait; not any longer once the machine was suspended, as everything is different then."""
        clock = self._clock
        until = clock.monotonic() + delay
        offset = clock.now() - clock.monotonic()
        while (left := until - clock.monotonic()) > 0:
            await asyncio.sleep(min(left, _SLICE_S))
            before, offset = offset, clock.now() - clock.monotonic()
            if offset - before > _JUMP_S:
                log.info("machine.woke", extra={"lane": self.number})
                break
        self.retry_at = 0.0

    async def _drain(self, lane: Lane) -> None:
        """See a lane off that the proxy sent away: until it has no streams, or drain is over."""
        until = self._clock.monotonic() + (lane.drain_s or _DRAIN_S)
        try:
            while not lane.ended.done() and lane.streams and self._clock.monotonic() < until:
                await asyncio.wait((lane.ended,), timeout=_LOOK_S)
            lane.finish()
            await asyncio.shield(lane.ended)
        finally:
            with contextlib.suppress(ValueError):
                self.drained.remove(lane)
            self._changed()

    async def _renew(self, lane: Lane) -> None:
        """Renew the certificate of a lane when it is time, until it is cancelled."""
        renewals = Renewals(lane.span, self._fraction)
        now = self._terms.clock.now
        while not lane.ended.done():
            wait = renewals.wait_s(now())
            if wait > 0:
                await asyncio.sleep(min(wait, _RENEWAL_LOOK_S))
                continue
            problem = await lane.renew()
            if lane.ended.done():
                return
            if not problem:
                renewals.renewed(lane.span)
                log.info(
                    "certificate.renewed",
                    extra={"lane": self.number, "valid_s": round(lane.span.ends - now())},
                )
            else:
                self._renewal_failed(renewals, problem)
            self.certificate_problem = problem
            self._changed()

    def _renewal_failed(self, renewals: Renewals, problem: str) -> None:
        now = self._terms.clock.now()
        urgency = renewals.failed(now)
        fields = {
            "lane": self.number,
            "reason": problem,
            "left_s": round(renewals.span.ends - now),
            "retry_in_s": round(renewals.wait_s(now)),
        }
        if urgency in (Urgency.LATE, Urgency.OVER):
            hint = "when it ends this agent is cut off; look at the proxy's log"
            log.error("certificate.not_renewed", extra={**fields, "hint": hint})
        else:
            log.info("certificate.not_renewed", extra=fields)
