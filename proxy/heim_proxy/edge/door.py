"""The edge's side of the tunnel: who may own a client connection, and where tunnel requests go.

The edge knows people's tunnel and agents' lanes only through these protocols; `app` puts the real
ones in. A request for one of their paths passes the same gates as every other (its head, its path,
its host), then the door's occupant has the connection until it gives it back with
`Front.exchange_done`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from heim_wire.agents import AGENT_PATH as _AGENT_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heim_proxy.edge.connection import Front
    from heim_proxy.live import EndReason, LiveExchange

__all__ = ["AGENT_PATH", "TUNNEL_PATH", "Doors", "Entrant", "Occupant", "TunnelDoor"]

# Served on the login host and on every backend's, by exactly this canonical path.
TUNNEL_PATH: Final = b"/.heim/tunnel/connect"
# Served on the login host alone.
AGENT_PATH: Final = _AGENT_PATH.encode("ascii")


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
    """Where requests for a path of the tunnel go. One per process, on the edge's event loop."""

    def enter(self, front: Front, host: str) -> Entrant:
        """The occupant for a request; `host` is the canonical one that was asked for."""

    def review(self, exchange: LiveExchange) -> EndReason | None:
        """Why a live exchange may not go on under the snapshot now in force.

        None also for what is not this door's.
        """

    def tick(self, now: float) -> None:
        """Twice a second: keep deadlines. `now` is in seconds since the epoch."""

    def drain(self, patience_s: float) -> None:
        """Shutting down: tell every client that it has `patience_s` seconds left."""


class Doors:
    """Several doors as one: which it is, is said by the path that was asked for."""

    __slots__ = ("_by_path",)

    def __init__(self, by_path: Mapping[bytes, TunnelDoor]) -> None:
        self._by_path = by_path

    def at(self, path: bytes) -> TunnelDoor:
        """The door at a path."""
        return self._by_path[path]

    def enter(self, front: Front, host: str) -> Entrant:
        """See `TunnelDoor`."""
        return self.at(front.head.target.path).enter(front, host)

    def review(self, exchange: LiveExchange) -> EndReason | None:
        """See `TunnelDoor`."""
        for door in self._by_path.values():
            reason = door.review(exchange)
            if reason is not None:
                return reason
        return None

    def tick(self, now: float) -> None:
        """See `TunnelDoor`."""
        for door in self._by_path.values():
            door.tick(now)

    def drain(self, patience_s: float) -> None:
        """See `TunnelDoor`."""
        for door in self._by_path.values():
            door.drain(patience_s)
