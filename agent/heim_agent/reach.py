"""Connect to a target: a name with all its addresses, an address, or a unix socket.

Addresses are raced a quarter of a second apart, families in turns (RFC 8305). uvloop has no such
race, so it is here, and the same on both loops.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import os
import socket
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest
from typing import Any, Final

from heim_agent.targets import Target
from heim_runtime.tasks import spawn
from heim_wire.errors import Code

__all__ = ["NotReached", "connect"]

_HEAD_START_S: Final = 0.25
"""RFC 8305 (5): before the next address is tried as well."""

_MAX_ADDRESSES: Final = 16
"""A name with more is a load balancer's; the first ones are enough to find one that answers."""

Place = tuple[socket.AddressFamily, Any]


class NotReached(Exception):  # noqa: N818 - a thing that happened, not a mistake
    """There is no connection to the target.

    Attributes:
        code: A number of `heim_wire.errors.Code`.
        reason: In words, without the address, which is not for the user to know.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


async def connect(
    target: Target,
    factory: Callable[[], asyncio.BaseProtocol],
    *,
    timeout_s: float,
    told_s: float | None = None,
) -> asyncio.Transport:
    """A transport to the target, whose protocol is made by `factory`; the caller closes it.

    Args:
        target: What to connect to.
        factory: Makes the protocol.
        timeout_s: For everything, the name included.
        told_s: How long it took in vain, in the words of the failure; `timeout_s` unless given.

    Raises:
        NotReached: With the most telling of the reasons.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            if target.path:
                made = await loop.create_unix_connection(factory, target.path)
            elif _is_address(target.host):
                # The loop connects by itself, in one step and without a thread for the resolver.
                made = await loop.create_connection(factory, target.host, target.port)
            else:
                made = await _by_name(factory, target)
            return made[0]
    except TimeoutError as e:
        waited = timeout_s if told_s is None else told_s
        raise NotReached(Code.DIAL_TIMEOUT, f"no answer within {waited:.3g} s") from e
    except socket.gaierror as e:
        raise NotReached(Code.DNS, "its name does not resolve") from e
    except UnicodeError as e:
        raise NotReached(Code.DNS, "its name is not a host name") from e
    except OSError as e:
        raise _reason(e) from e


@functools.lru_cache(maxsize=1024)
def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _by_name(
    factory: Callable[[], asyncio.BaseProtocol], target: Target
) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
    places = await _resolve(target.host, target.port)
    # A race of one would cost three tasks' worth for every stream.
    sock = await (_connect(*places[0]) if len(places) == 1 else _race(places))
    try:
        return await asyncio.get_running_loop().create_connection(factory, sock=sock)
    except BaseException:
        sock.close()
        raise


async def _resolve(host: str, port: int) -> list[Place]:
    """The places to try, IPv6 and IPv4 in turns. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    places: list[Place] = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
    if not places:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    # The resolver has sorted them (RFC 6724): its first choice stays first.
    first = [place for place in places if place[0] == places[0][0]]
    other = [place for place in places if place[0] != places[0][0]]
    turns = chain.from_iterable(zip_longest(first, other))
    return [place for place in turns if place is not None][:_MAX_ADDRESSES]


async def _race(places: Iterable[Place]) -> socket.socket:
    """The first that connects. Raises the first attempt's OSError when none does."""
    waiting = list(places)
    tasks: list[asyncio.Task[socket.socket | OSError]] = []
    try:
        while True:
            if waiting:
                tasks.append(spawn("agent-connect", _attempt(*waiting.pop(0))))
            pending = [task for task in tasks if not task.done()]
            if pending:
                await asyncio.wait(
                    pending,
                    timeout=_HEAD_START_S if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
            for task in tasks:
                if task.done() and isinstance(won := task.result(), socket.socket):
                    tasks.remove(task)
                    return won
            if not waiting and all(task.done() for task in tasks):
                break
        failure = tasks[0].result()
        assert isinstance(failure, OSError)
        raise failure
    finally:
        for task in tasks:
            task.cancel()
            task.add_done_callback(_discard)


async def _attempt(family: socket.AddressFamily, where: Any) -> socket.socket | OSError:
    """Not raising: a failure here is no failure of the program's, to be logged as one."""
    try:
        return await _connect(family, where)
    except OSError as error:
        return error


def _discard(task: asyncio.Task[socket.socket | OSError]) -> None:
    """A race that was lost, or given up."""
    if not task.cancelled() and isinstance(late := task.result(), socket.socket):
        late.close()


async def _connect(family: socket.AddressFamily, where: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


def _reason(error: OSError) -> NotReached:
    if error.errno in (
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
        errno.EADDRNOTAVAIL,
    ):
        return NotReached(Code.BUSY, f"the agent has no room for it ({os.strerror(error.errno)})")
    if isinstance(error, ConnectionRefusedError):
        return NotReached(Code.DIAL_REFUSED, "connection refused")
    if isinstance(error, TimeoutError):
        return NotReached(Code.DIAL_TIMEOUT, "connection timed out")
    if isinstance(error, FileNotFoundError):
        return NotReached(Code.DIAL_REFUSED, "there is no such socket")
    # Not error.strerror: asyncio writes the address into it.
    words = os.strerror(error.errno).lower() if error.errno else "connection failed"
    return NotReached(Code.DIAL_REFUSED, words)
