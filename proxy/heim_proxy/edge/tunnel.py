"""An upgraded exchange: two connections relayed byte for byte, ended with words where possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heim_proxy.edge.upgrade import FrameBorders, close_frame

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.upstream import Upstream

__all__ = ["Tunnel"]


class Tunnel:
    """Relays one upgraded exchange. Back-pressure is that of the two connections."""

    __slots__ = ("_down", "_front", "_goodbye", "_up", "_upstream")

    def __init__(self, front: Front, upstream: Upstream, *, websocket: bool) -> None:
        self._front = front
        self._upstream = upstream
        self._down = FrameBorders() if websocket else None
        self._up = FrameBorders() if websocket else None
        # The close frame that waits for a frame border towards the client.
        self._goodbye = b""

    def up(self, data: bytes) -> None:
        """Client to upstream."""
        if self._goodbye:
            return
        if self._up is not None:
            self._up.feed(data)
        self._upstream.send(data)

    def down(self, data: bytes) -> bool:
        """Upstream to client; True when a waiting goodbye went out and both sides are closing."""
        border = self._down.feed(data) if self._down is not None else -1
        if not self._goodbye or border < 0:
            self._front.write(data)
            return False
        self._front.write(data[:border] + self._goodbye)
        self._close()
        return True

    def goodbye(self, code: int, reason: str) -> bool:
        """Tell both sides why, as far as frames allow; True when both are closing now.

        The upstream hears it if the client is between two frames. The client hears it at once, or
        (False) at the end of the frame that is on its way.
        """
        if self._up is not None and self._up.at_border:
            self._upstream.send(close_frame(1001, reason, masked=True))
        if self._down is not None:
            self._goodbye = close_frame(code, reason, masked=False)
            if not self._down.at_border:
                return False
            self._front.write(self._goodbye)
        self._close()
        return True

    def _close(self) -> None:
        self._upstream.close()
        self._front.keep_alive = False
