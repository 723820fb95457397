"""A source that says what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from heim_config.model import Config
from heim_proxy.sources.base import Update

__all__ = ["StaticSource"]


class StaticSource:
    """Reports the updates it is given, in their order."""

    boot: Config | None = None
    secrets: Path | None = None
    trouble = ""

    def __init__(self, first: Update, *, name: str = "static") -> None:
        self._name = name
        self._last = first
        self._waiting: asyncio.Queue[Update] = asyncio.Queue()
        self._waiting.put_nowait(first)

    @property
    def name(self) -> str:
        """What logs call it."""
        return self._name

    def push(self, update: Update) -> None:
        """Report `update` next."""
        self._last = update
        self._waiting.put_nowait(update)

    def look(self) -> None:
        """Report the last update again."""
        self.push(self._last)

    def refused(self) -> None:
        """Nothing to do: what is pushed next comes next."""

    async def close(self) -> None:
        """Nothing is open."""

    async def updates(self) -> AsyncIterator[Update]:
        """The first update, and then each that is pushed."""
        while True:
            yield await self._waiting.get()
