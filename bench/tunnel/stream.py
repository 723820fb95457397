"""One stream of the load: a socket, TLS if wanted, and a codec; blocking or driven by epoll."""

from __future__ import annotations

import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final

from bench.tunnel import codec, errand

__all__ = ["DEADLINE_S", "Stream", "Way"]

# For anything that a stream waits for; a run is over long before.
DEADLINE_S: Final = 90.0
_RECEIVE: Final = 128 * 1024
# Reads and writes of one stream before the next has its turn.
_TURN: Final = 16
_ENDLESS: Final = 1 << 62
# What an upload takes its bytes from; the codec frames it once.
_PAYLOAD: Final = bytes(range(256)) * (codec.BULK // 256 + 1)


@dataclass(frozen=True, slots=True)
class Way:
    """How the load reaches a tunnel's near end: everything a stream needs to open."""

    port: int
    address: str = "127.0.0.1"
    # "raw", "upgraded", "websocket" or "heim"; `head` is the HTTP request of all but the first.
    codec: str = "raw"
    head: str = ""
    # What the certificate must say, "" for a plain connection; `authority` is the CA's file.
    host: str = ""
    authority: str = ""


class Stream:
    """A stream through a tunnel, open when constructed."""

    def __init__(self, way: Way) -> None:
        """Connect, shake hands and open the stream; blocks for as long as that takes.

        Raises:
            OSError: No connection, or TLS failed.
            CodecError: The tunnel refused.
        """
        self.sock: socket.socket = socket.create_connection(
            (way.address, way.port), timeout=DEADLINE_S
        )
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way.host:
            context = ssl.create_default_context(cafile=way.authority)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            self.sock = context.wrap_socket(self.sock, server_hostname=way.host)
        self.codec = codec.make(way.codec, way.head.encode("ascii"))
        if self.codec.request:
            self.sock.sendall(self.codec.request)
            while not self.codec.answered(self._data()):
                pass
        if self.codec.greeting:
            self.sock.sendall(self.codec.greeting)
        self._bulk = self.codec.frame(_PAYLOAD[: codec.BULK])
        self._out = memoryview(b"")
        self._left = 0
        self._wanted = 0

    # Blocking use: errands, echoes.

    def send(self, payload: bytes) -> None:
        """Send all of a small payload; waits for credit if need be."""
        while self.codec.room < len(payload):
            self._take()
        self.codec.sent(len(payload))
        self.sock.sendall(self.codec.frame(payload))

    def wait(self, count: int) -> None:
        """Return when `count` bytes more than at the last wait have come."""
        self._wanted += count
        while self.codec.got < self._wanted:
            self._take()

    def close(self) -> None:
        self.sock.close()

    # Driven by epoll: bulk.

    def begin_upload(self, size: int, kind: bytes = errand.UP) -> None:
        """Prepare to upload `size` bytes that are acknowledged at the end (UP, or a STALL)."""
        self._begin(errand.pack(kind, size))
        self._left = size
        self._wanted = len(errand.ACK)

    def begin_flood(self, tag: int) -> None:
        """Prepare to upload until somebody stops pumping."""
        self._begin(errand.pack(errand.FLOOD, tag=tag))
        self.go_on()

    def go_on(self) -> None:
        """Have more to upload, without an end."""
        self._left = _ENDLESS

    def begin_download(self, size: int) -> None:
        self._begin(errand.pack(errand.DOWN, size))
        self._wanted = size

    @property
    def done(self) -> bool:
        """Everything was sent and everything expected has come."""
        return not self._left and not self._out and self.codec.got >= self._wanted

    @property
    def writes(self) -> bool:
        """Whether there is something that only waits for the socket."""
        return bool(self._out) or (self._left > 0 and self.codec.room >= self._next)

    @property
    def sent(self) -> int:
        """Payload bytes of an endless upload so far."""
        return _ENDLESS - self._left

    def pump(self) -> None:
        """Read and write what goes without waiting."""
        for _ in range(_TURN):
            try:
                self._take()
            except (BlockingIOError, ssl.SSLWantReadError):
                break
        for _ in range(_TURN):
            if not self._out and not self._load():
                break
            try:
                self._out = self._out[self.sock.send(self._out) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                break

    def _begin(self, opening: bytes) -> None:
        self.sock.settimeout(DEADLINE_S)
        self.codec.got = 0
        self.send(opening)
        self.sock.setblocking(False)

    @property
    def _next(self) -> int:
        return min(codec.BULK, self._left)

    def _load(self) -> bool:
        reply = self.codec.reply()
        if reply:
            self._out = memoryview(reply)
            return True
        count = self._next
        if not count or self.codec.room < count:
            return False
        self.codec.sent(count)
        self._left -= count
        whole = count == codec.BULK
        self._out = memoryview(self._bulk if whole else self.codec.frame(_PAYLOAD[:count]))
        return True

    def _take(self) -> None:
        self.codec.receive(self._data())
        if self.sock.gettimeout() != 0.0:
            reply = self.codec.reply()
            if reply:
                self.sock.sendall(reply)

    def _data(self) -> bytes:
        data = self.sock.recv(_RECEIVE)
        if not data:
            raise ConnectionError(f"the tunnel closed the stream at {time.monotonic():.3f}")
        return data
