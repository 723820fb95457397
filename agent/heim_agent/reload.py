"""Follow agent.toml: read it again when it changes, and keep what is in force if it is wrong."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Final

from heim_agent import config
from heim_agent.config import Settings, SettingsError
from heim_runtime.complaints import Complaint

__all__ = ["LOOK_S", "Follower"]

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""Files are looked at, not watched: that works for mounts, links and NFS (house-style, part 4)."""

Seen = tuple[int, int, int] | None


class Follower:
    """Has `apply` called with every reading that is other than the one in force."""

    def __init__(self, path: str, settings: Settings, apply: Callable[[Settings], None]) -> None:
        """`settings` are in force, just read from `path`."""
        self._path = path
        self._settings = settings
        self._apply = apply
        self._seen = _look(path)
        self._poke = asyncio.Event()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._poke.wait()
            except TimeoutError:
                forced = False
            else:
                forced = True
                self._poke.clear()
            self.check(forced=forced)

    def poke(self) -> None:
        """SIGHUP: read it now, changed or not."""
        self._poke.set()

    def check(self, *, forced: bool = False) -> bool:
        """Look once; whether other settings are in force now."""
        seen = _look(self._path)
        if seen == self._seen and not forced:
            return False
        self._seen = seen
        try:
            fresh = config.load(self._path)
        except SettingsError as error:
            log.error(  # noqa: TRY400 - a file's mistakes, not ours
                "settings.refused",
                extra={"problems": list(error.problems), "effect": "the ones before stay in force"},
            )
            return False
        except Complaint as complaint:
            log.error(  # noqa: TRY400
                "settings.refused",
                extra={"problems": [complaint.text], "effect": "the ones before stay in force"},
            )
            return False
        if fresh == self._settings:
            if forced:
                log.info("settings.unchanged", extra={"file": self._path})
            return False
        self._settings = fresh
        self._apply(fresh)
        log.info(
            "settings.applied",
            extra={"file": self._path, "targets": sorted(fresh.targets), "lanes": fresh.lanes},
        )
        return True


def _look(path: str) -> Seen:
    try:
        about = os.stat(path)
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino
