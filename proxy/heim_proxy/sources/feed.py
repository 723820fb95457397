"""What brings configuration documents: the API server, or files that somebody mounts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from heim_proxy.sources.document import Sheet

__all__ = ["Feed"]


class Feed(Protocol):
    """The latest complete document, for as long as `run` runs."""

    @property
    def name(self) -> str:
        """What messages call the document: the ConfigMap, or the directory."""
        ...

    @property
    def secrets(self) -> Path:
        """The directory with a directory for each Secret."""
        ...

    @property
    def sheet(self) -> Sheet | None:
        """The latest complete document; None until there was one."""
        ...

    @property
    def trouble(self) -> str:
        """Why there may be a later one, in one line; "" when there is none."""
        ...

    async def run(self, changed: Callable[[], None]) -> None:
        """Follow until cancelled, calling `changed` each time when `sheet` is another one."""
        ...

    async def provide(self, names: frozenset[str]) -> None:
        """See that these Secrets are in `secrets`, as far as they exist, from now on."""
        ...

    async def drop_others(self, names: frozenset[str]) -> None:
        """Only these Secrets are needed any more."""
        ...
