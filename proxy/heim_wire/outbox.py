"""Everything a session has to say: control frames, grants of credit, and the streams' queues.

Control frames go first and in order, so that an OPEN precedes its DATA; a stream's EOF becomes a
control frame when the stream's last byte was taken, so that it follows it.
"""

from __future__ import annotations

from collections import deque

from heim_wire.errors import Code, WireError
from heim_wire.frames import HEAD_BYTES, window_frame
from heim_wire.scheduler import Scheduler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_wire.events import Event
    from heim_wire.frames import Buffer

__all__ = ["Outbox"]

# All 1024 streams of a session answered with the largest message there is. A peer that makes us
# answer more without reading any of it wants our memory.
_MOST_CONTROL: Final = 4_194_304
# What a small frame costs beside its bytes.
_OBJECT: Final = 64
_GRANT_BYTES: Final = HEAD_BYTES + 4


class Outbox:
    """What waits to be written, and what happened while it was taken.

    Attributes:
        scheduler: The streams' queues.
        happened: Events that no one was told of yet.
    """

    __slots__ = ("_control", "_control_bytes", "_grants", "happened", "scheduler")

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.happened: list[Event] = []
        self._control: deque[bytes] = deque()
        self._control_bytes = 0
        # Credit by stream: grants that pile up while nothing can be written become one frame.
        self._grants: dict[int, int] = {}

    @property
    def wants_write(self) -> bool:
        """Whether `take` has something."""
        return bool(self._control or self._grants or self.scheduler.busy)

    def control(self, frame: bytes) -> None:
        """Queue a frame ahead of all DATA."""
        self._control.append(frame)
        self._control_bytes += len(frame) + _OBJECT

    def grant(self, stream_id: int, credit: int) -> None:
        """Queue a WINDOW."""
        self._grants[stream_id] = self._grants.get(stream_id, 0) + credit

    def ungrant(self, stream_id: int) -> None:
        """Forget a WINDOW that was not sent; the stream is over."""
        self._grants.pop(stream_id, None)

    def check(self) -> None:
        """Judge the peer by how much it left unread.

        Raises:
            WireError: More control frames wait than an honest peer can cause.
        """
        if self._control_bytes > _MOST_CONTROL:
            raise WireError(Code.PROTOCOL, "asks for answers and does not read them")

    def events(self) -> list[Event]:
        """What happened since last asked."""
        happened, self.happened = self.happened, []
        return happened

    def clear(self) -> None:
        """Forget everything; the connection is gone."""
        self._control.clear()
        self._control_bytes = 0
        self._grants.clear()
        self.happened.clear()

    def take(self, limit: int) -> tuple[list[Buffer], int]:
        """What to write next; see `Session.take`."""
        parts: list[Buffer] = []
        room = limit
        if self._control or self._grants:
            room -= self._take_control(room, parts)
            if self._control or self._grants:
                # DATA must not overtake the OPEN or ACCEPT that did not fit.
                return parts, limit - room
        if self.scheduler.busy:
            room -= self.scheduler.take(room, parts)
            if self._control:
                # The EOFs of streams that were emptied.
                room -= self._take_control(room, parts)
        return parts, limit - room

    def _take_control(self, room: int, parts: list[Buffer]) -> int:
        left = room
        control = self._control
        while control and len(control[0]) <= left:
            frame = control.popleft()
            parts.append(frame)
            left -= len(frame)
            self._control_bytes -= len(frame) + _OBJECT
        # After control: a grant to a stream must not overtake its OPEN.
        while self._grants and not control and left >= _GRANT_BYTES:
            stream_id = next(iter(self._grants))
            parts.append(window_frame(stream_id, self._grants.pop(stream_id)))
            left -= _GRANT_BYTES
        return room - left
