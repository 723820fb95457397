"""A tunnel under measurement, as the scenarios see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.process import Program
from bench.tunnel.ground import Ground
from bench.tunnel.place import cpu_seconds
from bench.tunnel.stream import Way

__all__ = ["Missing", "Start", "Tunnel"]


class Missing(Exception):  # noqa: N818 - not a failure: the peer is left out
    """This peer is not installed here; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A running tunnel, one row of a table.

    Without a `client` the load itself speaks TLS (and whatever goes on top) to the server, which is
    then all that is measured. With one, the load is plain TCP and both ends are measured.
    """

    label: str
    way: Way
    server: Program
    client: Program | None = None
    # A note for the reader, under the table.
    note: str = ""

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU time of the server and of the client so far."""
        client = cpu_seconds(self.client) if self.client is not None else 0.0
        return cpu_seconds(self.server), client

    def stop(self) -> None:
        if self.client is not None:
            self.client.stop()
        self.server.stop()


# Starts one tunnel on a ground; raises Missing.
Start = Callable[[Ground], Tunnel]
