"""Whether a source of documents is out of touch: each reason is said once, and that it is over."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["Loss"]

log = logging.getLogger(__name__)

# A set of several ConfigMaps is half written for the moments between two writes.
GRACE_S: Final = 5.0
# An outage has a few reasons in turn (refused, then 503, then nothing). One that finds ever new
# words must not fill the log.
MAX_REASONS: Final = 8


class Loss:
    """What keeps one source from noticing changes, and since when."""

    def __init__(self, source: str, *, grace_s: float = GRACE_S) -> None:
        """Begin in touch; `source` is what logs call it."""
        self._source = source
        self._grace_s = grace_s
        self._since: float | None = None
        self._told: set[str] = set()
        self.reason = ""

    def note(self, reason: str, *, now: float, passing: bool = False) -> None:
        """Take what is wrong now, or "" for nothing.

        Args:
            reason: One line.
            now: Seconds of a clock that never goes back.
            passing: It usually ends by itself: tell only of what lasts.
        """
        if not reason:
            if self._told and self._since is not None:
                lost_s = round(now - self._since, 1)
                facts = {"source": self._source, "lost_s": lost_s}
                log.info("config.source_recovered", extra=facts)
            self._since, self.reason = None, ""
            self._told.clear()
            return
        if self._since is None:
            self._since = now
        if passing and now - self._since < self._grace_s:
            return
        if reason not in self._told and len(self._told) < MAX_REASONS:
            self._told.add(reason)
            log.warning("config.source_lost", extra={"source": self._source, "reason": reason})
        self.reason = reason
