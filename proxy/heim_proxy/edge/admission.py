"""How many connections may be open at once: in all, and from one client.

A place is taken when a connection is accepted and given back when it is over. Who the client is
may become known only later (a PROXY header says so), so its own limit is claimed separately.
"""

from __future__ import annotations

import ipaddress
import resource
from dataclasses import dataclass
from typing import Final

from heim_proxy.edge.limits import CONNECTIONS, CONNECTIONS_PER_ADDRESS
from heim_proxy.observe.metrics import LabelledCounter

__all__ = ["Admission", "Limits", "Place", "Tally"]

# Descriptors for everything that is not a client or its upstream: logs, store, certificates,
# provider connections, the admin listener.
OTHER_DESCRIPTORS: Final = 256

# Even a process that is allowed next to nothing serves its first few users.
MIN_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections may be open at once, over all listeners."""

    connections: int = CONNECTIONS
    per_client: int = CONNECTIONS_PER_ADDRESS

    @classmethod
    def for_process(cls) -> Limits:
        """The defaults, lowered to what RLIMIT_NOFILE allows: a client may need an upstream too."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY:
            return cls()
        fitting = max((soft - OTHER_DESCRIPTORS) // 2, MIN_CONNECTIONS)
        return cls(connections=min(CONNECTIONS, fitting))


class Tally:
    """How many connections of one listener are open."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open = 0


class Admission:
    """Counts open connections against the limits. One per process, shared by its listeners."""

    __slots__ = ("_clients", "_limits", "connections", "handshake_failures", "refused")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._clients: dict[str, int] = {}
        self.connections = 0
        # Reasons: total_limit, client_limit, proxy_header.
        self.refused = LabelledCounter()
        # Reasons: timeout, tls, closed.
        self.handshake_failures = LabelledCounter()

    def enter(self, tally: Tally) -> Place | None:
        """Take a place, counted in `tally` too; None when there is none."""
        if self.connections >= self._limits.connections:
            self.refused.add("total_limit")
            return None
        self.connections += 1
        tally.open += 1
        return Place(self, tally)

    @property
    def clients(self) -> int:
        """How many distinct clients have a connection."""
        return len(self._clients)

    def take(self, key: str) -> bool:
        """Count one more connection for a client; False when it has too many. For `Place`."""
        count = self._clients.get(key, 0)
        if count >= self._limits.per_client:
            self.refused.add("client_limit")
            return False
        self._clients[key] = count + 1
        return True

    def give_back(self, key: str | None) -> None:
        """Count one connection less, for its client too if that was known. For `Place`."""
        self.connections -= 1
        if key is None:
            return
        count = self._clients[key] - 1
        if count:
            self._clients[key] = count
        else:
            # Memory is bounded by the connections open, not by the clients ever seen.
            del self._clients[key]


class Place:
    """One open connection's share of the limits."""

    __slots__ = ("_admission", "_key", "_tally")

    def __init__(self, admission: Admission, tally: Tally) -> None:
        self._admission: Admission | None = admission
        self._tally = tally
        self._key: str | None = None

    def claim(self, ip: str) -> bool:
        """Count this connection as the client's at `ip`; False when that has too many."""
        key = _client_key(ip)
        if self._admission is None or not self._admission.take(key):
            return False
        self._key = key
        return True

    def leave(self) -> None:
        """Give the place back; does nothing the second time."""
        admission, self._admission = self._admission, None
        if admission is not None:
            self._tally.open -= 1
            admission.give_back(self._key)


def _client_key(ip: str) -> str:
    """What the per-client limit counts by: the IPv4 address, or the IPv6 /64.

    A household or a virtual machine gets a /64 and may use any address in it.
    """
    if ":" not in ip:
        return ip
    return ipaddress.IPv6Address(ip).packed[:8].hex()
