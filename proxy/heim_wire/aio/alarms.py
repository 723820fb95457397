"""When channels are to be looked at next: one timer of the loop for all of them.

Ten thousand sessions have a deadline each, and nearly all of them move before they come. A timer
for each woke the process five hundred times a second to find that out.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from weakref import WeakKeyDictionary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["GRAIN_S", "Alarms", "alarms"]

GRAIN_S: Final = 0.25
"""What comes due within the same quarter of a second is looked at together, at its end."""


class Alarms:
    """Callbacks by the moment they are due. One for each loop; see `alarms`."""

    __slots__ = ("_due", "_handle", "_looking", "_slot")

    def __init__(self) -> None:
        """Nothing is due."""
        # By number of the quarter, for as many as deadlines are apart: a hundred.
        self._due: dict[int, dict[Callable[[], None], None]] = {}
        # The timer while something is due, and for which quarter it is.
        self._handle: asyncio.TimerHandle | None = None
        self._slot = 0
        self._looking = False

    def set(self, when: float, callback: Callable[[], None]) -> int:
        """Have `callback` called once, at `when` (monotonic seconds) or up to GRAIN_S later.

        Returns:
            What `cancel` wants to know.
        """
        slot = int(max(when, monotonic()) / GRAIN_S) + 1
        self._due.setdefault(slot, {})[callback] = None
        if not self._looking and (self._handle is None or slot < self._slot):
            self._wait_for(slot)
        return slot

    def cancel(self, slot: int, callback: Callable[[], None]) -> None:
        """Forget what `set` was told, if it was not called yet."""
        due = self._due.get(slot)
        if due is not None:
            due.pop(callback, None)
            if not due:
                del self._due[slot]
                if not self._due:
                    self._stop()

    def _wait_for(self, slot: int) -> None:
        self._stop()
        self._slot = slot
        # The loop is not kept: it is what finds us, and must be free to go.
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(max(0.0, slot * GRAIN_S - monotonic()), self._look)

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _look(self) -> None:
        self._handle = None
        self._looking = True
        now = monotonic()
        for slot in sorted(slot for slot in self._due if slot * GRAIN_S <= now):
            # One may cancel another that is due with it.
            due = self._due.get(slot, {})
            while due:
                callback = next(iter(due))
                del due[callback]
                _call(callback)
            self._due.pop(slot, None)
        self._looking = False
        if self._due:
            self._wait_for(min(self._due))


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except Exception as error:  # noqa: BLE001 - the others are due all the same
        context = {"message": f"{callback!r} failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


_ALARMS: WeakKeyDictionary[asyncio.AbstractEventLoop, Alarms] = WeakKeyDictionary()


def alarms() -> Alarms:
    """Those of the running loop."""
    loop = asyncio.get_running_loop()
    found = _ALARMS.get(loop)
    if found is None:
        found = _ALARMS[loop] = Alarms()
    return found
