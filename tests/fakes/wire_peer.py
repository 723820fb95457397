"""The other end of a session with the proxy: what scripted agents and tunnel clients share."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from heim_wire.errors import WireError
from heim_wire.events import Event
from heim_wire.session import Session
from heim_wire.websocket import Close, WebSocket
from tests.fakes.heim import Wire

__all__ = ["WirePeer"]


class WirePeer:
    """Reads until the proxy has gone; `until` waits for what came, `_note` keeps it.

    Attributes:
        close: The proxy's last words.
        gone: The connection has ended.
    """

    wire: Wire
    session: Session
    websocket: WebSocket
    close: Close | None
    gone: bool
    _changed: asyncio.Event

    def flush(self) -> None:
        """Write what the session has to say."""
        if self.wire.writer.is_closing():
            return
        while True:
            parts, total = self.session.take(65_536)
            if not total:
                break
            self.wire.send(self.websocket.frame(parts, total))
        self.wire.send(self.websocket.replies())

    def frame(self, data: bytes) -> None:
        """Bytes of the session's protocol, whatever they are."""
        self.wire.send(self.websocket.frame([data], len(data)))

    def goodbye(self) -> None:
        """Close in good order, as the programs do."""
        self.wire.send(self.websocket.close(1000))

    def abort(self) -> None:
        """Vanish."""
        self.wire.close()

    async def change(self) -> None:
        """Wait until something comes."""
        self._changed = asyncio.Event()
        await self._changed.wait()

    async def until(self, condition: Callable[[], object], within_s: float = 4.0) -> None:
        """Wait until something that came makes `condition` true."""
        async with asyncio.timeout(within_s):
            while not condition():
                waiter = self._changed
                await waiter.wait()
                if waiter is self._changed:
                    self._changed = asyncio.Event()

    async def over(self, within_s: float = 4.0) -> None:
        """Wait until the proxy has closed the connection."""
        await self.until(lambda: self.gone, within_s)

    async def _read(self) -> None:
        try:
            while data := await self.wire.reader.read(65_536):
                for piece in self.websocket.receive(data):
                    for event in self.session.receive(piece, time.monotonic()):
                        self._note(event)
                self.close = self.websocket.closed
                for event in self.session.events():
                    self._note(event)
                self._reply()
                self._changed.set()
        except (ConnectionError, ssl.SSLError, WireError):
            pass
        finally:
            self.gone = True
            self._changed.set()
            self.wire.close()

    def _note(self, event: Event) -> None:
        raise NotImplementedError

    def _reply(self) -> None:
        """Say what the session answers to what came."""
        self.flush()
