"""For how long a stream may go on, and what its user is told before it ends. Pure.

Three clocks run: silence (`idle`, payload only; pings count for nothing), age (`max_duration`) and
the user's login. The first two end the stream here; the login's end is the live registry's to act
on, and is only announced here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_proxy.routing import TcpTarget

__all__ = ["NOTICE_S", "Stop", "Terms", "span"]

# People are told this long before: enough to save a file, and to log in again.
NOTICE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream must end. `end` is for the access log, `reason` for the person."""

    code: int
    end: str
    reason: str


class Terms:
    """The clocks of one stream. Times are seconds since the epoch.

    Attributes:
        due: When `check` has something to do next; -inf for as soon as possible.
    """

    __slots__ = (
        "_again",
        "_moved",
        "_moved_at",
        "_opened",
        "_target",
        "_told_age",
        "_told_login",
        "due",
    )

    def __init__(self, target: TcpTarget, opened: float, *, again: str) -> None:
        """`again` says what the user does for a new login."""
        self._target = target
        self._again = again
        self._opened = opened
        # Bytes that had been relayed at the last check, and when they last became more.
        self._moved = 0
        self._moved_at = opened
        self._told_age = False
        self._told_login = False
        self.due = -math.inf

    def change(self, target: TcpTarget) -> None:
        """A new configuration has other limits for the backend; they hold for open streams too."""
        self._target = target
        self.due = -math.inf

    def check(self, now: float, *, moved: int, login_end: float) -> tuple[list[str], Stop | None]:
        """What to tell the user now, and whether to stop.

        Args:
            now: Seconds since the epoch.
            moved: Bytes relayed so far, both ways.
            login_end: When the user's login ends for this backend; inf for never.
        """
        target = self._target
        if moved != self._moved:
            self._moved, self._moved_at = moved, now
        if target.idle is not None and now - self._moved_at >= target.idle:
            limit = span(target.idle)
            return [], Stop(Code.IDLE, "idle_timeout", f"closed after {limit} without data")
        age = target.max_duration or math.inf
        if now >= self._opened + age:
            limit = span(age)
            reason = f"closed after {limit}, the limit that is set for {target.backend.name}"
            return [], Stop(Code.MAX_DURATION, "max_duration", reason)
        notices = self._notices(now, age, login_end)
        self._plan(now, age, login_end)
        return notices, None

    def _notices(self, now: float, age: float, login_end: float) -> list[str]:
        notices: list[str] = []
        age_end = self._opened + age
        if age <= NOTICE_S or now < age_end - NOTICE_S:
            # A life that is shorter than the notice was to be expected.
            self._told_age = age <= NOTICE_S
        elif not self._told_age:
            self._told_age = True
            notices.append(f"this connection ends at {_clock(age_end)}, as old as it may become")
        if now < login_end - NOTICE_S:
            self._told_login = False
        elif not self._told_login:
            self._told_login = True
            notices.append(f"your login ends at {_clock(login_end)}; {self._again}")
        return notices

    def _plan(self, now: float, age: float, login_end: float) -> None:
        if self._target.idle is not None:
            # Silence is found by looking.
            self.due = now
            return
        self.due = self._opened + age - (0.0 if self._told_age else NOTICE_S)
        if not self._told_login:
            self.due = min(self.due, login_end - NOTICE_S)


def span(seconds: float) -> str:
    """A duration for people: in the biggest unit in which it is whole."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _clock(when: float) -> str:
    # Whoever reads it may be anywhere, and so may we.
    return datetime.fromtimestamp(when, UTC).strftime("%H:%M UTC")
