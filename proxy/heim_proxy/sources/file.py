"""A configuration file, and every file it names, watched by looking at their content.

Looking beats watching: kubelet replaces a directory link above the file, which a watch on the file
never reports, editors replace files, and network file systems report nothing. So we look twice a
second, in a thread, because a look at a dead network mount may hang.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from heim_config.load import load_text, read_text
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_proxy.certs.load import CertificateFiles
from heim_proxy.sources.base import Loaded, Rejected, Update

__all__ = ["FileSource"]

# A change is reported within a second: one interval, the settling time, and the loading.
INTERVAL_S: Final = 0.5
# A program that writes in place shows half a file for a moment, and half a list of roles may be a
# valid configuration; content counts only once it was the same this long.
SETTLE_S: Final = 0.15
# A file that never stops changing (somebody logs into it) is loaded as it is after so many tries.
MAX_SETTLES: Final = 10
# File times are coarse (up to 2 s on some file systems): a file changed this recently may change
# again without its time showing it, so its content is read even when its time is the same.
FRESH_S: Final = 2.5
MAX_FILE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at a file: what stat said, the content's hash, and whether stat can be trusted."""

    mark: tuple[int, ...] | None
    digest: str
    settled: bool


class FileSource:
    """Loads `path`, again when its content or that of a file it names has changed.

    A change is reported at most 1 s after it was complete. What cannot be loaded is reported as
    rejected, once; the reader keeps the last good configuration.
    """

    boot: Config | None = None
    trouble = ""

    def __init__(
        self,
        path: Path,
        *,
        interval_s: float = INTERVAL_S,
        read: Callable[[Path], Loaded] | None = None,
        secrets: Path | None = None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            path: The file.
            interval_s: Between two looks.
            read: Makes a configuration of the file, or raises ConfigError; called in a thread. By
                default the file is all of it.
            secrets: Where the directories of Secrets are that certificates name.
        """
        self._reader = read or _whole
        self.secrets = secrets
        self._path = path.absolute()
        self._interval_s = interval_s
        self._settle_s = min(SETTLE_S, interval_s)
        self._wanted = asyncio.Event()
        self._files: tuple[Path, ...] = (self._path,)
        self._certificates: tuple[Path, ...] = ()
        self._seen: dict[Path, _Seen] = {}
        self._known: dict[Path, str] = {}

    @property
    def name(self) -> str:
        """The file's path."""
        return str(self._path)

    async def close(self) -> None:
        """Nothing is open."""

    def look(self) -> None:
        """Load again now, changed or not. Call it on the event loop's thread."""
        self._wanted.set()

    def refused(self) -> None:
        """Report again when a certificate of the last update changes, too."""
        self._files = (*self._files, *self._certificates)

    async def updates(self) -> AsyncIterator[Update]:
        """The configuration now, and then each change; never ends."""
        update = await asyncio.to_thread(self._load)
        yield update
        while True:
            forced = await self._pause()
            if await self._changed() or forced:
                last, update = update, await asyncio.to_thread(self._load)
                if forced or isinstance(update, Loaded) or update != last:
                    yield update

    async def _pause(self) -> bool:
        """Wait for the next look; true when somebody asked for it."""
        try:
            async with asyncio.timeout(self._interval_s):
                await self._wanted.wait()
        except TimeoutError:
            return False
        self._wanted.clear()
        return True

    async def _changed(self) -> bool:
        """Whether any content differs from what was loaded, once it has stopped changing."""
        now = await asyncio.to_thread(self._hashes)
        if now == self._wanted_hashes():
            return False
        for _ in range(MAX_SETTLES):
            await asyncio.sleep(self._settle_s)
            before, now = now, await asyncio.to_thread(self._hashes)
            if now == before:
                break
        # An editor that wrote the same content again has changed nothing.
        return now != self._wanted_hashes()

    def _wanted_hashes(self) -> dict[Path, str | None]:
        return {path: self._known.get(path) for path in self._files}

    def _hashes(self) -> dict[Path, str | None]:
        """The content hash of each watched file now; an unreadable one has its error instead."""
        return {path: self._look_at(path).digest for path in self._files}

    def _look_at(self, path: Path) -> _Seen:
        self._seen[path] = _look(path, self._seen.get(path))
        return self._seen[path]

    def _load(self) -> Update:
        """Load what is there; runs in a thread, while nothing else of this source runs."""
        # Hashes are taken before loading: what changes in between is a change at the next look.
        before = self._hashes()
        update, files, certificates = self._read()
        self._files = tuple(dict.fromkeys((self._path, *files)))
        self._certificates = certificates
        every = (*self._files, *certificates)
        self._seen = {path: seen for path, seen in self._seen.items() if path in every}
        # A file that is new to us is hashed now, before the snapshot's builder reads it. After a
        # rejection it stays unknown, because it may have changed since it was checked: the next
        # look loads once more, and says so only if the outcome is another one.
        fresh = isinstance(update, Loaded)
        self._known = {
            path: before.get(path) or (self._look_at(path).digest if fresh else "unknown")
            for path in every
        }
        return update

    def _read(self) -> tuple[Update, tuple[Path, ...], tuple[Path, ...]]:
        """The update, the files whose change makes another one, and its certificates' files."""
        try:
            loaded = self._reader(self._path)
        except ConfigError as error:
            # Its files are watched too: a missing secret that appears makes it loadable. Where
            # they are not known, those of before still are.
            return Rejected(error.problems), error.files or self._files, ()
        pairs = CertificateFiles.listed(loaded.config.tls.certificates, self.secrets)
        certificates = tuple(path for pair in pairs for path in (pair.cert, pair.key))
        return loaded, loaded.config.files(), certificates


def _whole(path: Path) -> Loaded:
    text = read_text(path)
    config = load_text(text, file=path, check_files=True)
    if config.source is not None:
        # Told here, because a proxy that was started without would serve no backend at all.
        raise ConfigError(
            [Problem(str(path), None, "source", "is new: changing it needs a restart")]
        )
    return Loaded(config, hashlib.sha256(text.encode()).hexdigest())


def _look(path: Path, last: _Seen | None) -> _Seen:
    started = time.time()
    try:
        found = path.stat()
        mark = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if last is not None and last.settled and last.mark == mark:
            return last
        if not stat.S_ISREG(found.st_mode):
            return _Seen(mark, "not a regular file", settled=False)
        return _Seen(mark, _digest(path), settled=started - found.st_ctime > FRESH_S)
    except OSError as error:
        return _Seen(None, f"error {error.errno}", settled=False)


def _digest(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.sha256(file.read(MAX_FILE_BYTES)).hexdigest()
