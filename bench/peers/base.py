"""A server under measurement, as the rest of the harness sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.process import Program

__all__ = ["Entry", "Server"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a table: a way into a server.

    `identity` tells that the server knows who is asking and tells the upstream; the others of a
    kind only pass requests on.
    """

    label: str
    host: str
    identity: bool = False
    tls_only: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `beside` is what it needs to do its work, counted on its own."""

    name: str
    program: Program
    http_port: int
    https_port: int
    access_log: Path
    entries: tuple[Entry, ...]
    # "name=value" of the session cookie when this server has made one.
    cookie: str | None = None
    beside: Program | None = field(default=None)

    def stop(self) -> None:
        self.program.stop()
        if self.beside is not None:
            self.beside.stop()
