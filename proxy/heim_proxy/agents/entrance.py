"""A request for a lane: is it a WebSocket handshake, and is there room? Then 101 at once.

Who comes is proven inside (`knock`), since the proof covers what was said there. Nothing is
answered that depends on who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heim_proxy.agents.knock import Knock
from heim_proxy.agents.waiting import retry_after
from heim_proxy.edge.responses import Refusal
from heim_wire.errors import FAILURES, Code
from heim_wire.handshake import SUBPROTOCOL, valid_key

if TYPE_CHECKING:
    from heim_proxy.agents.door import AgentDoor
    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.head import RequestHead

__all__ = ["Entrance", "read"]

_HINT: Final = "this address is for heim-agent; update it, or look at what is between it and here"
_RESTART_RETRY_S: Final = 5


class Entrance:
    """Owns a client connection (`edge.door.Entrant`) until it is refused or answered 101."""

    __slots__ = ("_door", "_front", "end_reason")

    def __init__(self, door: AgentDoor, front: Front) -> None:
        self._door = door
        self._front = front
        self.end_reason = ""

    def begin(self, rest: bytes) -> bytes:
        """See `edge.door.Entrant`."""
        front = self._front
        head = front.head
        upgrade = head.upgrade is not None
        wish = read(head)
        # A lane may last for months: what asked for it is not to stay in memory as long.
        head.fields = []
        knock = Knock(self._door, front)
        refused = self._room(knock) if isinstance(wish, str) else wish
        if refused is not None:
            self._refuse(refused, close=upgrade and bool(rest))
            return rest
        assert isinstance(wish, str)
        front.exchange = knock
        knock.start(wish)
        if rest:
            knock.client_data(rest)
        return b""

    def _room(self, knock: Knock) -> Refusal | None:
        """Take a place for the handshake, or say why there is none."""
        if self._front.edge.draining:
            return _busy(Code.GOING_AWAY, "the proxy is restarting", _RESTART_RETRY_S)
        if self._door.full:
            return _busy(Code.BUSY, "as many agents are connected as may be", retry_after())
        if not self._door.let_wait(knock):
            return _busy(Code.BUSY, "too many agents are connecting at once", retry_after())
        return None

    def _refuse(self, answer: Refusal, *, close: bool) -> None:
        front = self._front
        if close:
            # Meant for a lane that there will not be; it is not a next request.
            front.keep_alive = False
        self._door.refused.add(answer.code)
        size = front.send_refusal(answer, front.request_id)
        front.edge.recorder.answered(front, answer, size)
        front.exchange_done(self)

    # -- `edge.door.Occupant`, for as long as `begin` runs ----------------------------------

    @property
    def request_done(self) -> bool:
        """A request with a body is refused, and its body not read."""
        return not self._front.head.has_body

    @property
    def upgraded(self) -> bool:
        """Not yet."""
        return False

    def client_data(self, data: bytes) -> bytes:
        """Nothing is kept."""
        return data

    def hold_upstream(self) -> None:
        """There is none."""

    def release_upstream(self) -> None:
        """There is none."""

    def client_gone(self) -> None:
        """Nothing began."""

    def timed_out(self, kind: str) -> None:
        """Nothing is waited for."""


def read(head: RequestHead) -> str | Refusal:
    """The Sec-WebSocket-Key of a proper request (RFC 6455, 4.2.1), or what is wrong with it."""
    if head.upgrade != b"websocket" or head.version != b"HTTP/1.1":
        return _not_an_upgrade("agents connect by a WebSocket (RFC 6455) over HTTP/1.1")
    if head.method != b"GET" or head.has_body:
        return _malformed("a WebSocket handshake is a GET without a body (RFC 6455, 4.1)")
    if head.get(b"origin") is not None:
        # Browsers say it, agents never do: a page could have each of its visitors take a place.
        return Refusal(403, FAILURES[Code.FORBIDDEN].slug, "this address is not for pages", _HINT)
    if head.target.query:
        return _malformed("this address takes no query")
    if head.get(b"sec-websocket-version") != b"13":
        return _not_an_upgrade("only WebSocket version 13 is served")
    key = (head.get(b"sec-websocket-key") or b"").decode("latin-1")
    if not valid_key(key):
        return _malformed("Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455, 4.1)")
    offered = (head.get(b"sec-websocket-protocol") or b"").decode("latin-1")
    if SUBPROTOCOL not in {one.strip() for one in offered.split(",")}:
        return _malformed(f"only the subprotocol {SUBPROTOCOL} is spoken here")
    return key


def _malformed(detail: str) -> Refusal:
    failure = FAILURES[Code.PROTOCOL]
    return Refusal(failure.http_status, failure.slug, detail, _HINT)


def _not_an_upgrade(detail: str) -> Refusal:
    """RFC 9110, 15.5.22; RFC 6455, 4.4."""
    headers = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return Refusal(426, FAILURES[Code.PROTOCOL].slug, detail, _HINT, headers)


def _busy(code: int, detail: str, seconds: int) -> Refusal:
    hint = f"try again in {seconds} s"
    return Refusal(503, FAILURES[code].slug, detail, hint, retry_after=seconds, close=True)
