"""Sockets that only this machine can reach, or none at all.

Everything the demo listens on comes from here: its provider signs anybody in who asks nicely, so a
listener that another machine could reach would be a hole, not an inconvenience.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = [
    "LOOPBACK",
    "LoopbackResolver",
    "NotLoopbackError",
    "free_port",
    "listen",
    "require_loopback",
]

LOOPBACK: Final = "127.0.0.1"

BACKLOG: Final = 128
"""Pending connections per demo listener; one person and a few tools use it."""


class NotLoopbackError(ValueError):
    """A demo listener was asked to leave this machine."""


def require_loopback(address: str) -> None:
    """Refuse every address that is not literally a loopback address.

    Names are refused too, "localhost" included: what a name resolves to is somebody else's choice.

    Raises:
        NotLoopbackError: always when `address` is anything else.
    """
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise NotLoopbackError(f"the demo listens on loopback only, not on {address!r}")


def listen(address: str = LOOPBACK, port: int = 0) -> socket.socket:
    """A listening socket on a loopback address; the caller closes it.

    Args:
        address: A literal loopback address.
        port: 0 takes any free port.

    Raises:
        NotLoopbackError: when another machine could reach the address.
        OSError: when the port is taken.
    """
    require_loopback(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def free_port(wanted: int, *, taken: frozenset[int] = frozenset()) -> int:
    """`wanted` when nothing listens there on loopback, else a port that was free just now.

    Args:
        wanted: The port people would like to see in their URLs.
        taken: Ports already promised to another listener.

    Raises:
        OSError: when the kernel has no port left to give.
    """
    if wanted not in taken:
        try:
            listen(port=wanted).close()
        except OSError as error:
            # EACCES: a privileged port asked for without root; another one serves as well.
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
        else:
            return wanted
    while True:
        sock = listen()
        port: int = sock.getsockname()[1]
        sock.close()
        if port not in taken:
            return port


class LoopbackResolver(AbstractResolver):
    """Resolves `*.localhost` to loopback, as RFC 6761 6.3 asks, and nothing else.

    getaddrinfo of glibc answers for `localhost` but for no name below it.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The one loopback address, for names that end in `.localhost`."""
        if host != "localhost" and not host.endswith(".localhost"):
            raise OSError(None, f"the demo does not look up {host}")
        return [
            ResolveResult(
                hostname=host,
                host=LOOPBACK,
                port=port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing is held."""
