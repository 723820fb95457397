"""Keep serving while certificates are renewed: notice changed files, take what is good.

Files are polled, once a second: a watch on a mounted Secret's tls.crt never fires, since kubelet
swaps the `..data` link beside it, and polling works on every file system. Certificate and key are
written one after the other by most tools, so a pair that does not match is no news: the last good
one stays in force and the files are tried again a second later.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from heim_proxy.certs.load import CertificateFiles, CertificateProblem, Loaded, digest, load
from heim_proxy.certs.store import CertStore
from heim_runtime.clock import Clock

__all__ = ["CertWatcher", "NoCertificateError", "Selection"]

log = logging.getLogger(__name__)

POLL_S: Final = 1.0

# A file rewritten within the clock tick of its last change looks unchanged to stat; while the
# change is this young, content decides.
_RACY_S: Final = 2.0

_Mark = tuple[object, ...]


class NoCertificateError(Exception):
    """None of the configured pairs can serve. The message lists each with its reason."""


@dataclass(frozen=True, slots=True)
class _Slot:
    """One configured pair: what is in force, and what its files were when last looked at."""

    files: CertificateFiles
    loaded: Loaded | None = None
    mark: _Mark = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Pairs that were read and can be put in force with `CertWatcher.adopt`."""

    slots: tuple[_Slot, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Why pairs are not taken, one sentence each; empty when all are."""
        return tuple(slot.problem for slot in self.slots if slot.problem is not None)


class CertWatcher:
    """Loads the configured pairs into a store and keeps them fresh."""

    __slots__ = ("_clock", "_slots", "_store")

    def __init__(self, store: CertStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._slots: tuple[_Slot, ...] = ()

    def prepare(self, files: Sequence[CertificateFiles]) -> Selection:
        """Read pairs without putting them in force; those in force stay as they are.

        For the start and for a changed configuration. Blocks for as long as the files take.

        Raises:
            NoCertificateError: When none of them can serve.
        """
        known = {slot.files: slot for slot in self._slots}
        selection = Selection(self._look([known.get(one, _Slot(one)) for one in files]))
        if all(slot.loaded is None for slot in selection.slots):
            reasons = "; ".join(selection.problems) or "none is configured"
            raise NoCertificateError(f"no usable certificate: {reasons}")
        return selection

    def adopt(self, selection: Selection) -> None:
        """Put what `prepare` read in force, and say in the log what changed."""
        self._report(selection.slots)
        before = [slot.loaded for slot in self._slots]
        self._slots = selection.slots
        after = [slot.loaded for slot in self._slots]
        if before != after:
            self._store.install([pair for pair in after if pair is not None])

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await self.poll()

    async def poll(self) -> None:
        """Look at the files once, and take what changed for the better."""
        slots = self._slots
        looked = await asyncio.to_thread(self._look, slots)
        # A new configuration may have come meanwhile; it has read its own pairs.
        if self._slots is slots:
            self.adopt(Selection(looked))

    def not_after(self) -> Mapping[str, float]:
        """When each pair in force expires, in seconds since the epoch, by its name."""
        return {slot.files.name: slot.loaded.not_after for slot in self._slots if slot.loaded}

    def rejected(self) -> Mapping[str, float]:
        """1 for each pair whose files cannot be taken at present, 0 for the others, by name."""
        return {slot.files.name: float(slot.problem is not None) for slot in self._slots}

    @property
    def problems(self) -> tuple[str, ...]:
        """Why files are not taken at present, one sentence each."""
        return Selection(self._slots).problems

    def _look(self, slots: Sequence[_Slot]) -> tuple[_Slot, ...]:
        now = self._clock.now()
        return tuple(_refreshed(slot, now) for slot in slots)

    def _report(self, slots: Sequence[_Slot]) -> None:
        before = {slot.files: slot for slot in self._slots}
        for slot in slots:
            old = before.get(slot.files, _Slot(slot.files))
            files = {
                "certificate": slot.files.name,
                "cert_file": str(slot.files.cert),
                "key_file": str(slot.files.key),
            }
            if slot.loaded is not None and slot.loaded is not old.loaded:
                facts = {
                    "names": slot.loaded.names,
                    "not_after": slot.loaded.not_after,
                    "fingerprint": slot.loaded.fingerprint,
                }
                log.info("cert.loaded", extra=files | facts)
            if slot.problem is not None and slot.problem != old.problem:
                kept = slot.loaded is not None
                facts = {"reason": slot.problem, "last_good_kept": kept}
                log.error("cert.rejected", extra=files | facts)


def _refreshed(slot: _Slot, now: float) -> _Slot:
    """`slot` after a look at its files: as it was, with a new pair, or with a problem."""
    mark = _mark(slot.files)
    if mark == slot.mark and slot.problem is None and not _young(slot.files, now):
        return slot
    try:
        if slot.loaded is not None and digest(slot.files) == slot.loaded.content:
            return replace(slot, mark=mark, problem=None)
        return _Slot(slot.files, load(slot.files, now=now), mark)
    except CertificateProblem as problem:
        return replace(slot, mark=mark, problem=problem.reason)


def _mark(files: CertificateFiles) -> _Mark:
    """What changes when the files do, without reading them."""
    return (
        *_file_mark(files.cert),
        *_file_mark(files.key),
        # A swapped Secret may come to lie on reused inodes; the link's text always differs.
        *(_link(parent / "..data") for parent in {files.cert.parent, files.key.parent}),
    )


def _file_mark(path: Path) -> _Mark:
    try:
        found = path.stat()
    except OSError:
        return (None,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _link(path: Path) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _young(files: CertificateFiles, now: float) -> bool:
    try:
        changed = max(files.cert.stat().st_ctime, files.key.stat().st_ctime)
    except OSError:
        return True
    return now - changed < _RACY_S
