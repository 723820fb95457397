"""How long to wait before the next attempt of a lane. Decisions only: it is told what happened.

After an outage ten thousand agents come back at once; so delays are random, whoever was asked to
wait waits, and what only a person can mend is not hammered at.
"""

from __future__ import annotations

import random

from heim_agent.endings import Kind
from heim_runtime.backoff import Backoff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from heim_agent.endings import Ending
    from heim_runtime.clock import Clock

__all__ = ["GRACE_S", "Pacer"]

GRACE_S: Final = 60.0
"""A lane that was ready for longer comes back at once; its failures before are forgotten."""

_AT_ONCE_S: Final = 0.25
_FIRST_S: Final = 0.5
_CEILING_S: Final = 30.0
# While the proxy said that it is about to be back.
_EXPECTED_CEILING_S: Final = 5.0
# What only a person can mend; also how soon we see that they did.
_HOPELESS_FIRST_S: Final = 5.0
_HOPELESS_CEILING_S: Final = 300.0
# Who was asked to wait comes up to this fraction later, and at most so many seconds.
_SPREAD: Final = 0.1
_SPREAD_S: Final = 5.0
# Nobody is asked to wait for longer: a wrong header must not switch off an agent for a day.
_LONGEST_WAIT_S: Final = 600.0

_HOPELESS: Final = (Kind.REFUSED, Kind.UNTRUSTED, Kind.SUPERSEDED)


class Pacer:
    """Delays for one lane."""

    __slots__ = ("_clock", "_expected_until", "_fraction", "_hopeless", "_ordinary")

    def __init__(self, clock: Clock, fraction: Callable[[], float] | None = None) -> None:
        """Start with no failures.

        Args:
            clock: Its monotonic side is read.
            fraction: Gives numbers in [0, 1); tests hand in their own.
        """
        self._clock = clock
        self._fraction = fraction or random.SystemRandom().random
        self._expected_until = float("-inf")
        self._forget()

    def _forget(self) -> None:
        self._ordinary = Backoff(
            first_s=_FIRST_S, ceiling_s=_CEILING_S, clock=self._clock, fraction=self._fraction
        )
        self._hopeless = Backoff(
            first_s=_HOPELESS_FIRST_S,
            ceiling_s=_HOPELESS_CEILING_S,
            clock=self._clock,
            fraction=self._fraction,
        )

    def after(self, ending: Ending) -> float:
        """Seconds to wait after `ending`, before the next attempt."""
        now = self._clock.monotonic()
        healthy = ending.lived_s > GRACE_S
        if healthy:
            self._forget()
        if ending.try_for_s:
            self._expected_until = now + (ending.wait_s or 0.0) + min(ending.try_for_s, 600.0)
        if ending.wait_s is not None:
            wait = min(ending.wait_s, _LONGEST_WAIT_S)
            wait += self._fraction() * min(wait * _SPREAD, _SPREAD_S)
            # A peer that says "at once" again and again is not believed.
            return wait if healthy else max(wait, self._backoff(ending, now))
        if healthy and ending.kind not in _HOPELESS:
            return self._fraction() * _AT_ONCE_S
        return self._backoff(ending, now)

    def _backoff(self, ending: Ending, now: float) -> float:
        if ending.kind in _HOPELESS:
            return self._hopeless.failed()
        delay = self._ordinary.failed()
        if now < self._expected_until:
            return min(delay, self._fraction() * _EXPECTED_CEILING_S)
        return delay
