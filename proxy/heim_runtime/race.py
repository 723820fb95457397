"""Find a host's addresses and connect to the first that answers (RFC 8305).

Blocking name resolution knows no deadline, so it runs in a thread that is left behind when it
takes too long; `_thread` because `threading` costs a millisecond of start-up.
"""

from __future__ import annotations

import _thread
import errno
import os
import select
import socket
import time

from heim_runtime.complaints import NO_HOST, Complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]

__all__ = ["connect", "is_loopback_name", "literal", "resolve"]

STAGGER_S: Final = 0.25
"""How long an address may try alone before the next one starts (RFC 8305, 5)."""


def is_loopback_name(host: str) -> bool:
    """`localhost` and every name below it (RFC 6761, 6.3); resolvers often do not know them."""
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def literal(host: str) -> tuple[int, bytes] | None:
    """Family and bytes of a host that is written as an address; None for a name."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return family, socket.inet_pton(family, host)
        except OSError:
            continue
    return None


def resolve(host: str, port: int, deadline: float) -> list[Address]:
    """The addresses of a host, families alternating, the system's preferred one first.

    Raises:
        Complaint: There are none, or none were found by the deadline.
    """
    if is_loopback_name(host):
        return [
            _address(socket.AF_INET, "127.0.0.1", port),
            _address(socket.AF_INET6, "::1", port),
        ]
    address = literal(host)
    if address is not None:
        return [_address(address[0], host, port)]
    found: list[tuple[int, object]] = []
    failed: list[OSError | UnicodeError] = []
    done = _thread.allocate_lock()
    done.acquire()

    def look_up() -> None:
        try:
            # As bytes: a str is encoded with the idna codec, which takes 4 ms to load.
            for family, _, _, _, address in socket.getaddrinfo(
                host.encode("ascii"), port, type=socket.SOCK_STREAM
            ):
                found.append((family, address))
        except (OSError, UnicodeError) as e:
            failed.append(e)
        finally:
            done.release()

    _thread.start_new_thread(look_up, ())
    if not done.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise Complaint(f"no answer from DNS for {host}", NO_HOST)
    if failed or not found:
        raise Complaint(_explain_dns(host, failed[0] if failed else None), NO_HOST)
    return _alternate(found)


def _address(family: int, host: str, port: int) -> Address:
    return family, (host, port) if family == socket.AF_INET else (host, port, 0, 0)


def _alternate(found: list[tuple[int, object]]) -> list[Address]:
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    mixed: list[Address] = []
    for index in range(max(len(first), len(other))):
        mixed.extend(first[index : index + 1])  # type: ignore[arg-type]
        mixed.extend(other[index : index + 1])  # type: ignore[arg-type]
    return mixed


def _explain_dns(host: str, error: OSError | UnicodeError | None) -> str:
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return f"cannot resolve {host}: DNS does not answer"
    if error is None or (isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME):
        return f"cannot resolve {host}: no such name in DNS"
    reason = error.strerror if isinstance(error, OSError) else "not a host name"
    return f"cannot resolve {host}: {reason}"


def connect(addresses: list[Address], name: str, deadline: float) -> socket.socket:
    """Connect to the first address that answers; each next one starts after STAGGER_S.

    Args:
        addresses: From `resolve`.
        name: What is connected to, `host:port`, for the complaint.
        deadline: When all of it ends, seconds of time.monotonic.

    Raises:
        Complaint: None answered.
    """
    waiting = list(addresses)
    trying: dict[int, tuple[socket.socket, str]] = {}
    refused: list[str] = []
    poll = select.poll()
    try:
        while waiting or trying:
            if waiting:
                winner = _start(waiting.pop(0), trying, poll, refused)
                if winner is not None:
                    return winner
            now = time.monotonic()
            until = min(deadline, now + STAGGER_S) if waiting else deadline
            if trying:
                for fd, _ in poll.poll(max(0.0, (until - now) * 1000)):
                    winner = _settle(fd, trying, poll, refused)
                    if winner is not None:
                        return winner
            if time.monotonic() >= deadline:
                refused.extend(f"{address}: no answer" for _, address in trying.values())
                break
    finally:
        for sock, _ in trying.values():
            sock.close()
    raise Complaint(f"cannot connect to {name} ({'; '.join(dict.fromkeys(refused))})")


def _start(
    address: Address,
    trying: dict[int, tuple[socket.socket, str]],
    poll: select.poll,
    refused: list[str],
) -> socket.socket | None:
    """Begin to connect; the socket when that is done at once, as it may be on loopback."""
    family, where = address
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as e:
        refused.append(f"{where[0]}: {_words(e.errno)}")
        return None
    sock.setblocking(False)
    problem = sock.connect_ex(where)
    if problem == 0:
        return sock
    if problem != errno.EINPROGRESS:
        sock.close()
        refused.append(f"{where[0]}: {_words(problem)}")
        return None
    trying[sock.fileno()] = (sock, where[0])
    poll.register(sock, select.POLLOUT)
    return None


def _settle(
    fd: int,
    trying: dict[int, tuple[socket.socket, str]],
    poll: select.poll,
    refused: list[str],
) -> socket.socket | None:
    """The socket of a finished attempt, or None and its reason in `refused`."""
    sock, address = trying.pop(fd)
    poll.unregister(fd)
    problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if problem == 0:
        return sock
    sock.close()
    refused.append(f"{address}: {_words(problem)}")
    return None


def _words(problem: int | None) -> str:
    if problem is None:
        return "failed"
    text = os.strerror(problem)
    return text[:1].lower() + text[1:]
