"""Notices that somebody else renewed the agent's certificate file.

Configuration management copies one, a mounted secret changes, or another program of ours did it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os

from heim_agent.identity import CERTIFICATE, Identity
from heim_runtime.complaints import Complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["LOOK_S", "Watch"]

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
"""Files are looked at, not watched: that works for mounts, links and NFS (house-style, part 4)."""

_SAVE_EVERY: Final = 6


class Watch:
    """Takes newer certificates from the identity's files into force."""

    __slots__ = ("_identity", "_seen")

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._seen = self._look()

    async def run(self) -> None:
        """Look until cancelled; and save again what a full disk did not take."""
        for count in itertools.count(1):
            await asyncio.sleep(LOOK_S)
            self.check()
            if self._identity.unsaved and count % _SAVE_EVERY == 0:
                self._identity.save()

    def check(self) -> bool:
        """Look once; whether a newer certificate was taken."""
        seen = self._look()
        if seen == self._seen:
            return False
        self._seen = seen
        identity = self._identity
        try:
            found = Identity.load(identity.places)
        except Complaint as complaint:
            # Half of it is there: the other half follows.
            log.warning("identity.unreadable", extra={"reason": complaint.text})
            return False
        if found.key.thumbprint != identity.key.thumbprint:
            hint = "restart heim-agent to be the new one"
            log.error("identity.replaced", extra={"fingerprint": found.key.fingerprint,
                                                  "hint": hint})  # fmt: skip
            return False
        if found.expires <= identity.expires:
            return False
        identity.renew(found.certificate)
        self._seen = self._look()
        log.info("certificate.reloaded", extra={"expires": found.expires})
        return True

    def _look(self) -> tuple[tuple[int, int, int] | None, ...]:
        places = self._identity.places
        found: list[tuple[int, int, int] | None] = []
        for directory in (places.state, places.seed):
            try:
                about = os.stat(f"{directory}/{CERTIFICATE}")
            except OSError:
                found.append(None)
            else:
                found.append((about.st_mtime_ns, about.st_ino, about.st_size))
        return tuple(found)
