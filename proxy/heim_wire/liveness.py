"""Whether the peer is still there, and how far away: PING, silence, and a suspended machine.

Any byte is a sign of life. After 10 s of silence comes a PING, after 25 s the peer is dead: a
machine that lost its power says no goodbye. A laptop that slept has no silence to go by, since its
clock stood still as well; the wall clock tells, and the peer gets 3 s to answer.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["DEAD_AFTER", "HELLO_WITHIN", "JUMP", "PING_EVERY", "PROBE", "QUIET", "Liveness"]

# Seconds, all of them.
PING_EVERY: Final = 15.0
QUIET: Final = 10.0
DEAD_AFTER: Final = 25.0
HELLO_WITHIN: Final = 5.0
# More than a loop is ever busy; less than somebody who opens a laptop will wait.
JUMP: Final = 5.0
PROBE: Final = 3.0
# How long a measured round trip is good for, while credit is granted. An upload doubles it by
# filling the queues on the way, and a window that is told the idle one stops growing too early:
# then windows share the link, not the sender's fair queue.
_RTT_AGE: Final = 0.25


class Liveness:
    """What is known about the peer's being there.

    Attributes:
        now: The latest time that anybody told us, in monotonic seconds.
        rtt: Round trip in seconds, as it was measured last.
        greeted: Whether HELLO came.
    """

    __slots__ = (
        "_began", "_dead_at", "_entropy", "_heard", "_measured_at", "_offset", "_ping",
        "_ping_at", "_pinged_at", "_quiet", "greeted", "now", "rtt",
    )  # fmt: skip

    def __init__(self, now: float, entropy: Callable[[int], bytes], quiet: float = QUIET) -> None:
        self._entropy = entropy
        self._quiet = quiet
        self.now = now
        self.rtt: float | None = None
        self.greeted = False
        self._began = self._heard = now
        # A silence ends here, whatever DEAD_AFTER says: set by a probe.
        self._dead_at: float | None = None
        # The PING that is not answered yet, when it went, and when a regular one may go again.
        self._ping: bytes | None = None
        self._pinged_at = now
        self._ping_at = now + self._interval()
        self._measured_at = now - _RTT_AGE
        # Wall clock minus monotonic clock, at the last tick.
        self._offset: float | None = None

    def heard(self, now: float) -> None:
        """Bytes came."""
        self.now = self._heard = now
        self._dead_at = None

    @property
    def deadline(self) -> float:
        """When to call `tick`."""
        # Asked for with every alarm of ten thousand sessions.
        heard, dead_at = self._heard, self._dead_at
        ping = heard + self._quiet
        if ping < self._ping_at:
            ping = self._ping_at
        if dead_at is None:
            dead_at = heard + DEAD_AFTER if self.greeted else self._began + HELLO_WITHIN
        return min(dead_at, ping)

    def tick(self, now: float, wall: float | None) -> tuple[bytes | None, str | None]:
        """What is due: the payload of a PING, or why the peer is dead."""
        # A loop that was busy for so long did not listen either.
        late = now - self.deadline > JUMP
        self.now = now
        if self._slept(now, wall) or late:
            # Silence of a time when nobody listened proves nothing.
            self._dead_at = now + PROBE
            return self._send(now), None
        if now >= self._silence_ends():
            if not self.greeted:
                return None, f"no HELLO within {HELLO_WITHIN:g} s"
            return None, f"nothing was received for {now - self._heard:.0f} s"
        if now >= self._next_ping():
            return self._send(now), None
        return None, None

    def measure(self) -> bytes | None:
        """The payload of a PING, if the round trip should be measured (again) just now."""
        if self._ping is not None or self.now - self._measured_at < _RTT_AGE:
            return None
        return self._send(self.now)

    def pong(self, payload: bytes) -> None:
        """An answer came; one that was not asked for says nothing."""
        if payload != self._ping:
            return
        self._ping = None
        self._measured_at = self.now
        self.rtt = max(self.now - self._pinged_at, 0.0)

    def _send(self, now: float) -> bytes:
        self._ping = self._entropy(8)
        self._pinged_at = now
        self._ping_at = now + self._interval()
        return self._ping

    def _interval(self) -> float:
        # Ten thousand sessions that began together must not ping together.
        return PING_EVERY * (0.9 + 0.2 * int.from_bytes(self._entropy(2), "big") / 0xFFFF)

    def _next_ping(self) -> float:
        return max(self._heard + self._quiet, self._ping_at)

    def _silence_ends(self) -> float:
        if self._dead_at is not None:
            return self._dead_at
        return self._heard + DEAD_AFTER if self.greeted else self._began + HELLO_WITHIN

    def _slept(self, now: float, wall: float | None) -> bool:
        if wall is None:
            return False
        before, self._offset = self._offset, wall - now
        return before is not None and self._offset - before > JUMP
