"""What a source of configurations is: a stream of usable ones and of what was wrong with others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from heim_config.model import Config
from heim_config.problems import Problem
from heim_proxy.sources.document import Sheet

__all__ = ["Feed", "Loaded", "Rejected", "Source", "Update"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration without mistakes.

    `digest` is the SHA-256 of its text in hexadecimal. Secrets that it names are not in it: a
    published hash would let people guess the short ones at leisure. `document_hash` is the SHA-256
    of the configuration document alone, None when the configuration is one file.
    """

    config: Config
    digest: str
    document_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A configuration that cannot be used, with everything that is wrong with it."""

    problems: tuple[Problem, ...]


Update = Loaded | Rejected


class Source(Protocol):
    """Something that knows the configuration and notices when it changes."""

    @property
    def name(self) -> str:
        """What logs call it: the file's path."""
        ...

    @property
    def boot(self) -> Config | None:
        """What is known before the first configuration, from a boot file; else None.

        A source that has one may be waited for: operators can be told meanwhile what is missing.
        """
        ...

    @property
    def secrets(self) -> Path | None:
        """The directory with a directory for each Secret that certificates name, if there is one.

        Each is there by the time the configuration that names it is reported, if it exists.
        """
        ...

    @property
    def trouble(self) -> str:
        """Why changes may go unnoticed now, in one line; "" when they are noticed."""
        ...

    def updates(self) -> AsyncIterator[Update]:
        """The configuration as it is now, at once, and then each change.

        Never ends by itself and never raises because of what a configuration holds. Only one
        iteration at a time.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and tasks; idempotent."""
        ...

    def look(self) -> None:
        """Look now and report what is there, changed or not (SIGHUP)."""
        ...

    def refused(self) -> None:
        """The last loaded update could not be used: its certificates matter too, until the next.

        They have a watcher of their own otherwise, which knows only those that are in use.
        """
        ...


class Feed(Protocol):
    """What brings configuration documents: the latest complete one, for as long as `run` runs."""

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
