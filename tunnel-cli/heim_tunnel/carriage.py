"""A session and its one stream on a link: bytes and time in, events out, and how the link ended."""

from __future__ import annotations

import time

from heim_runtime.link import Link, Lost
from heim_tunnel.complaints import clean
from heim_wire.errors import WireError
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import State
from heim_wire.websocket import WebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final

    from heim_wire.events import Event

__all__ = ["Carriage"]

BATCH_BYTES: Final = 65_528
"""Encrypted at once: four TLS records, less the WebSocket head of 8 (a few bytes more would be a
fifth record). What is encrypted cannot be overtaken by a PONG."""

BATCHES: Final = 8
"""Sent in one go, before somebody else gets a turn."""


class Carriage:
    """The client's end of a tunnel, after its 101. Owns the link; `close` it.

    Attributes:
        session: The session; what its commands make is sent by `send`.
        stream: Its stream.
        ended: The connection is over: closed by the peer, lost, or of no use.
        why: In what way, for people; "" for a FIN without another word.
        code: Of the peer's WebSocket close (RFC 6455, 7.4.1); 0 without one.
        broken: How the peer broke the protocol, if it did; it has been told.
    """

    __slots__ = (
        "_clock",
        "_link",
        "_websocket",
        "broken",
        "code",
        "ended",
        "session",
        "stream",
        "why",
    )

    def __init__(self, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        self.session = Session(initiator=True, now=clock(), settings=Settings(max_streams=0))
        self.stream = self.session.adopt()
        self.ended = False
        self.why = ""
        self.code = 0
        self.broken: WireError | None = None
        self._clock = clock
        self._link = link
        self._websocket = WebSocket(client=True)

    def fileno(self) -> int:
        """For `poll`: always for reading, so that PONG and WINDOW get through."""
        return self._link.fileno()

    @property
    def unsent(self) -> bool:
        """Whether `poll` should wait for writing."""
        return self._link.unsent

    @property
    def all_sent(self) -> bool:
        """Whether our EOF and everything before it has left for the network."""
        return (
            self.stream.state in (State.REMOTE_OPEN, State.CLOSED)
            and not self.session.wants_write
            and not self._link.unsent
        )

    @property
    def closing(self) -> bool:
        """Whether one side has said the WebSocket's close."""
        return self._websocket.closing

    def receive(self) -> list[Event]:
        """Take what has arrived. Look at `ended` afterwards."""
        try:
            pieces = self._link.read()
        except Lost as e:
            self._end(str(e))
            return []
        happened = self.unpack(pieces)
        if self._link.ended:
            self._end(self._link.problem)
        return happened

    def unpack(self, pieces: Iterable[bytes]) -> list[Event]:
        """Take bytes that arrived another way: behind the 101."""
        happened: list[Event] = []
        try:
            for piece in pieces:
                for payload in self._websocket.receive(piece):
                    happened += self.session.receive(payload, self._clock())
        except WireError as e:
            self.session.goaway(e.code, e.reason)
            self.send()
            self.broken = e
            self._end(e.reason)
        close = self._websocket.closed
        if close is not None:
            reason = f" ({clean(close.reason, 120)})" if close.reason else ""
            self.code = close.code
            self._end(f"it was closed with status {close.code}{reason}")
        return happened

    def send(self) -> list[Event]:
        """Write what the session wants to write and the socket takes. Then look at `ended`."""
        if self.ended:
            return []
        link, session, websocket = self._link, self.session, self._websocket
        happened: list[Event] = []
        try:
            for _ in range(BATCHES):
                if not link.flush():
                    return happened
                if reply := websocket.replies():
                    link.write(reply)
                if websocket.closing or not session.wants_write:
                    break
                parts, size = session.take(BATCH_BYTES)
                if size:
                    link.write(websocket.frame(parts, size))
                happened += session.events()
            link.flush()
        except Lost as e:
            self._end(str(e))
        return happened

    def say_close(self) -> None:
        """Say the WebSocket's close, once everything else is said.

        Closing the socket at once would make a RST of it, and that would destroy what the proxy has
        not read yet: wait until `ended`.
        """
        if not self.ended and not self._websocket.closing and not self.session.wants_write:
            self._link.write(self._websocket.close())
            self.send()

    def close(self) -> None:
        """Close the connection."""
        self._link.finish()
        self._link.close()

    def _end(self, why: str) -> None:
        if not self.ended:
            self.ended = True
            self.why = why
