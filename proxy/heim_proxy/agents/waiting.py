"""Connections that have not proven who they are yet: few at a time, fairly between addresses.

Whoever reaches the login host can open one and say nothing for 5 s. One address that does this for
all places would keep every agent out, so a newcomer takes a place from an address that has two more
than its own: machines behind different addresses come in, and in a storm from one address the
others are told when to come again. Somebody with as many addresses as there are places could still
have them all: then a newcomer from where an agent has come from before takes the place of somebody
from where none has.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections import OrderedDict
from typing import Final, Generic, TypeVar

__all__ = ["MOST", "WaitingRoom", "network_of", "retry_after"]

MOST: Final = 256
"""Handshakes in flight: with 2.5 ms of CPU for each, the last one waits 0.6 s of its 5. To refuse
one costs half as much, for its TLS: with 64, 5,000 agents were back after 44 s and not after 14
(bench/README.md)."""

_KNOWN: Final = 10_000
"""Networks that are remembered, as many as there may be lanes."""

_RETRY_S: Final = 30

T = TypeVar("T")


class WaitingRoom(Generic[T]):
    """Who is in the middle of a handshake, and from where."""

    __slots__ = ("_known", "_limit", "_networks")

    def __init__(self, limit: int = MOST) -> None:
        self._limit = limit
        # Oldest first, in each.
        self._networks: dict[str, dict[T, None]] = {}
        # Where agents were let in from, latest last.
        self._known: OrderedDict[str, None] = OrderedDict()

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
        self._networks.setdefault(network_of(address), {})[one] = None
        return True

    def crowd(self, address: str) -> T | None:
        """Who should make room for a newcomer from `address`; None when nobody should."""
        network = network_of(address)
        own = len(self._networks.get(network, ()))
        most = max(self._networks.values(), key=len, default={})
        if len(most) > own + 1:
            return next(iter(most))
        if own or network not in self._known:
            return None
        strangers = (places for name, places in self._networks.items() if name not in self._known)
        return next((next(iter(places)) for places in strangers), None)

    def learn(self, address: str) -> None:
        """An agent came from there, and proved that it is one."""
        network = network_of(address)
        self._known[network] = None
        self._known.move_to_end(network)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)

    def leave(self, one: T, address: str) -> None:
        """Give a place back; harmless when there was none."""
        network = network_of(address)
        places = self._networks.get(network)
        if places is not None:
            places.pop(one, None)
            if not places:
                del self._networks[network]


def retry_after() -> int:
    """Seconds, random: those who were refused together must not come back together."""
    return secrets.randbelow(_RETRY_S) + 1


def network_of(address: str) -> str:
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
