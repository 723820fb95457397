"""What happens again and again is said now and then, with how often it happened in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["EVERY_S", "MOST", "Sparing"]

EVERY_S: Final = 60.0
"""Between two lines about one thing."""

MOST: Final = 4_096
"""Things that are kept apart; the others count as one."""

_KEPT_S: Final = 3_600.0
_EVERYTHING_ELSE: Final = object()


class Sparing:
    """When each of many things was said, and how often it was not since."""

    __slots__ = ("_forgot", "_most", "_said")

    def __init__(self, most: int = MOST) -> None:
        """Nothing was said yet."""
        self._most = most
        self._forgot = -EVERY_S
        # Time and count, longest ago first.
        self._said: dict[Hashable, tuple[float, int]] = {}

    def others(self, thing: Hashable, now: float) -> int | None:
        """How often it was not said since the last time; None: it is not to be said now.

        Args:
            thing: What happened.
            now: Monotonic seconds.
        """
        said = self._said
        if thing not in said and len(said) >= self._most:
            if now - self._forgot >= 1:
                # Not with each of a flood.
                self._forgot = now
                self._forget(now)
                said = self._said
            if len(said) >= self._most:
                thing = _EVERYTHING_ELSE
        at, count = said.get(thing, (-EVERY_S, 0))
        if thing in said and now - at < EVERY_S:
            said[thing] = (at, count + 1)
            return None
        # Behind all that were said earlier.
        said.pop(thing, None)
        said[thing] = (now, 0)
        return count

    def _forget(self, now: float) -> None:
        """What would be said again anyway, and has nothing to add; and what is long ago."""
        self._said = {
            thing: (at, count)
            for thing, (at, count) in self._said.items()
            if now - at < (_KEPT_S if count else EVERY_S)
        }
