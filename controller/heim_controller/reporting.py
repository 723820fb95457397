"""Diagnostics to Events: each told once, again after an hour while it lasts, never twice in a row.

API servers delete Events after an hour. What was told stands, as a hash, in the ConfigMap that we
write: a restart, or another leader, does not say everything again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from heim_controller.kube.events import EventKind
from heim_controller.kube.resources import Manifest
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Ref
from heim_runtime.clock import Clock, SystemClock

__all__ = ["ACTION", "Reporter"]

log = logging.getLogger(__name__)

# What Events say that we were doing.
ACTION: Final = "Translate"

# As long as API servers keep Events.
REMIND_S: Final = 3600.0


class Recording(Protocol):
    """Somebody who writes Events: `kube.events.Recorder`."""

    def record(
        self,
        regarding: Mapping[str, Any],
        *,
        type: EventKind,  # noqa: A002 - the API's word
        reason: str,
        note: str,
        action: str,
    ) -> None:
        """Say something about an object."""
        ...


class Reporter:
    """Tells diagnostics of objects that exist.

    Attributes:
        mark: What was told, and since when, as one word for whoever leads next.
    """

    def __init__(
        self,
        recorder: Recording,
        *,
        find: Callable[[Ref], Manifest | None],
        clock: Clock | None = None,
    ) -> None:
        """Nothing was told yet."""
        self._recorder = recorder
        self._find = find
        self._clock: Clock = clock or SystemClock()
        # When each was told last, in seconds since the epoch.
        self._told: dict[Diagnostic, float] = {}
        self._inherited: tuple[str, float] | None = None
        self.mark = ""

    def inherit(self, mark: str) -> None:
        """Go on from the mark of whoever told before us; one that makes no sense is no mark."""
        digest, _, since = mark.partition(".")
        if digest and since.isascii() and since.isdigit():
            self._inherited = (digest, min(float(since), self._clock.now()))
            self.mark = mark

    def report(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Tell what is new of all there is to say now."""
        now = self._clock.now()
        current = tuple(diagnostics)
        digest = _digest(current)
        if self._inherited is not None:
            before, since = self._inherited
            self._inherited = None
            if before == digest:
                self._told = dict.fromkeys(current, since)
        self._told = {one: self._told[one] for one in current if one in self._told}
        for one in current:
            if now - self._told.get(one, float("-inf")) >= REMIND_S:
                self._told[one] = now
                self._tell(one)
        oldest = min(self._told.values(), default=None)
        self.mark = "" if oldest is None else f"{digest}.{int(oldest)}"

    def _tell(self, one: Diagnostic) -> None:
        found = self._find(one.ref)
        if found is None:
            # A Proxy that does not exist cannot have an Event.
            log.warning(
                "controller.object_missing", extra={"object": str(one.ref), "reason": one.reason}
            )
            return
        self._recorder.record(
            found,
            type="Warning" if one.is_event_warning else "Normal",
            reason=one.reason,
            note=f"{one.field}: {one.message}" if one.field else one.message,
            action=ACTION,
        )


def _digest(diagnostics: Iterable[Diagnostic]) -> str:
    whole = hashlib.sha256()
    for one in diagnostics:
        whole.update(repr((one.ref, one.reason, one.field, one.message)).encode())
    return whole.hexdigest()[:32]
