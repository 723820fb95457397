"""The servers that are compared, each started with an ordinary configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from bench.peers import caddy, haproxy, heim, nginx
from bench.peers.base import Server
from bench.site import Site

__all__ = ["BASELINE", "PEERS", "WITH_AUTH"]

# What the others are divided by.
BASELINE: Final = "nginx"
WITH_AUTH: Final = "nginx+auth"

PEERS: Final[Mapping[str, Callable[[Site], Server]]] = MappingProxyType(
    {
        "heim": heim.start,
        BASELINE: nginx.start,
        WITH_AUTH: nginx.start_with_auth,
        "haproxy": haproxy.start,
        "caddy": caddy.start,
    }
)
