"""The public sockets of a proxy: https, and http where it is configured."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from heim_config import listeners
from heim_proxy.edge.admission import Admission
from heim_proxy.edge.connection import Front
from heim_proxy.edge.listener import Listener, Network, Peer, create_sockets
from heim_proxy.edge.server import Edge
from heim_proxy.observe.metrics import Metrics

__all__ = ["Listening"]


class Listening:
    """Every listener of the edge; falsy while there is none."""

    def __init__(self) -> None:
        """Nothing is bound before `open`."""
        self._listeners: list[tuple[str, Listener]] = []

    def __len__(self) -> int:
        """How many sockets are bound."""
        return len(self._listeners)

    @property
    def addresses(self) -> list[str]:
        """Where connections are accepted, "host:port", https first."""
        return [f"{host}:{port}" for host, port in (one.address for _, one in self._listeners)]

    def open(
        self, config: listeners.Listeners, edge: Edge, admission: Admission, tls: ssl.SSLContext
    ) -> None:
        """Bind what is configured and accept connections.

        Raises:
            ListenError: An address cannot be listened on; `close` lets go of the others.
        """
        proxy_from = tuple(config.https.proxy_protocol.from_)
        self._bind("https", config.https, edge, admission, tls=tls, proxy_from=proxy_from)
        if config.http is not None:
            self._bind("http", config.http, edge, admission)
        for _, listener in self._listeners:
            listener.start()

    def _bind(
        self,
        name: str,
        config: listeners.HttpsListener | listeners.HttpListener,
        edge: Edge,
        admission: Admission,
        *,
        tls: ssl.SSLContext | None = None,
        proxy_from: tuple[Network, ...] = (),
    ) -> None:
        def factory(peer: Peer) -> Front:
            return Front(edge, peer, secure=tls is not None)

        for sock in create_sockets(config.address.host, config.address.port):
            listener = Listener(
                sock,
                name=name,
                factory=factory,
                admission=admission,
                ssl_context=tls,
                proxy_from=proxy_from,
            )
            self._listeners.append((name, listener))

    def close(self) -> None:
        """Accept no more connections; idempotent."""
        for _, listener in self._listeners:
            listener.close()

    def expose(self, metrics: Metrics) -> None:
        """Say where the metrics of connections come from."""
        metrics.expose("heim_connections", lambda: self._by_name(lambda one: one.open))
        metrics.expose(
            "heim_connections_accepted_total", lambda: self._by_name(lambda one: one.accepted)
        )

    def _by_name(self, read: Callable[[Listener], int]) -> dict[str, float]:
        totals: dict[str, float] = {}
        for name, listener in self._listeners:
            totals[name] = totals.get(name, 0) + read(listener)
        return totals
