"""Connections that have not proven who they are yet: few at a time, fairly between addresses.

Whoever reaches the login host can open one and say nothing for 5 s. One address that does this for
all places would keep every agent out, so a newcomer takes a place from an address that has two more
than its own: machines behind different addresses come in, and in a storm from one address the
others are told when to come again.
"""

from __future__ import annotations

import ipaddress
import secrets
from typing import Final, Generic, TypeVar

__all__ = ["MOST", "WaitingRoom", "retry_after"]

MOST: Final = 256
"""Handshakes in flight: with 2.5 ms of CPU for each, the last one waits 0.6 s of its 5. To refuse
one costs half as much, for its TLS: with 64, 5,000 agents were back after 44 s and not after 14
(bench/README.md)."""

_RETRY_S: Final = 30

T = TypeVar("T")


class WaitingRoom(Generic[T]):
    """Who is in the middle of a handshake, and from where."""

    __slots__ = ("_limit", "_networks")

    def __init__(self, limit: int = MOST) -> None:
        self._limit = limit
        # Oldest first, in each.
        self._networks: dict[str, dict[T, None]] = {}

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._networks.values()))

    def everybody(self) -> list[T]:
        """A copy, so that they may leave while it is walked."""
        return [one for places in self._networks.values() for one in places]

    def enter(self, one: T, address: str) -> bool:
        """Take a place; False when there is none. See `crowd` for what may be done then."""
        if len(self) >= self._limit:
            return False
        self._networks.setdefault(_network(address), {})[one] = None
        return True

    def crowd(self, address: str) -> T | None:
        """Who should make room for a newcomer from `address`; None when nobody should."""
        own = len(self._networks.get(_network(address), ()))
        most = max(self._networks.values(), key=len, default={})
        return next(iter(most)) if len(most) > own + 1 else None

    def leave(self, one: T, address: str) -> None:
        """Give a place back; harmless when there was none."""
        network = _network(address)
        places = self._networks.get(network)
        if places is not None:
            places.pop(one, None)
            if not places:
                del self._networks[network]


def retry_after() -> int:
    """Seconds, random: those who were refused together must not come back together."""
    return secrets.randbelow(_RETRY_S) + 1


def _network(address: str) -> str:
    """What has one fair part of the room: an IPv4 address, or an IPv6 /48, as any site gets one.

    Whoever has a /48 could take every place with one handshake from each of its 65,536 /64s.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 48), strict=False))
