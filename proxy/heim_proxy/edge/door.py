"""The edge's side of the tunnel: who may own a client connection, and where tunnel requests go.

The edge knows the tunnel only through these protocols; `app` puts the real one in. A request for
`TUNNEL_PATH` passes the same gates as every other (its head, its path, its host), then the door's
occupant has the connection until it gives it back with `Front.exchange_done`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.live import EndReason, LiveExchange

__all__ = ["TUNNEL_PATH", "Entrant", "Occupant", "TunnelDoor"]

# Served on the login host and on every backend's, by exactly this canonical path.
TUNNEL_PATH: Final = b"/.heim/tunnel/connect"


class Occupant(Protocol):
    """Has a client connection to itself for a while: an exchange, or a tunnel stream.

    It ends by calling `Front.exchange_done`, after it wrote its answer or set `keep_alive` to
    False. `end_reason` is for the access log; who ends it from outside may set it.
    """

    end_reason: str

    @property
    def request_done(self) -> bool:
        """Whether the request's body has been read to its end."""

    @property
    def upgraded(self) -> bool:
        """Whether the connection has become a byte stream (101)."""

    def client_data(self, data: bytes) -> bytes:
        """Bytes from the client; returns those that belong to the next request."""

    def hold_upstream(self) -> None:
        """The client is slow: write nothing more to it."""

    def release_upstream(self) -> None:
        """The client caught up."""

    def client_gone(self) -> None:
        """The client's connection is gone."""

    def timed_out(self, kind: str) -> None:
        """A deadline passed that was set with `Front.expect`."""


class Entrant(Occupant, Protocol):
    """The occupant of a tunnel request, before it has begun."""

    def begin(self, rest: bytes) -> bytes:
        """Judge the request in `Front.head`; `rest` came after it. Returns bytes it did not use."""


class TunnelDoor(Protocol):
    """Where requests for `TUNNEL_PATH` go. One per process, on the edge's event loop."""

    def enter(self, front: Front, host: str) -> Entrant:
        """The occupant for a request; `host` is the canonical one that was asked for."""

    def review(self, exchange: LiveExchange) -> EndReason | None:
        """Why a live exchange of the tunnel's may not go on under the snapshot now in force."""

    def tick(self, now: float) -> None:
        """Twice a second: keep deadlines. `now` is in seconds since the epoch."""

    def drain(self, patience_s: float) -> None:
        """Shutting down: tell every client that it has `patience_s` seconds left."""
