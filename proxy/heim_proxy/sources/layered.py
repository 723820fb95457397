"""A boot file and a configuration document, each watched in its way, to one configuration.

The file is looked at like any configuration file, the document comes from a feed. What was in
force last is kept beside the state: with it a proxy starts although nobody can tell it what is in
force now, or although what is there cannot be used.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from heim_config.layers import Boot, Remembered, combine, digest_of, read_boot, read_document
from heim_config.model import Config
from heim_config.problems import ConfigError, Problem
from heim_proxy.sources.base import Feed, Loaded, Update
from heim_proxy.sources.document import Sheet
from heim_proxy.sources.file import INTERVAL_S, FileSource
from heim_proxy.sources.kept import KeptCopy
from heim_runtime.collector import without_collecting
from heim_runtime.tasks import cancel, spawn

__all__ = ["LayeredSource"]

log = logging.getLogger(__name__)

# How long the start waits for the document before it takes the kept copy: an API server that is
# there answers in milliseconds, and a proxy that restarts should serve within seconds.
PATIENCE_S: Final = 3.0
# Before a feed that failed, which is our bug, runs again.
_RESTART_S: Final = 1.0


class LayeredSource:
    """The configuration of a boot file with `source`."""

    def __init__(
        self,
        boot: Boot,
        feed: Feed,
        kept: KeptCopy,
        *,
        interval_s: float = INTERVAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Prepare; nothing is followed yet.

        Args:
            boot: The boot file as it is at the start.
            feed: Where documents come from.
            kept: Where the last one is kept.
            interval_s: Between two looks at the boot file.
            patience_s: How long to wait for a document when there is a kept one.
        """
        self._boot = boot
        self._feed = feed
        self._kept = kept
        self._patience_s = patience_s
        self._files = FileSource(
            boot.file, interval_s=interval_s, read=self._read, secrets=feed.secrets
        )
        self._arrived = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        # The document to load, and the one that was loaded last.
        self._sheet: Sheet | None = None
        self._loaded: Sheet | None = None
        self._refused = False
        self._remembered = Remembered()

    @property
    def name(self) -> str:
        """The boot file and the document."""
        return f"{self._boot.file} with {self._feed.name}"

    @property
    def boot(self) -> Config:
        """The configuration without what the document holds."""
        return self._boot.config

    @property
    def secrets(self) -> Path:
        """Where Secrets are files."""
        return self._feed.secrets

    @property
    def trouble(self) -> str:
        """Why changes of the document may go unnoticed now."""
        if not self._feed.trouble:
            return "" if self._feed.sheet is not None else f"waiting for {self._feed.name}"
        return f"{self._feed.name}: {self._feed.trouble}"

    def look(self) -> None:
        """Load again now, changed or not."""
        self._files.look()

    def refused(self) -> None:
        """Report again when a certificate of the last update changes, too."""
        self._refused = True
        self._files.refused()

    async def close(self) -> None:
        """Stop following."""
        following, self._following = self._following, None
        if following is not None:
            await cancel([following])

    async def updates(self) -> AsyncIterator[Update]:
        """The configuration as soon as there is a document, and then each change."""
        if self._following is None:
            self._following = spawn("config.feed", self._follow())
        copy = await self._begin() if self._sheet is None else None
        async for update in self._files.updates():
            self._refused = False
            names: frozenset[str] = frozenset()
            if isinstance(update, Loaded):
                names = _secrets_of(update.config)
                await self._feed.provide(names)
            yield update
            if isinstance(update, Loaded) and not self._refused:
                await self._in_force(names)
                copy = None
            elif copy is not None:
                # What is there cannot be used, and nothing is in force yet.
                self._take_copy(copy, "the document cannot be used")
                self._files.look()
                copy = None

    async def _begin(self) -> Sheet | None:
        """Wait until there is a document; returns the kept one if that is not it."""
        copy = await asyncio.to_thread(self._kept.read)
        try:
            async with asyncio.timeout(None if copy is None else self._patience_s):
                await self._arrived.wait()
        except TimeoutError:
            assert copy is not None
            self._take_copy(copy, self.trouble)
            return None
        return copy if copy != self._sheet else None

    def _take_copy(self, copy: Sheet, reason: str) -> None:
        facts = {"source": self._feed.name, "document_hash": copy.sha256, "reason": reason}
        log.warning("config.kept_copy", extra=facts)
        self._sheet = copy

    async def _follow(self) -> None:
        while True:
            try:
                await self._feed.run(self._changed)
            except Exception:
                log.exception("task.restarted", extra={"task": "config.feed"})
            await asyncio.sleep(_RESTART_S)

    def _changed(self) -> None:
        before, self._sheet = self._sheet, self._feed.sheet
        self._arrived.set()
        # What is the same as the kept copy changes nothing, and before the first nobody looks yet.
        if before is not None and before != self._sheet:
            self._files.look()

    async def _in_force(self, names: frozenset[str]) -> None:
        await self._feed.drop_others(names)
        sheet, latest = self._loaded, self._feed.sheet
        if sheet is None:
            return
        try:
            await asyncio.to_thread(self._kept.write, sheet)
        except OSError as error:
            facts = {"file": str(self._kept.path), "reason": error.strerror or str(error)}
            log.warning("config.copy_failed", extra=facts)
        if latest is not None and self._sheet == sheet != latest:
            # The kept copy is in force: say again what is wrong with what should be.
            self._sheet = latest
            self._files.look()

    def _read(self, path: Path) -> Loaded:
        """Put both layers together; runs in a thread."""
        sheet = self._loaded = self._sheet
        assert sheet is not None
        boot = read_boot(path)
        if boot.source != self._boot.source:
            raise ConfigError([Problem(str(path), None, "source", "was changed: needs a restart")])
        name = self._feed.name
        with without_collecting():
            document = read_document(sheet.content, name=name, lines=self._remembered.lines)
            config = combine(boot, document, name=name, remembered=self._remembered)
        return Loaded(config, digest_of(boot, sheet.sha256), sheet.sha256)


def _secrets_of(config: Config) -> frozenset[str]:
    return frozenset(one.secret for one in config.tls.certificates if one.secret is not None)
