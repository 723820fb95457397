"""Socket options of tunnel connections, each where the platform has it.

All take what `transport.get_extra_info("socket")` gives, and do nothing for None or for a unix
socket. An option that the system refuses is left alone: every one is an improvement, none is
needed to be correct.
"""

from __future__ import annotations

import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol

    class Socket(Protocol):
        """What is needed of `socket.socket`; uvloop's transports give a look-alike."""

        @property
        def family(self) -> int: ...

        def fileno(self) -> int: ...

        def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None: ...


__all__ = ["NOTSENT_BYTES", "USER_TIMEOUT_MS", "reset_on_close", "tune", "tune_carriage"]

# Unsent bytes that the kernel takes for one connection. What it has taken cannot be overtaken, so
# this and our own buffer are the wait of a key press behind a bulk transfer (bench/README.md).
NOTSENT_BYTES: Final = 64 * 1024
# A write that is not acknowledged for so long means that the peer is gone.
USER_TIMEOUT_MS: Final = 20_000
_KEEPALIVE_IDLE_S: Final = 30
_KEEPALIVE_INTERVAL_S: Final = 10
_KEEPALIVE_PROBES: Final = 3
_TCP: Final = (socket.AF_INET, socket.AF_INET6)
# struct linger: on, for zero seconds.
_LINGER_ZERO: Final = struct.pack("ii", 1, 0)
# macOS has the option under another number, and Python names it from 3.13 on.
_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


def _known(*options: tuple[int, str, int]) -> tuple[tuple[int, int, int], ...]:
    """Those that this platform has."""
    return tuple(
        (level, getattr(socket, name), value)
        for level, name, value in options
        if hasattr(socket, name)
    )


_EVERY: Final = _known(
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", _KEEPALIVE_IDLE_S),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", _KEEPALIVE_INTERVAL_S),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", _KEEPALIVE_PROBES),
)
_CARRIAGE: Final = (
    *_EVERY,
    *_known((socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", USER_TIMEOUT_MS)),
    (socket.IPPROTO_TCP, _NOTSENT_LOWAT, NOTSENT_BYTES),
)


def tune(sock: Socket | None) -> None:
    """Every TCP connection we relay: no Nagle, and a dead peer is noticed within a minute."""
    _set(sock, _EVERY)


def tune_carriage(sock: Socket | None) -> None:
    """A connection that carries tunnel frames: `tune`, a short kernel queue, a bound on silence."""
    _set(sock, _CARRIAGE)


def reset_on_close(sock: Socket | None) -> None:
    """Make the next close a RST instead of a FIN, so that a cut stream is not taken for its end.

    A unix socket has no RST: its peer sees ECONNRESET only if it left bytes unread.
    """
    if sock is None:
        return
    _set_one(sock, socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)


def _set(sock: Socket | None, options: tuple[tuple[int, int, int], ...]) -> None:
    if sock is None or sock.family not in _TCP:
        return
    try:
        # uvloop's look-alikes make one of these for each option.
        real = socket.socket(sock.family, socket.SOCK_STREAM, 0, sock.fileno())
    except (OSError, ValueError):
        # Closed already.
        return
    try:
        for level, option, value in options:
            _set_one(real, level, option, value)
    finally:
        real.detach()


def _set_one(sock: Socket, level: int, option: int, value: int | bytes) -> None:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        # Refused by this kernel or sandbox, or the socket is closed already.
        return
