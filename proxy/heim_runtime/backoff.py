"""How long to wait before trying again: exponential, with full jitter, reset after good times."""

from __future__ import annotations

import random
from collections.abc import Callable

from heim_runtime.clock import Clock, SystemClock

__all__ = ["Backoff"]


class Backoff:
    """Delays that grow with each failure, for one peer.

    Each delay is uniform between 0 and a limit that doubles from `first_s` to `ceiling_s` ("full
    jitter": after an outage the clients spread out instead of returning together). A success does
    not reset the limit at once, but only when it lasted `grace_s` seconds: a peer that accepts and
    drops us in a loop would otherwise be hammered at the first delay for ever.
    """

    __slots__ = (
        "_ceiling_s",
        "_clock",
        "_failures",
        "_first_s",
        "_grace_s",
        "_random",
        "_up_since",
    )

    def __init__(
        self,
        *,
        first_s: float = 0.5,
        ceiling_s: float = 30.0,
        grace_s: float = 60.0,
        clock: Clock | None = None,
        fraction: Callable[[], float] | None = None,
    ) -> None:
        """Start with no failures.

        Args:
            first_s: Limit of the first delay, in seconds, above 0.
            ceiling_s: Limit that the delays never exceed, in seconds.
            grace_s: How long a success must last, in seconds, to forget the failures before it.
            clock: Where the time comes from; its monotonic side is read.
            fraction: Gives numbers in [0, 1); tests hand in their own.
        """
        if not 0 < first_s <= ceiling_s:
            raise ValueError(f"need 0 < first_s <= ceiling_s, got {first_s} and {ceiling_s}")
        self._first_s = first_s
        self._ceiling_s = ceiling_s
        self._grace_s = grace_s
        self._clock: Clock = clock or SystemClock()
        # SystemRandom: processes forked or started together must not share a sequence.
        self._random = fraction or random.SystemRandom().random
        self._failures = 0
        self._up_since: float | None = None

    def failed(self) -> float:
        """Note a failure, and return the seconds to wait before the next try."""
        if self._up_since is not None:
            if self._clock.monotonic() - self._up_since >= self._grace_s:
                self._failures = 0
            self._up_since = None
        # The exponent is bounded: 2.0 ** 1024 overflows, and some peers stay away for weeks.
        limit = min(self._ceiling_s, self._first_s * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return self._random() * limit

    def succeeded(self) -> None:
        """Note that it works now; the failures are forgotten if it still does after the grace."""
        if self._up_since is None:
            self._up_since = self._clock.monotonic()

    def __repr__(self) -> str:
        return f"<Backoff failures={self._failures} ceiling_s={self._ceiling_s:g}>"
