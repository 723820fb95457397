"""Compares the targets of agent.toml with the proxy's while the agent runs, and tells the log."""

from __future__ import annotations

import logging
import time

from heim_agent.differences import Differences

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final

    from heim_agent.lane import Grant

__all__ = ["Comparison"]

log = logging.getLogger(__name__)

# Lines in the log in a minute: the proxy chooses how often it says another list.
_LINES: Final = 10
_LINES_S: Final = 60.0


class Comparison:
    """Tells the log when the names of agent.toml and of the proxy begin to differ otherwise."""

    __slots__ = ("_differed", "_lines", "_served")

    def __init__(self) -> None:
        """Nothing is compared before `serve`."""
        self._served: tuple[str, ...] | None = None
        self._differed = Differences()
        self._lines: list[float] = []

    @property
    def served(self) -> list[str] | None:
        """What `serve` said last, sorted."""
        return None if self._served is None else list(self._served)

    def serve(self, targets: Iterable[str]) -> None:
        """What agent.toml has from now on."""
        self._served = tuple(sorted(targets))

    def look(self, grants: Iterable[Grant]) -> None:
        """Compare with what the lanes that are ready were told; nothing without one."""
        told = list(grants)
        if self._served is None or not told:
            return
        asked = {name for grant in told for name in grant.targets}
        whole = all(grant.whole for grant in told)
        differences = Differences.between(asked, self._served, whole=whole)
        if differences == self._differed:
            return
        self._differed = differences
        now = time.monotonic()
        self._lines = [then for then in self._lines if now - then < _LINES_S]
        if not differences or len(self._lines) >= _LINES:
            return
        self._lines.append(now)
        log.warning(
            "settings.differ",
            extra={
                "missing": list(differences.missing),
                "unasked": list(differences.unasked),
                "hint": ". ".join(differences.lines()),
            },
        )
