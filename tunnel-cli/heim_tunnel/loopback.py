"""The loopback listener that a browser brings the answer of a sign-in to (RFC 8252, 7.3).

One answer is taken: a GET of the right path, on the right Host, with the right state. Everything
else (speculative connections of browsers, favicons, pages that guess our port, other programs) is
answered or dropped without ending the wait. The browser of the right answer is kept waiting until
the caller knows how the sign-in ended, so that the page tells the truth.
"""

from __future__ import annotations

import contextlib
import hmac
import html
import selectors
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs

__all__ = ["Arrival", "Loopback", "page"]

PATH: Final = "/callback"
# A code and a state are some hundred bytes; browsers send about a kilobyte of headers.
MAX_HEAD: Final = 16 * 1024
# Browsers keep a few speculative connections; anybody on this machine could open thousands.
MAX_CONNECTIONS: Final = 32
# From connecting to a complete request. Chrome's speculative connections stay silent for minutes.
REQUEST_S: Final = 10.0
# For the page to leave: it fits the socket's buffer, so only a dead browser takes this long.
ANSWER_S: Final = 2.0

_HEADERS: Final = (
    "Content-Type: text/html; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'\r\n"
    "Referrer-Policy: no-referrer\r\n"
    "X-Content-Type-Options: nosniff\r\n"
    "Connection: close\r\n"
)


class _Connection:
    """A browser (or anybody else) that has connected."""

    __slots__ = ("received", "since", "sock")

    def __init__(self, sock: socket.socket, since: float) -> None:
        self.sock = sock
        self.since = since
        self.received = b""


class Arrival:
    """The answer of the login host, brought by a browser that waits for a page.

    `code` is None when the login host said no; then `error` and `description` say why. `issuer`
    says which login host it was (RFC 9207), "" when it does not.
    """

    __slots__ = ("_connection", "code", "description", "error", "issuer")

    def __init__(self, connection: socket.socket, found: dict[str, str]) -> None:
        self._connection = connection
        self.code = found.get("code")
        self.error = found.get("error", "")
        self.description = found.get("error_description", "")
        self.issuer = found.get("iss", "")

    def __repr__(self) -> str:
        return f"<Arrival code={'<sealed>' if self.code else None} error={self.error!r}>"

    def show(self, title: str, text: str) -> None:
        """Show the last page and let the browser go; never raises."""
        with contextlib.suppress(OSError), self._connection as connection:
            connection.settimeout(ANSWER_S)
            connection.sendall(page(200, title, text))
            connection.shutdown(socket.SHUT_WR)


class Loopback:
    """Listens on a free port of the loopback address for one answer.

    A context manager: leaving it closes the port and every connection but an arrival's.
    """

    def __init__(self, state: str) -> None:
        """Begin to listen.

        Args:
            state: What the right answer carries; compared in constant time.

        Raises:
            OSError: There is no loopback address to listen on.
        """
        self._state = state
        self._listener = _listener()
        self._listener.setblocking(False)
        host, port = self._listener.getsockname()[:2]
        # The literal, never `localhost`: that may resolve to something else (RFC 8252, 8.3).
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._connections: dict[socket.socket, _Connection] = {}

    @property
    def redirect_uri(self) -> str:
        """Where the login host shall send the browser."""
        return f"http://{self._authority}{PATH}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._selector.close()
        self._listener.close()
        for connection in self._connections.values():
            connection.sock.close()
        self._connections.clear()

    def wait(self, until: float, clock: Callable[[], float] = time.monotonic) -> Arrival | None:
        """Serve until the right answer comes; None when it is `until` on the clock (seconds)."""
        while (left := until - clock()) > 0:
            for key, _ in self._selector.select(min(left, 1.0)):
                if key.fileobj is self._listener:
                    self._accept(clock())
                elif (arrival := self._read(self._connections[key.fileobj])) is not None:  # type: ignore[index]
                    return arrival
            self._expire(clock())
        return None

    def _accept(self, now: float) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            # It was reset while it queued, or we are out of descriptors: the next one may do.
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            oldest = min(self._connections.values(), key=lambda one: one.since)
            self._drop(oldest)
        sock.setblocking(False)
        self._connections[sock] = _Connection(sock, now)
        self._selector.register(sock, selectors.EVENT_READ)

    def _expire(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if now - connection.since > REQUEST_S:
                self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.sock.close()

    def _forget(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        del self._connections[connection.sock]

    def _read(self, connection: _Connection) -> Arrival | None:
        try:
            data = connection.sock.recv(MAX_HEAD)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        connection.received += data
        if b"\r\n\r\n" in connection.received:
            return self._judge(connection)
        if not data:
            self._drop(connection)
        elif len(connection.received) > MAX_HEAD:
            self._refuse(connection, 431, "Too much", "That request is too large.")
        return None

    def _judge(self, connection: _Connection) -> Arrival | None:
        request, *fields = connection.received.partition(b"\r\n\r\n")[0].split(b"\r\n")
        words = request.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._refuse(connection, 400, "Not understood", "That was no HTTP request.")
            return None
        hosts = [
            value.strip().decode("latin-1").lower()
            for name, _, value in (field.partition(b":") for field in fields)
            if name.lower() == b"host"
        ]
        path, _, query = words[1].decode("latin-1").partition("?")
        if hosts != [self._authority]:
            # A page of somebody else whose name resolves to 127.0.0.1 (DNS rebinding).
            self._refuse(connection, 421, "Wrong host", "Nothing is served under this name.")
        elif path != PATH:
            self._refuse(connection, 404, "Not found", "Only the end of a sign-in is served here.")
        elif words[0] != b"GET":
            self._refuse(connection, 405, "Wrong method", "Only GET is served here.")
        elif (found := self._answer(query)) is None:
            self._refuse(
                connection,
                400,
                "This belongs to another sign-in",
                "Look at the terminal for the address to open, and start there.",
            )
        else:
            self._forget(connection)
            return Arrival(connection.sock, found)
        return None

    def _answer(self, query: str) -> dict[str, str] | None:
        """The fields of the right answer; None for any other."""
        try:
            fields = parse_qs(query, keep_blank_values=True, max_num_fields=16)
        except ValueError:
            return None
        # RFC 6749, 3.1: nothing may be there twice, or two parsers could read two answers.
        if any(len(values) != 1 for values in fields.values()):
            return None
        found = {name: values[0] for name, values in fields.items()}
        state = found.get("state", "").encode("utf-8", "surrogateescape")
        # Constant time: the difference would tell how much of the state was right.
        if not hmac.compare_digest(state, self._state.encode()):
            return None
        return found if bool(found.get("code")) != bool(found.get("error")) else None

    def _refuse(self, connection: _Connection, status: int, title: str, text: str) -> None:
        with contextlib.suppress(OSError):
            # Non-blocking: a page fits the buffer of a fresh socket, and nobody is owed one.
            connection.sock.send(page(status, title, text))
        self._drop(connection)


def _listener() -> socket.socket:
    """A listening socket on 127.0.0.1, or on ::1 where there is no IPv4."""
    problem: OSError | None = None
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            problem = error
            continue
        try:
            sock.bind((address, 0))
            sock.listen(MAX_CONNECTIONS)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    assert problem is not None
    raise problem


def page(status: int, title: str, text: str) -> bytes:
    """A whole HTTP answer with a small page; title and text are escaped here."""
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>'
        f"{html.escape(title)}</title><style>"
        "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem;"
        "color-scheme:light dark}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(text)}</p></html>\n"
    ).encode()
    head = f"HTTP/1.1 {status} Heim\r\n{_HEADERS}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body
