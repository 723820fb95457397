"""`status.json`: what the running agent says about itself, for `heim-agent status`.

Written when something changes, at most once in PAUSE_S, whole or not at all; a disk that takes
nothing is told once and otherwise ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["AGAIN_S", "FILE", "PAUSE_S", "Report"]

log = logging.getLogger(__name__)

FILE: Final = "status.json"

PAUSE_S: Final = 1.0
"""A link that comes and goes must not wear out the card of a small machine."""

AGAIN_S: Final = 5.0
"""Until what could not be written is tried again: a disk that was full, no descriptor left."""


class Report:
    """The file, kept up to date with what `describe` gives."""

    __slots__ = ("_broken", "_describe", "_path", "_timer", "_written")

    def __init__(self, directory: str, describe: Callable[[], object]) -> None:
        """Prepare; nothing is written before `change`."""
        self._path: Final = f"{directory}/{FILE}"
        self._describe = describe
        self._timer: asyncio.TimerHandle | None = None
        self._written = float("-inf")
        self._broken = False

    def change(self) -> None:
        """Something has changed: write soon."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            delay = max(0.0, self._written + PAUSE_S - loop.time())
            self._timer = loop.call_later(delay, self.write)

    def write(self) -> None:
        """Write now."""
        self._stop()
        self._written = asyncio.get_running_loop().time()
        fresh = f"{self._path}.new"
        text = json.dumps(self._describe(), indent=1).encode()
        try:
            # Not synced: after a crash it is out of date anyway.
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(fresh, flags, 0o644), "wb") as file:
                file.write(text)
            os.replace(fresh, self._path)
        except OSError as e:
            if not self._broken:
                log.warning("status.unwritten", extra={"path": self._path, "reason": str(e)})
            self._broken = True
            # Nothing else may change for days, and the file would go on telling of before.
            self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self.write)
        else:
            self._broken = False

    def remove(self) -> None:
        """The agent stops: whoever looks finds nothing."""
        self._stop()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
