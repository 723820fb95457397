"""TLS over a non-blocking socket, with its bytes in our hands.

OpenSSL works on memory, not on the socket: one `recv` brings many records, everything that arrived
is decrypted at once (nothing hides in OpenSSL while `poll` says that the socket is quiet), a key
update that wants to write while we read is just more to send, and there is one object for blocking
use with a deadline (`handshake`, `send`, `receive`) and for a poll loop (`read`, `write`, `flush`).
"""

from __future__ import annotations

import select
import socket
import ssl
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["Link", "Lost", "ready"]

READ_BYTES: Final = 256 * 1024
"""Taken from the socket at once; also the most that one `read` adds to memory."""

RECORD_BYTES: Final = 16 * 1024
"""The most that a TLS record, and so one read from OpenSSL, holds (RFC 8446, 5.1)."""


class Lost(Exception):  # noqa: N818 - a thing that happened, not a mistake
    """The connection ended otherwise than by its end; the text says how."""


def ready(fd: int, event: int, deadline: float) -> bool:
    """Wait until a descriptor is ready (`select.POLLIN`, `POLLOUT`); False at the deadline."""
    poll = select.poll()
    poll.register(fd, event)
    left = deadline - time.monotonic()
    return bool(poll.poll(max(0, left * 1000)))


class Link:
    """A TLS connection. The link owns the socket; `close` it.

    Attributes:
        ended: Nothing more will come: a close_notify or a FIN was read, or what is no TLS.
        problem: Why, if that was no proper end, else "".
    """

    __slots__ = ("_incoming", "_outgoing", "_sock", "_tls", "_unsent", "ended", "problem")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, host: str) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # As bytes: a str is encoded with the idna codec, which takes 4 ms to load.
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=host.encode("ascii")
        )
        self._unsent = memoryview(b"")
        self.ended = False
        self.problem = ""

    def __repr__(self) -> str:
        return f"<Link fd={self.fileno()}{' ended' if self.ended else ''}>"

    def fileno(self) -> int:
        """The socket's descriptor, for `poll`; -1 when closed."""
        return self._sock.fileno()

    @property
    def protocol(self) -> str:
        """Such as `TLSv1.3`, for people."""
        return self._tls.version() or "no TLS yet"

    @property
    def certificate(self) -> dict[str, object]:
        """The peer's certificate, verified, as `ssl.SSLSocket.getpeercert` gives it."""
        return dict(self._tls.getpeercert() or {})

    @property
    def unsent(self) -> bool:
        """Whether `flush` has something left, so that `poll` should wait for writing."""
        return bool(self._unsent) or bool(self._outgoing.pending)

    # For a poll loop.

    def read(self) -> list[bytes]:
        """Everything that has arrived, decrypted; [] when that is nothing yet. Look at `ended`.

        Raises:
            Lost: The connection was reset.
        """
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError as e:
            raise Lost(_reason(e)) from e
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return self._decrypt()

    def _decrypt(self) -> list[bytes]:
        pieces: list[bytes] = []
        read = self._tls.read
        try:
            while piece := read(RECORD_BYTES):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            # A key update is answered by OpenSSL while it reads (RFC 8446, 4.6.3).
            if self._outgoing.pending:
                self.flush()
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # A FIN without close_notify counts as an end: whether the stream was complete is for
            # its own EOF frame to say, and middleboxes drop close_notify.
            self.ended = True
        except ssl.SSLError as e:
            # What came before it is good still.
            self.ended = True
            self.problem = f"TLS failed: {e.reason or e}"
        return pieces

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt; nothing is sent before `flush`. What was written can no longer be overtaken."""
        view = memoryview(data)
        write = self._tls.write
        while view:
            view = view[write(view) :]

    def flush(self) -> bool:
        """Send what the socket takes; True when nothing is left. Raises Lost."""
        while True:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
                if not self._unsent:
                    return True
            try:
                sent = self._sock.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError as e:
                raise Lost(_reason(e)) from e
            self._unsent = self._unsent[sent:]

    # With a deadline (seconds of time.monotonic), before there is a loop.

    def handshake(self, deadline: float) -> None:
        """Shake hands and verify.

        Raises:
            ssl.SSLError: As OpenSSL says it; `trust.explain` makes a line of it.
            TimeoutError: Not done by the deadline.
            Lost: The connection ended.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_all(deadline)
                self._incoming.write(self._more(deadline))
            except ssl.SSLError:
                # The peer is told why (an alert), as far as that is possible.
                self._send_quietly()
                raise
            else:
                self._send_all(deadline)
                return

    def send(self, data: bytes, deadline: float) -> None:
        """Write all of it. Raises TimeoutError and Lost."""
        self.write(data)
        self._send_all(deadline)

    def receive(self, deadline: float) -> bytes:
        """Some bytes; b"" at the end. Raises TimeoutError and Lost."""
        while not self.ended:
            self._wait(select.POLLIN, deadline)
            if pieces := self.read():
                return b"".join(pieces)
        if self.problem:
            raise Lost(self.problem)
        return b""

    def finish(self) -> None:
        """Say that nothing more will be sent: close_notify and FIN, as far as they still go."""
        try:
            self._tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            # It waits for the peer's close_notify; ours is written.
            self._send_quietly()
        except (OSError, ValueError):
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        """Close the socket; again is fine."""
        self._sock.close()

    def _send_all(self, deadline: float) -> None:
        while not self.flush():
            self._wait(select.POLLOUT, deadline)

    def _send_quietly(self) -> None:
        try:
            self.flush()
        except Lost:
            return

    def _more(self, deadline: float) -> bytes:
        self._wait(select.POLLIN, deadline)
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as e:
            raise Lost(_reason(e)) from e
        if not data:
            raise Lost("the connection was closed")
        return data

    def _wait(self, event: int, deadline: float) -> None:
        if not ready(self.fileno(), event, deadline):
            raise TimeoutError


def _reason(error: OSError) -> str:
    """What the system says, in lower case as the middle of a sentence."""
    text = error.strerror or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]
