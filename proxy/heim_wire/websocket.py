"""The WebSocket carriage after 101: a byte stream inside binary frames (RFC 6455).

Middleboxes may refragment messages, so message borders mean nothing here: payload is passed on as
it comes, unmasked, and nothing is ever put together. Sans-IO, both roles; extensions are never
offered, so the reserved bits must be 0.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Close", "WebSocket"]


class Close:
    """The peer's close frame: its code (1005 when it gave none) and reason, ≤ 123 bytes."""

    __slots__ = ("code", "reason")

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Close {self.code} {self.reason!r}>"


class WebSocket:
    """One connection's data phase.

    Attributes:
        closed: The peer's close frame, once it came; what follows it is ignored.
        closing: Whether our close frame was made; `frame` must not be called any more.
    """

    def __init__(self, *, client: bool, entropy: Callable[[int], bytes] = os.urandom) -> None:
        """Start after the handshake.

        Args:
            client: Whether we are the client: then what we send is masked, what we get is not.
            entropy: Gives the masking keys (RFC 6455, 5.3: fresh and unpredictable per frame).
        """
        self.closed: Close | None = None
        self.closing = False
        raise NotImplementedError

    def receive(self, data: bytes) -> list[bytes | memoryview]:
        """Take bytes from the transport; the payload among them, in order.

        Pieces may be views into `data`, so `data` must not change afterwards. Afterwards look at
        `replies()` and at `closed`.

        Raises:
            WireError: The peer broke RFC 6455 or sent text; the connection must end (close 1002).
        """
        raise NotImplementedError

    def replies(self) -> bytes:
        """Pong or close frames to be written now, once; empty mostly.

        Only the newest ping is answered (RFC 6455, 5.5.3), so what waits here is bounded.
        """
        raise NotImplementedError

    def frame(self, parts: list[bytes | memoryview], total: int) -> bytes:
        """One binary frame around `parts`, `total` bytes together, as one piece."""
        raise NotImplementedError

    def ping(self, payload: bytes = b"") -> bytes:
        """A ping frame; at most 125 bytes of payload."""
        raise NotImplementedError

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Our close frame, the first time; later, or when the peer's was answered, b""."""
        raise NotImplementedError
