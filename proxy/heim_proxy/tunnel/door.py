"""The tunnel as a whole: what its streams share, and what is asked of all of them together."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from heim_proxy.tunnel.dialling import Dialling
from heim_proxy.tunnel.entrance import Entrance
from heim_proxy.tunnel.places import Places
from heim_proxy.tunnel.streams import TunnelStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heim_proxy.edge.connection import Front
    from heim_proxy.identity.bearer import Bearers
    from heim_proxy.live import EndReason, LiveExchange
    from heim_proxy.observe.audit import Audit
    from heim_proxy.observe.metrics import Metrics

__all__ = ["Tunnel"]

log = logging.getLogger(__name__)


class Tunnel:
    """The `edge.door.TunnelDoor` of the process. Everything runs on the edge's event loop."""

    def __init__(self, *, bearers: Bearers, audit: Audit) -> None:
        self.bearers = bearers
        self.audit = audit
        self.places = Places()
        # Since the start; for metrics.
        self.opened_total = 0
        self._streams: set[TunnelStream] = set()
        self._up = self._down = 0

    def __len__(self) -> int:
        """Streams that are open."""
        return len(self._streams)

    def enter(self, front: Front, host: str) -> Entrance:
        """See `edge.door.TunnelDoor`."""
        return Entrance(self, front, host)

    def opened(self, stream: TunnelStream) -> None:
        """A stream was answered with 101."""
        self.opened_total += 1
        self._streams.add(stream)

    def closed(self, stream: TunnelStream) -> None:
        """A stream that was open is over."""
        self._streams.discard(stream)
        self._up += stream.bytes_in
        self._down += stream.bytes_out

    def bytes_total(self) -> Mapping[str, float]:
        """Bytes of all streams since the start, open ones included, by direction."""
        open_now = self._streams
        return {
            "up": self._up + sum(stream.bytes_in for stream in open_now),
            "down": self._down + sum(stream.bytes_out for stream in open_now),
        }

    def expose(self, metrics: Metrics) -> None:
        """Say where the figures come from."""
        metrics.expose("heim_tunnel_streams", lambda: len(self))
        metrics.expose("heim_tunnel_streams_opened_total", lambda: self.opened_total)
        metrics.expose("heim_tunnel_bytes_total", self.bytes_total)

    def review(self, exchange: LiveExchange) -> EndReason | None:
        """See `edge.door.TunnelDoor`."""
        return exchange.review() if isinstance(exchange, Dialling | TunnelStream) else None

    def tick(self, now: float) -> None:
        """See `edge.door.TunnelDoor`."""
        for stream in [one for one in self._streams if one.due <= now]:
            try:
                stream.tick(now)
            except Exception:
                # Everybody else's deadlines are still to be kept.
                log.exception("tunnel.tick_failed")
                stream.abort()

    def drain(self, patience_s: float) -> None:
        """See `edge.door.TunnelDoor`."""
        for stream in list(self._streams):
            stream.go_away(patience_s)
