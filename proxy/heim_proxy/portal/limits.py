"""Bounds on what strangers can make the portal do: requests per address, rounds per browser."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final

__all__ = ["LoopGuard", "NetworkRate", "RateLimit", "client_key", "network_key"]


def client_key(address: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 of an IPv6 one (S7).

    Whoever has one IPv6 address has 2^64 of them.
    """
    return _key(address, prefix=64)


def network_key(address: str) -> str:
    """What shares one fair part of a bounded room: an IPv4 address, or the /48 of an IPv6 one.

    A site gets a /48, and has 2^16 clients of its own in it.
    """
    return _key(address, prefix=48)


def _key(address: str, *, prefix: int) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, prefix), strict=False))
    return str(parsed)


class RateLimit:
    """A token bucket per client, for a bounded number of clients.

    The default lets an office of 150 people behind one address sign in at once, and then five a
    second; a login is two requests. The least recently seen client is forgotten first, so a flood
    from many addresses costs memory for `MAX_CLIENTS` of them and no more.
    """

    MAX_CLIENTS: Final = 8192

    __slots__ = ("_buckets", "_burst", "_per_second")

    def __init__(self, *, burst: float = 300.0, per_second: float = 10.0) -> None:
        self._burst = burst
        self._per_second = per_second
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def wait(self, key: str, now: float) -> float:
        """Take one; 0 when that was allowed, else the seconds until it will be.

        Args:
            key: From `client_key`.
            now: Monotonic seconds.
        """
        left, seen = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - seen) * self._per_second)
        allowed = left >= 1.0
        self._buckets[key] = (left - 1.0 if allowed else left, now)
        while len(self._buckets) > self.MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1.0 - left) / self._per_second


class NetworkRate:
    """A rate per client and one per network, for what machines ask (S7).

    A rate per client alone is none to whoever has a site's 65,536 IPv6 clients. Behind one IPv4
    address client and network are the same, and the tighter rate counts.
    """

    __slots__ = ("_clients", "_networks")

    def __init__(self, *, client: RateLimit, network: RateLimit) -> None:
        self._clients = client
        self._networks = network

    def wait(self, address: str, now: float) -> float:
        """Take one of each; 0 when that was allowed, else the seconds until it will be.

        Args:
            address: Where the request came from.
            now: Monotonic seconds.
        """
        wait = self._clients.wait(client_key(address), now)
        # Who is over their own rate uses up nothing of their neighbours'.
        return wait if wait > 0 else self._networks.wait(network_key(address), now)


class LoopGuard:
    """Notices a browser that is sent to the same page again and again (H21).

    If the app host does not accept the session it has just been given (a cookie that does not come
    back, clocks apart), the two hosts would redirect for ever. Counted per session, host and path,
    so that ten tabs opened at once are no loop.
    """

    MAX_ROUNDS: Final = 3
    WINDOW_S: Final = 10.0
    MAX_ENTRIES: Final = 4096

    __slots__ = ("_rounds",)

    def __init__(self) -> None:
        self._rounds: OrderedDict[tuple[str, str, str], tuple[int, float]] = OrderedDict()

    def looping(self, sid: str, host: str, path: str, now: float) -> bool:
        """Count one hand-off; whether it is one too many within the window."""
        key = (sid, host, path)
        count, since = self._rounds.pop(key, (0, now))
        if now - since > self.WINDOW_S:
            count, since = 0, now
        looping = count >= self.MAX_ROUNDS
        if not looping:
            self._rounds[key] = (count + 1, since)
        while len(self._rounds) > self.MAX_ENTRIES:
            self._rounds.popitem(last=False)
        return looping
