"""The HTTP before the tunnel: a client's upgrade or CONNECT request, and a server's 101.

Sans-IO. Requests are made here and answers are judged; `answer` collects them.
"""

from __future__ import annotations

import binascii
import os

from heim_wire.answer import FIELD_NAME, Answer
from heim_wire.messages import printable
from heim_wire.problem import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from heim_wire.answer import Head

__all__ = [
    "CONNECT_PATH",
    "SUBPROTOCOL",
    "Connect",
    "Refused",
    "Upgrade",
    "accept_key",
    "answer_upgrade",
    "connect_request",
    "valid_key",
]

SUBPROTOCOL: Final = "heim.tunnel.v1"
CONNECT_PATH: Final = "/.heim/tunnel/connect"

# RFC 6455, 1.3.
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16


class Upgrade(Answer):
    """A client's upgrade to the tunnel: write `request`, then feed the answer to `receive`.

    Attributes:
        request: The bytes to write. They hold the token.
        request_id: The answer's Heim-Request-Id, once there was one.
    """

    __slots__ = ("_accept", "_key", "request", "request_id")

    def __init__(
        self,
        host: str,
        *,
        token: str,
        path: str = CONNECT_PATH,
        headers: Iterable[tuple[str, str]] = (),
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Make the request.

        Args:
            host: Value of Host: a name, with ":port" unless it is 443.
            token: The bearer token, which appears in `request` and nowhere else; "" sends none, to
                be told who to sign in with.
            path: Absolute path.
            headers: More fields, such as Heim-Backend.
            entropy: Gives the key (RFC 6455, 4.1).

        Raises:
            ValueError: A value has characters that do not belong in a header field.
        """
        super().__init__(printable(host, 256))
        self._key = binascii.b2a_base64(entropy(_KEY_BYTES), newline=False).decode("ascii")
        self._accept = ""
        self.request_id = ""
        _require("path", path, path.startswith("/") and _visible(path))
        _require("host", host, bool(host) and _visible(host))
        self.request = _lines(
            f"GET {path} HTTP/1.1",
            (
                ("Host", host),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Key", self._key),
                ("Sec-WebSocket-Protocol", SUBPROTOCOL),
                *((("Authorization", f"Bearer {token}"),) if token else ()),
                *headers,
            ),
        )

    def __repr__(self) -> str:
        return f"<Upgrade {self.speaker}>"

    def prepare(self) -> None:
        """Do while the answer travels what it will need; optional, it saves a millisecond."""
        self._accept = accept_key(self._key)

    def wanted(self, head: Head) -> bool:
        """RFC 6455, 4.1: what a client must check."""
        self.request_id = printable(head.fields.get("heim-request-id", ""), 64)
        if head.status != 101:
            return False
        if not self._accept:
            self.prepare()
        if head.fields.get("upgrade", "").lower() != "websocket":
            raise self.strange("agreed to another protocol than WebSocket")
        if not head.lists("connection", "upgrade"):
            raise self.strange("answered 101 without Connection: Upgrade")
        if head.fields.get("sec-websocket-accept") != self._accept:
            raise self.strange("answered somebody else's request (a cache on the way?)")
        if head.fields.get("sec-websocket-protocol") != SUBPROTOCOL:
            raise self.strange("speaks another tunnel protocol; update heim-tunnel or the proxy")
        if "sec-websocket-extensions" in head.fields:
            raise self.strange("uses a WebSocket extension that was not offered")
        return True


class Connect(Answer):
    """The answer to `connect_request`; fed like `Upgrade`, ends with any 2xx (RFC 9110, 9.3.6)."""

    __slots__ = ()

    def __init__(self, proxy: str) -> None:
        """Wait for the answer of the HTTP proxy called `proxy`: "host:port", for messages."""
        super().__init__(f"the HTTP proxy {printable(proxy, 256)}")

    def wanted(self, head: Head) -> bool:
        """See `Answer.wanted`."""
        return 200 <= head.status < 300


def connect_request(host: str, port: int, auth: str = "") -> bytes:
    """A CONNECT request for an HTTP proxy (RFC 9110, 9.3.6).

    Args:
        host: Name or address to be reached; an IPv6 address without brackets.
        port: Its port.
        auth: "user:password" for Basic, or "" for none.

    Raises:
        ValueError: A value has characters that do not belong there.
    """
    _require("host", host, bool(host) and _visible(host) and not set("/@[]") & set(host))
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    fields = [("Host", authority)]
    if auth:
        basic = binascii.b2a_base64(auth.encode(), newline=False).decode("ascii")
        fields.append(("Proxy-Authorization", f"Basic {basic}"))
    return _lines(f"CONNECT {authority} HTTP/1.1", fields)


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455, 4.2.2)."""
    # Imported late: 1 ms that a client has while the answer travels (`Upgrade.prepare`).
    import hashlib

    digest = hashlib.sha1((key + _GUID).encode("ascii"), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


def valid_key(key: str) -> bool:
    """Whether `key` is the base64 of 16 bytes, as RFC 6455, 4.2.1 demands."""
    try:
        return len(key) == 24 and len(binascii.a2b_base64(key, strict_mode=True)) == _KEY_BYTES
    except ValueError:
        return False


def answer_upgrade(key: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A server's 101 to a request whose key is `key`, with the subprotocol and more `headers`.

    Raises:
        ValueError: A header has characters that do not belong in one.
    """
    return _lines(
        "HTTP/1.1 101 Switching Protocols",
        (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(key)),
            ("Sec-WebSocket-Protocol", SUBPROTOCOL),
            *headers,
        ),
    )


def _lines(first: str, fields: Iterable[tuple[str, str]]) -> bytes:
    lines = [first]
    for name, value in fields:
        # The name is enough in the message: the value may be a token.
        if not name or not FIELD_NAME.issuperset(name):
            raise ValueError(f"{name!r} is not the name of a header field")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name} has characters that do not belong in a header")
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("ascii")


def _require(what: str, value: str, fits: bool) -> None:
    if not fits:
        raise ValueError(f"{value!r} is not a {what}")


def _visible(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text
