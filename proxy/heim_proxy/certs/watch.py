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
from collections.abc import Iterator, Mapping, Sequence
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
    # What the proxy made for itself, where none of them fits.
    own: Loaded | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Why pairs are not taken, one sentence each; empty when all are."""
        return tuple(slot.problem for slot in self.slots if slot.problem is not None)


class CertWatcher:
    """Loads the configured pairs into a store and keeps them fresh."""

    __slots__ = ("_clock", "_offered", "_own", "_slots", "_store")

    def __init__(self, store: CertStore, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._slots: tuple[_Slot, ...] = ()
        self._own: Loaded | None = None
        # What the store was given last.
        self._offered: tuple[Loaded, ...] = ()

    def prepare(self, files: Sequence[CertificateFiles], *, own: Loaded | None = None) -> Selection:
        """Read pairs without putting them in force; those in force stay as they are.

        For the start and for a changed configuration. Blocks for as long as the files take.

        Args:
            files: The configured pairs.
            own: What to show where none of them fits; with it, none of them has to serve.

        Raises:
            NoCertificateError: When none of them can serve.
        """
        known = {slot.files: slot for slot in self._slots}
        same = {_key(slot.files): slot for slot in self._slots}
        slots = [_known(same.get(_key(one), known.get(one)), one) for one in files]
        selection = Selection(self._look(slots), own)
        if own is None and all(slot.loaded is None for slot in selection.slots):
            reasons = "; ".join(selection.problems) or "none is configured"
            raise NoCertificateError(f"no usable certificate: {reasons}")
        return selection

    def adopt(self, selection: Selection) -> None:
        """Put what `prepare` read in force, and say in the log what changed."""
        self._report(selection)
        own = selection.own
        offered = self._in_order(selection)
        changed = offered != self._offered or own is not self._own
        self._slots, self._own = selection.slots, own
        if changed and (offered or own is not None):
            self._offered = offered
            self._store.install(offered, own=own)

    def _in_order(self, selection: Selection) -> tuple[Loaded, ...]:
        """The pairs that can serve; those that have expired only after all others, or not at all.

        An expired certificate is no better than one of our own, but better than none: people are
        told what is wrong.
        """
        now = self._clock.now()
        pairs = [slot.loaded for slot in selection.slots if slot.loaded is not None]
        good = [pair for pair in pairs if pair.not_after > now]
        over = [pair for pair in pairs if pair.not_after <= now]
        return (*good, *(over if selection.own is None else ()))

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
            self.adopt(Selection(looked, self._own))

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

    @property
    def own(self) -> Loaded | None:
        """What the proxy made for itself, if that may be shown."""
        return self._own

    def pairs(self) -> Iterator[tuple[CertificateFiles, Loaded | None, str | None]]:
        """Each configured pair in order: its files, what is in force, and what is wrong."""
        for slot in self._slots:
            yield slot.files, slot.loaded, slot.problem

    def _look(self, slots: Sequence[_Slot]) -> tuple[_Slot, ...]:
        now = self._clock.now()
        return tuple(_refreshed(slot, now) for slot in slots)

    def _report(self, selection: Selection) -> None:
        before = {_key(slot.files): slot for slot in self._slots}
        own = selection.own
        if own is not None and own is not self._own:
            facts = {"not_after": own.not_after, "fingerprint": own.fingerprint}
            log.info("cert.self_signed", extra=facts | {"cert_file": str(own.files.cert)})
        for slot in selection.slots:
            old = before.get(_key(slot.files), _Slot(slot.files))
            files = {
                "certificate": slot.files.name,
                "cert_file": str(slot.files.cert),
                "key_file": str(slot.files.key),
            }
            if slot.loaded is not None and slot.loaded is not old.loaded:
                shown = slot.loaded.shown_for
                facts = {
                    "names": slot.loaded.names,
                    "hosts": shown,
                    "not_after": slot.loaded.not_after,
                    "fingerprint": slot.loaded.fingerprint,
                }
                log.info("cert.loaded", extra=files | facts)
                if missing := [host for host in slot.files.hosts if host not in shown]:
                    log.warning("cert.names_missing", extra=files | {"hosts": missing})
            if slot.problem is not None and slot.problem != old.problem:
                kept = slot.loaded is not None
                facts = {"reason": slot.problem, "last_good_kept": kept}
                log.error("cert.rejected", extra=files | facts)


def _key(files: CertificateFiles) -> tuple[CertificateFiles, tuple[str, ...]]:
    """What tells two entries apart: the same files may be listed for some names, and for all."""
    return files, files.hosts


def _known(slot: _Slot | None, files: CertificateFiles) -> _Slot:
    """What is known of `files`, perhaps of a time when they were listed for other names."""
    if slot is None or slot.files.hosts == files.hosts:
        return slot or _Slot(files)
    loaded = None if slot.loaded is None else replace(slot.loaded, files=files)
    if loaded is not None and files.hosts and not loaded.shown_for:
        loaded = None
    # Without a mark it is looked at anew: what was refused for a name may do now.
    return _Slot(files, loaded)


def _refreshed(slot: _Slot, now: float) -> _Slot:
    """`slot` after a look at its files: as it was, with a new pair, or with a problem."""
    mark = _mark(slot.files)
    before = slot.loaded
    settled = mark == slot.mark and slot.problem is None and not _young(slot.files, now)
    if settled and (before is None or before.not_after > now):
        return slot
    try:
        if before is not None and digest(slot.files) == before.content and before.not_after > now:
            return replace(slot, mark=mark, problem=None)
        found = load(slot.files, now=now)
        if before is not None and before.not_after > now:
            _require_no_less(before, found)
        return _Slot(slot.files, found, mark)
    except CertificateProblem as problem:
        return replace(slot, mark=mark, problem=problem.reason)


def _require_no_less(before: Loaded, found: Loaded) -> None:
    """A renewed pair must be for every listed name that the one before is for.

    Raises:
        CertificateProblem: It is not, and would break what works.
    """
    lost = [host for host in before.shown_for if found.files.hosts and not found.covers(host)]
    if lost:
        reason = f"{found.files.cert} is no longer for {lost[0]}"
        raise CertificateProblem(found.files, reason)


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
