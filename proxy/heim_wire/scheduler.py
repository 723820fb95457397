"""Who may send next: deficit round robin over the streams that have something to send.

Each stream has a queue of its own, so that what waits can still be overtaken: by a stream that had
been quiet (as in fq_codel, RFC 8290), and by every control frame. While one stream is alone its
frames are as long as they can be; while several wait none sends more than two TLS records a turn.
"""

from __future__ import annotations

from collections import deque

from heim_wire.frames import HEAD, HEAD_BYTES, MAX_DATA, Type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["HIGH_MARK", "LOW_MARK", "QUANTUM", "Scheduler", "SendQueue"]

# One stream's turn: two TLS records (32768) less the head of a frame and of a masked WebSocket
# frame, 2.6 ms at 100 Mbit/s. Half of it costs some 5 % more CPU with fifty streams, and key
# presses were not seen to wait less: who had been quiet goes first, behind what was written.
QUANTUM: Final = 32_752
# A stream's source is stopped at the high mark and read again below the low one: two reads of
# 64 KiB keep a fast link busy, and 1024 streams cannot hold more than 128 MiB.
HIGH_MARK: Final = 131_072
LOW_MARK: Final = 65_536
# Small writes are joined, or a queue of single bytes would take fifty times its size in memory.
_JOINED = 2_048
# A frame is not cut to less than this only to fill the room that is left.
_SMALLEST_CUT = 4_096

_IDLE = 0
_QUIET = 1
_TURN = 2


class SendQueue:
    """What one stream has to send, and how much of it the peer allows.

    Attributes:
        id: The stream's number.
        queued: Bytes that wait.
        credit: How many bytes the peer allows.
    """

    __slots__ = (
        "_chunks", "_deficit", "_held", "_high", "_lane", "_left_at", "_low", "credit", "id",
        "queued",
    )  # fmt: skip

    def __init__(self, stream_id: int, credit: int) -> None:
        self.id = stream_id
        self.credit = credit
        self.queued = 0
        self._chunks: deque[bytes | memoryview] = deque()
        self._lane = _IDLE
        # What it may still send in this round, and how much everybody had sent when it fell idle.
        self._deficit = 0
        self._left_at = -1
        # Whether the source was told to stop and is to be told to go on.
        self._held = False
        self._high = HIGH_MARK
        self._low = LOW_MARK

    @property
    def full(self) -> bool:
        """Whether 128 KiB or more are queued: stop reading the source until `Drained`."""
        return self.queued >= self._high

    def set_marks(self, high: int, low: int) -> None:
        """Be full at `high` bytes, and tell that fewer than `low` are left; 0 < low <= high."""
        self._high = high
        self._low = low
        self._held = self._held or self.queued >= high

    def drained(self) -> None:
        """The queue was full, and is below its low mark."""

    def emptied(self) -> None:
        """The last byte was taken."""


class Scheduler:
    """The queues that can send, in the order in which they may.

    Attributes:
        queued: Bytes that wait in all queues, those without credit too.
    """

    __slots__ = ("_quiet", "_sent", "_turns", "queued")

    def __init__(self) -> None:
        self.queued = 0
        # Served first: had nothing to send for a while. Then everybody else, in turn.
        self._quiet: deque[SendQueue] = deque()
        self._turns: deque[SendQueue] = deque()
        self._sent = 0

    @property
    def busy(self) -> bool:
        """Whether `take` has something."""
        return bool(self._quiet or self._turns)

    def push(self, queue: SendQueue, data: bytes | memoryview) -> None:
        """Queue bytes for one stream; `data` is not empty."""
        size = len(data)
        chunks = queue._chunks
        if size < _JOINED and chunks and type(chunks[-1]) is bytes and len(chunks[-1]) < _JOINED:
            chunks[-1] = b"".join((chunks[-1], data))
        else:
            chunks.append(data)
        self.queued += size
        queue.queued += size
        if queue.queued >= queue._high:
            queue._held = True
        if queue._lane == _IDLE and queue.credit > 0:
            self._enter(queue)

    def allow(self, queue: SendQueue, credit: int) -> None:
        """The peer allows `credit` bytes more."""
        queue.credit += credit
        if queue._lane == _IDLE and queue.queued and queue.credit > 0:
            self._enter(queue)

    def drop(self, queue: SendQueue) -> None:
        """Forget what a stream had to send."""
        if queue._lane:
            (self._quiet if queue._lane == _QUIET else self._turns).remove(queue)
            queue._lane = _IDLE
        self.queued -= queue.queued
        queue.queued = 0
        queue._chunks.clear()

    def take(self, room: int, parts: list[bytes | memoryview]) -> int:
        """Append DATA frames of at most `room` bytes to `parts`; returns how many bytes."""
        left = room
        while left > HEAD_BYTES:
            if self._quiet:
                lane = self._quiet
            elif self._turns:
                lane = self._turns
            else:
                break
            queue = lane[0]
            size = queue.queued
            if size > queue.credit:
                size = queue.credit
            alone = len(self._quiet) + len(self._turns) == 1
            if alone:
                if size > MAX_DATA:
                    size = MAX_DATA
                # Who comes now goes first.
                if lane is self._quiet:
                    lane.popleft()
                    lane = self._turns
                    lane.append(queue)
                    queue._lane = _TURN
            elif queue._deficit <= 0:
                queue._deficit += QUANTUM
                lane.popleft()
                queue._lane = _TURN
                self._turns.append(queue)
                continue
            elif size > queue._deficit:
                size = queue._deficit
            if size > left - HEAD_BYTES:
                size = left - HEAD_BYTES
                if size < _SMALLEST_CUT and left != room:
                    break
            if alone:
                # Nobody waits, so that nothing is owed: a whole turn is left afterwards.
                queue._deficit = QUANTUM + size
            parts.append(HEAD.pack(Type.DATA, 0, size, queue.id))
            _move(queue._chunks, size, parts)
            left -= HEAD_BYTES + size
            self._account(queue, size, lane)
        return room - left

    def _account(self, queue: SendQueue, size: int, lane: deque[SendQueue]) -> None:
        queue.queued -= size
        queue.credit -= size
        queue._deficit -= size
        self.queued -= size
        self._sent += size
        if not queue.queued or queue.credit <= 0:
            lane.popleft()
            queue._lane = _IDLE
            queue._left_at = self._sent
        if queue._held and queue.queued < queue._low:
            queue._held = False
            queue.drained()
        if not queue.queued:
            queue.emptied()

    def _enter(self, queue: SendQueue) -> None:
        # Quiet for a whole round: everybody else had a turn since. Within a round a queue may come
        # back to the front only with what it has left of its turn; that keeps the others' share.
        others = len(self._quiet) + len(self._turns)
        if queue._left_at < 0 or self._sent - queue._left_at >= QUANTUM * max(others, 1):
            queue._deficit = QUANTUM
        if queue._deficit > 0:
            queue._lane = _QUIET
            self._quiet.append(queue)
        else:
            queue._lane = _TURN
            self._turns.append(queue)


def _move(chunks: deque[bytes | memoryview], size: int, parts: list[bytes | memoryview]) -> None:
    """Move the first `size` bytes of a queue to `parts`, without copying."""
    while size:
        chunk = chunks[0]
        length = len(chunk)
        if length <= size:
            parts.append(chunk)
            chunks.popleft()
            size -= length
        else:
            view = memoryview(chunk)
            parts.append(view[:size])
            chunks[0] = view[size:]
            return
