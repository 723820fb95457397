"""Two sessions back to back, with a clock of their own and a pipe that a test may pinch."""

from __future__ import annotations

import json
from collections.abc import Callable

from heim_wire.events import Data, Event
from heim_wire.frames import HEAD, FrameReader, Type
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.window import WindowBudget

__all__ = ["HELLO", "Pair", "frame", "frames", "greeted", "taken"]

LIMIT = 65_536


def frame(kind: int, stream: int = 0, payload: bytes | object = b"", flags: int = 0) -> bytes:
    """One frame, written without the code under test; objects become JSON."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return HEAD.pack(kind, flags, len(payload), stream) + payload


HELLO = frame(Type.HELLO, 0, {"v": [1]})


def frames(data: bytes) -> list[tuple[int, int, bytes]]:
    """All frames in `data` as (type, stream, payload); DATA in one piece each."""
    found: list[tuple[int, int, bytes]] = []
    reader = FrameReader()

    def on_data(stream: int, payload: bytes | memoryview) -> None:
        found.append((Type.DATA, stream, bytes(payload)))

    reader.feed(data, on_data, lambda *one: found.append(one))
    return found


def taken(session: Session, limit: int = LIMIT) -> bytes:
    """What a session wants to write, in one piece; its sum is checked."""
    parts, size = session.take(limit)
    data = b"".join(parts)
    assert len(data) == size <= limit
    return data


def greeted(*, initiator: bool = False, settings: Settings | None = None) -> Session:
    """A session at 0 s that has had the peer's HELLO and written its own."""
    session = Session(
        initiator=initiator, now=0.0, settings=settings, entropy=lambda size: b"\x07" * size
    )
    session.receive(HELLO, 0.0)
    taken(session)
    return session


class Pair:
    """An initiator `a` and an acceptor `b`.

    Everything goes over at once in `turn`, and takes `delay` seconds. Owners' work is done by
    `settle`: bytes are collected in `got` by (side, stream) and consumed.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        budget: WindowBudget | None = None,
        delay: float = 0.01,
    ) -> None:
        self.now = 0.0
        self.delay = delay
        self.a = Session(initiator=True, now=0.0, settings=settings, budget=budget)
        self.b = Session(initiator=False, now=0.0, settings=settings, budget=budget)
        self.events: dict[str, list[Event]] = {"a": [], "b": []}
        self.got: dict[tuple[str, int], bytearray] = {}
        self.consume: Callable[[str, Data], bool] = lambda side, data: True

    def turn(self, limit: int = LIMIT) -> int:
        """One flight in each direction; returns how many bytes went."""
        self.now += self.delay
        forth, back = taken(self.a, limit), taken(self.b, limit)
        self._note("b", self.b.receive(forth, self.now))
        self._note("a", self.a.receive(back, self.now))
        self._note("a", self.a.events())
        self._note("b", self.b.events())
        return len(forth) + len(back)

    def settle(self, limit: int = LIMIT) -> None:
        """Turns until nothing goes any more."""
        for _ in range(10_000):
            if not self.turn(limit):
                return
        raise AssertionError("never silent")

    def kinds(self, side: str) -> list[str]:
        """Names of the events of one side, in order."""
        return [type(event).__name__ for event in self.events[side]]

    def last(self, side: str) -> Event:
        return self.events[side][-1]

    def _note(self, side: str, events: list[Event]) -> None:
        self.events[side] += events
        for event in events:
            if isinstance(event, Data):
                received = self.got.setdefault((side, event.stream.id), bytearray())
                received += event.payload
                if self.consume(side, event):
                    event.stream.consumed(len(event.payload))
