"""The HTTP before the tunnel: upgrade and CONNECT requests, and what is answered to them.

Sans-IO. What comes back may be ours, a load balancer's or a captive portal's page, so everything
is bounded, everything that could reach a terminal is stripped of control characters, and all that
is not the wanted answer becomes a `Refused` that says what happened.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

__all__ = [
    "CONNECT_PATH",
    "SUBPROTOCOL",
    "Connect",
    "Refused",
    "Upgrade",
    "accept_key",
    "answer_upgrade",
    "connect_request",
    "printable",
    "valid_key",
]

SUBPROTOCOL: Final = "heim.tunnel.v1"
CONNECT_PATH: Final = "/.heim/tunnel/connect"


class Refused(Exception):  # noqa: N818 - the name says what the peer did
    """The answer was not the wanted one. Every text is one line, printable and bounded.

    Attributes:
        status: HTTP status; 0 when there was no HTTP answer at all.
        code: A slug of `heim_wire.errors` if the proxy said why, else "" (a middlebox answered).
        detail: What happened, for people; never empty.
        hint: What to do about it, or "".
        login_url: Where to log in, or "". Its form is checked, not whose it is.
        retry_after: Seconds to wait before trying again, or None.
        request_id: What the proxy's log calls this request, or "".
    """

    __slots__ = ("code", "detail", "hint", "login_url", "request_id", "retry_after", "status")

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str = "",
        login_url: str = "",
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.login_url = login_url
        self.retry_after = retry_after
        self.request_id = request_id


class Upgrade:
    """A client's upgrade to the tunnel: write `request`, then feed the answer to `receive`."""

    request: bytes

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
            token: The bearer token; it appears in `request` and nowhere else.
            path: Absolute path.
            headers: More fields, such as Heim-Backend.
            entropy: Gives the key (RFC 6455, 4.1).

        Raises:
            ValueError: A value has characters that do not belong in a header field.
        """
        raise NotImplementedError

    def prepare(self) -> None:
        """Do while the answer travels what it will need; optional, it saves a millisecond."""
        raise NotImplementedError

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes of the answer: None while it is incomplete, after 101 what followed it.

        Raises:
            Refused: It was not a 101 that fits the request.
        """
        raise NotImplementedError

    def eof(self) -> Refused:
        """The peer closed before the answer was complete: what is known."""
        raise NotImplementedError


def connect_request(host: str, port: int, auth: str = "") -> bytes:
    """A CONNECT request for an HTTP proxy (RFC 9110, 9.3.6).

    Args:
        host: Name or address to be reached; an IPv6 address without brackets.
        port: Its port.
        auth: "user:password" for Basic, or "" for none.

    Raises:
        ValueError: A value has characters that do not belong there.
    """
    raise NotImplementedError


class Connect:
    """The answer to `connect_request`; fed like `Upgrade`."""

    def receive(self, data: bytes) -> bytes | None:
        """Take bytes of the answer: None while it is incomplete, after 2xx what followed it.

        Raises:
            Refused: The HTTP proxy did not connect; `status` is its answer's, `code` is "".
        """
        raise NotImplementedError

    def eof(self) -> Refused:
        """The HTTP proxy closed before its answer was complete."""
        raise NotImplementedError


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455, 4.2.2)."""
    raise NotImplementedError


def valid_key(key: str) -> bool:
    """Whether `key` is the base64 of 16 bytes, as RFC 6455, 4.2.1 demands."""
    raise NotImplementedError


def answer_upgrade(key: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A server's 101 to a request whose key is `key`, with the subprotocol and more `headers`.

    Raises:
        ValueError: A header has characters that do not belong in one.
    """
    raise NotImplementedError


def printable(text: str, limit: int = 512) -> str:
    """`text` in one line without control or invisible characters, `limit` characters at most.

    Escape sequences of a hostile peer must not reach a terminal, nor bidirectional overrides.
    """
    raise NotImplementedError
