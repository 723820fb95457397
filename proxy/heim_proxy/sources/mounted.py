"""A configuration document in files: the ConfigMap mounted, or whatever looks like it.

kubelet replaces all files at once by renaming the link `..data`, so what is behind the link is read
through one open directory: two files never come from two versions. Without the link, files may be
half written; the index says when they are all there.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from heim_config.layers import MAX_DOCUMENT_BYTES
from heim_proxy.sources.document import (
    INDEX,
    IncompleteError,
    Sheet,
    assemble,
    sha256_of,
    shards_of,
)
from heim_proxy.sources.loss import Loss

__all__ = ["MountedFeed", "read_mounted"]

# As for configuration files: looking beats watching, on every file system.
INTERVAL_S: Final = 0.5


class MountedFeed:
    """Follows a directory; Secrets are somebody else's mounts beside it."""

    def __init__(self, path: Path, secrets: Path, *, interval_s: float = INTERVAL_S) -> None:
        """Follow the document in `path`, with Secrets in `secrets`."""
        self._path = path
        self._interval_s = interval_s
        self.secrets = secrets
        self.sheet: Sheet | None = None
        self._loss = Loss(self.name)

    @property
    def name(self) -> str:
        """The directory."""
        return str(self._path)

    @property
    def trouble(self) -> str:
        """Why there may be a later document."""
        return self._loss.reason

    async def run(self, changed: Callable[[], None]) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                found = await asyncio.to_thread(read_mounted, self._path, self.sheet)
            except IncompleteError as error:
                # A change that is being written settles by itself.
                self._loss.note(str(error), now=time.monotonic(), passing=self.sheet is not None)
            else:
                self._loss.note("", now=time.monotonic())
                if found is not self.sheet:
                    self.sheet = found
                    changed()
            await asyncio.sleep(self._interval_s)

    async def provide(self, names: frozenset[str]) -> None:
        """Nothing to do: they are where they are mounted, or not."""

    async def drop_others(self, names: frozenset[str]) -> None:
        """Nothing to do: they are not ours."""


def read_mounted(path: Path, known: Sheet | None = None) -> Sheet:
    """The document in the directory `path`; `known` itself when it is still that one.

    Raises:
        IncompleteError: When there is none that is whole.
    """
    try:
        directory = _open(path)
        try:
            pieces = {INDEX: _read(directory, INDEX)}
            if known is not None and sha256_of(pieces) == known.sha256:
                return known
            for name in shards_of(pieces):
                pieces[name] = _read(directory, name)
        finally:
            os.close(directory)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(path)
        raise IncompleteError(f"{where} cannot be read: {os.strerror(error.errno or 0)}") from error
    return assemble(pieces)


def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        return os.open(path / "..data", flags)
    except FileNotFoundError:
        return os.open(path, flags)


def _read(directory: int, name: str) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IncompleteError(f"{name} is not a regular file")
        content = file.read(MAX_DOCUMENT_BYTES + 1)
    if len(content) > MAX_DOCUMENT_BYTES:
        raise IncompleteError(f"{name} is larger than {MAX_DOCUMENT_BYTES >> 20} MiB")
    return content
