"""The service behind every tunnel: sink, source and echo, `python -m bench.tunnel.target PORT`.

One thread on epoll that copies nothing: its CPU is not counted, but it shares the load's core.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TextIO

from bench.tunnel import errand

__all__ = ["main"]

_CHUNK: Final = 256 * 1024
# What a source may send in one go before others have their turn.
_TURN: Final = 1024 * 1024
# Arrivals of a FLOOD are noted this often.
_NOTE_S: Final = 0.1
# An echo's answers that wait; above this its reading stops.
_ECHO_LIMIT: Final = 1024 * 1024

# An errand may come behind an HTTP request for an upgrade, which is longer than an errand.
_REQUEST: Final = b"GET "
_HEAD_END: Final = b"\r\n\r\n"
_PEEKED: Final = 4096
_SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bench\r\n\r\n"
)

_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT


class _Stream:
    """One accepted connection and its errand."""

    def __init__(self, sock: socket.socket, service: _Service) -> None:
        self._sock = sock
        self._service = service
        self._head = b""
        self._kind = b""
        self._left = 0
        self._tag = 0
        self._arrived = 0
        self._noted: list[tuple[float, int]] = []
        self._echo = bytearray()

    def on_readable(self) -> None:
        if not self._kind:
            self._begin()
        elif self._kind == errand.ECHO:
            self._take_echo()
        else:
            self._swallow()

    def on_writable(self) -> None:
        if self._kind == errand.DOWN:
            self._pour()
        elif self._echo:
            self._send_echo()

    def _begin(self) -> None:
        if self._head.startswith(_REQUEST):
            self._upgrade()
            return
        data = self._sock.recv(errand.SIZE - len(self._head))
        self._head += data
        if not data:
            self._service.forget(self._sock)
        elif len(self._head) == errand.SIZE and not self._head.startswith(_REQUEST):
            self._kind, self._left, self._tag = errand.unpack(self._head)
            if self._kind == errand.DOWN:
                self._service.watch(self._sock, _READ | _WRITE)

    def _upgrade(self) -> None:
        """It comes over HTTP: answer the request's head; behind it is the errand."""
        waiting = self._sock.recv(_PEEKED, socket.MSG_PEEK)
        end = waiting.find(_HEAD_END)
        if end >= 0:
            self._sock.recv(end + len(_HEAD_END))
            self._sock.send(_SWITCH)
            self._head = b""

    def _swallow(self) -> None:
        most = self._left - self._arrived if self._kind == errand.STALL else 0
        count = self._sock.recv_into(self._service.buffer, min(most, _CHUNK))
        self._arrived += count
        if self._kind == errand.FLOOD:
            self._note(final=count == 0)
        if count == 0:
            self._service.forget(self._sock)
        elif self._arrived == self._left and self._kind in (errand.UP, errand.STALL):
            self._sock.send(errand.ACK)
            if self._kind == errand.STALL:
                self._service.ignore(self._sock)

    def _note(self, *, final: bool) -> None:
        now = time.monotonic()
        if final or not self._noted or now - self._noted[-1][0] >= _NOTE_S:
            self._noted.append((now, self._arrived))
        if final:
            self._service.log({"tag": self._tag, "arrived": self._noted})

    def _pour(self) -> None:
        turn = _TURN
        while self._left and turn > 0:
            try:
                sent = self._sock.send(self._service.chunk[: self._left])
            except BlockingIOError:
                return
            self._left -= sent
            turn -= sent
        if not self._left:
            self._service.watch(self._sock, _READ)

    def _take_echo(self) -> None:
        data = self._sock.recv(65536)
        if not data:
            self._service.forget(self._sock)
            return
        if not self._echo:
            # The usual case: it goes out as it came.
            with contextlib.suppress(BlockingIOError):
                data = data[self._sock.send(data) :]
        self._echo += data
        self._watch_echo()

    def _send_echo(self) -> None:
        del self._echo[: self._sock.send(self._echo)]
        self._watch_echo()

    def _watch_echo(self) -> None:
        reading = _READ if len(self._echo) < _ECHO_LIMIT else 0
        self._service.watch(self._sock, reading | (_WRITE if self._echo else 0))


class _Service:
    """The listener, every stream, and what they share."""

    def __init__(self, listener: socket.socket, log: TextIO | None) -> None:
        self.buffer = bytearray(_CHUNK)
        self.chunk = memoryview(bytes(_CHUNK))
        self._listener = listener
        self._log = log
        self._epoll = select.epoll()
        self._streams: dict[int, _Stream] = {}
        self._sockets: dict[int, socket.socket] = {}
        self._watched: dict[int, int] = {}
        listener.setblocking(False)
        self._epoll.register(listener, _READ)

    def run(self) -> None:
        while True:
            for descriptor, events in self._epoll.poll():
                if descriptor == self._listener.fileno():
                    self._accept()
                    continue
                stream = self._streams.get(descriptor)
                try:
                    if stream is not None and events & ~_WRITE:
                        stream.on_readable()
                    if events & _WRITE and self._streams.get(descriptor) is stream is not None:
                        stream.on_writable()
                except BlockingIOError:
                    continue
                except OSError:
                    # A reset: the tunnel's other end went away in the middle.
                    self.forget(self._sockets[descriptor])

    def watch(self, sock: socket.socket, events: int) -> None:
        if self._watched[sock.fileno()] != events:
            self._watched[sock.fileno()] = events
            self._epoll.modify(sock, events)

    def ignore(self, sock: socket.socket) -> None:
        """Keep the connection, look at nothing of it any more."""
        self._epoll.unregister(sock)

    def forget(self, sock: socket.socket) -> None:
        descriptor = sock.fileno()
        self._epoll.unregister(sock)
        del self._streams[descriptor], self._sockets[descriptor], self._watched[descriptor]
        sock.close()

    def log(self, entry: dict[str, object]) -> None:
        if self._log is not None:
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = sock.fileno()
        self._streams[descriptor] = _Stream(sock, self)
        self._sockets[descriptor] = sock
        self._watched[descriptor] = _READ
        self._epoll.register(sock, _READ)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve ADDRESS PORT [LOG] until killed."""
    address, port, *rest = sys.argv[1:] if argv is None else argv
    listener = socket.create_server((address, int(port)), backlog=1024)
    log = Path(rest[0]).open("a") if rest else None  # noqa: SIM115 until the end of the process
    _Service(listener, log).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
