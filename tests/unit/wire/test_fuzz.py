"""Hostile bytes, hostile pipes, and everything that ever went wrong with either (corpus/)."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from heim_wire.errors import Code, OpenRefused
from heim_wire.events import Accepted, Closed, Data, Dead, Drained, Ended, Event, Opened, Reset
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import State, Stream
from heim_wire.window import INITIAL, WindowBudget
from tests.fakes.thorough import examples
from tests.unit.wire.fuzz import CORPUS, fed, hostile

quick = settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))


@given(hostile, st.booleans(), st.sampled_from([1, 7, 100, 1 << 20]))
@quick
def test_whatever_comes_is_refused_or_read(data: bytes, greeted: bool, size: int) -> None:
    fed(data, greeted=greeted, size=size)


@given(st.binary(max_size=400), st.booleans())
@quick
def test_noise_is_refused_or_read(data: bytes, greeted: bool) -> None:
    fed(data, greeted=greeted)


@pytest.mark.parametrize("size", [1, 13, 1 << 20], ids=lambda size: f"by {size}")
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.bin")), ids=lambda path: path.stem)
def test_what_was_once_found_is_found_again(path: Path, size: int) -> None:
    data = path.read_bytes()
    size = max(size, len(data) // 10_000)
    fed(data, greeted=False, size=size)
    fed(data, greeted=True, size=size)


def test_there_is_a_corpus() -> None:
    assert len(list(CORPUS.glob("*.bin"))) >= 20


class Side:
    """One session, its owner, and what is on its way to it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.arriving = bytearray()
        self.got: dict[int, bytearray] = defaultdict(bytearray)
        self.unconsumed: dict[int, int] = defaultdict(int)
        self.over: dict[int, str] = {}
        self.ended: set[int] = set()


class TwoSessions(RuleBasedStateMachine):
    """Two sessions that do all they may, over a pipe that cuts and delays, against a model.

    The model of a direction of a stream is what was sent. The other end must see a prefix of it at
    any time, all of it when the stream ended well, and never an EOF before all of it.
    """

    streams = Bundle("streams")

    @initialize(target=streams, wide=st.booleans())
    def begin(self, wide: bool) -> tuple[int, int]:
        self.now = 0.0
        self.budget = WindowBudget(512 * 1024 * 1024 if wide else 400_000)
        limits = Settings(max_streams=6)
        self.sides = [
            Side(
                Session(
                    initiator=initiator, now=0.0, settings=limits, budget=self.budget, entropy=bytes
                )
            )
            for initiator in (True, False)
        ]
        self.sent: dict[tuple[int, int], bytearray] = defaultdict(bytearray)
        self.finished: set[tuple[int, int]] = set()
        self.reset: set[int] = set()
        for side in self.sides:
            side.session.adopt(1)
        for index in (0, 1):
            self._fly(index, limit=65_536, cut=7)
        return 0, 1

    def _stream(self, which: tuple[int, int]) -> Stream | None:
        index, stream_id = which
        return self.sides[index].session.streams.get(stream_id)

    @rule(target=streams, index=st.integers(0, 1))
    def open(self, index: int) -> tuple[int, int]:
        try:
            return index, self.sides[index].session.open({"target": "x"}).id
        except OpenRefused as refused:
            assert refused.code == Code.BUSY  # noqa: PT017
            assert sum(one.id % 2 == 1 - index for one in self._live(index)) == 6
            return 0, 1

    def _live(self, index: int) -> list[Stream]:
        return list(self.sides[index].session.streams.values())

    @rule(which=streams, far=st.booleans(), size=st.integers(1, 2_000), seed=st.integers(0, 255))
    def send_some(self, which: tuple[int, int], far: bool, size: int, seed: int) -> None:
        self._send(which, far, size, seed)

    @rule(which=streams, far=st.booleans(), size=st.integers(1, 3), seed=st.integers(0, 255))
    def send_much(self, which: tuple[int, int], far: bool, size: int, seed: int) -> None:
        self._send(which, far, size * 60_001, seed)

    def _send(self, which: tuple[int, int], far: bool, size: int, seed: int) -> None:
        which = (which[0] ^ far, which[1])
        stream = self._stream(which)
        if stream is None or which in self.finished or stream.state == State.OFFERED:
            return
        period = bytes((seed + offset) % 256 for offset in range(min(size, 251)))
        chunk = (period * (size // len(period) + 1))[:size]
        self.sent[which] += chunk
        stream.send(chunk)

    @rule(which=streams, far=st.booleans())
    def end(self, which: tuple[int, int], far: bool) -> None:
        which = (which[0] ^ far, which[1])
        stream = self._stream(which)
        if stream is not None:
            self.finished.add(which)
            stream.end()

    @rule(which=streams, far=st.booleans())
    def give_up(self, which: tuple[int, int], far: bool) -> None:
        stream = self._stream((which[0] ^ far, which[1]))
        if stream is not None:
            self.reset.add(which[1])
            stream.reset(Code.IDLE, "enough")

    @rule(which=streams, far=st.booleans(), share=st.floats(0.1, 1.0))
    def consume(self, which: tuple[int, int], far: bool, share: float) -> None:
        index = which[0] ^ far
        stream = self._stream((index, which[1]))
        waiting = self.sides[index].unconsumed[which[1]]
        if stream is not None and waiting:
            size = max(1, int(waiting * share))
            self.sides[index].unconsumed[which[1]] -= size
            stream.consumed(size)

    @rule(which=streams, far=st.booleans(), paused=st.booleans())
    def pause(self, which: tuple[int, int], far: bool, paused: bool) -> None:
        stream = self._stream((which[0] ^ far, which[1]))
        if stream is not None:
            stream.sink_paused = paused

    @rule(
        index=st.integers(0, 1),
        limit=st.sampled_from([20, 4_104, 16_384, 65_536, 300_000]),
        cut=st.integers(1, 12) | st.integers(500, 40_000),
    )
    def fly(self, index: int, limit: int, cut: int) -> None:
        """Write, and everything arrives in pieces of `cut`."""
        self._fly(index, limit, cut)

    @rule(index=st.integers(0, 1), cut=st.integers(1_000, 70_000))
    def fly_far(self, index: int, cut: int) -> None:
        """The same; twice as often, since it is what everything else waits for."""
        self._fly(index, 100_000, cut)

    def _fly(self, index: int, limit: int, cut: int) -> None:
        self.write(index, limit)
        side = self.sides[1 - index]
        self.now += 0.01
        if cut < 13:
            # Byte by byte is for heads and small frames; the rest of a large one in larger pieces.
            for _ in range(min(200, len(side.arriving))):
                self.deliver(1 - index, cut, passed=0.0)
            cut = 4_000
        while side.arriving:
            self.deliver(1 - index, cut, passed=0.0)

    @rule(index=st.integers(0, 1), limit=st.sampled_from([20, 4_104, 16_384, 65_536, 300_000]))
    def write(self, index: int, limit: int) -> None:
        """Write; it is on its way."""
        side = self.sides[index]
        wanted = side.session.wants_write
        parts, size = side.session.take(limit)
        data = b"".join(parts)
        assert len(data) == size <= limit
        assert not size or wanted
        assert size or not wanted or limit < 4_104
        self.sides[1 - index].arriving += data
        self._told(index, side.session.events())

    @rule(index=st.integers(0, 1), cut=st.integers(1, 20_000), passed=st.floats(0, 0.2))
    def deliver(self, index: int, cut: int, passed: float) -> None:
        """One piece of what is on its way arrives."""
        side = self.sides[index]
        self.now += passed
        piece = bytes(side.arriving[:cut])
        del side.arriving[:cut]
        if piece:
            self._told(index, side.session.receive(piece, self.now))

    @rule(index=st.integers(0, 1), passed=st.floats(0, 2), text=st.text(max_size=20))
    def tick(self, index: int, passed: float, text: str) -> None:
        self.now += passed
        self.sides[index].session.notice(text)
        events = self.sides[index].session.tick(self.now)
        # The pipe may be slower than a peer may be; that is what deadlines are for.
        self._told(index, [event for event in events if not isinstance(event, Dead)])

    @precondition(lambda self: len(self.sent) > 3)
    @rule()
    def settle(self) -> None:
        """Everything arrives, everything is consumed: nothing is missing."""
        for side in self.sides:
            for stream in side.session.streams.values():
                stream.sink_paused = False
        for _ in range(400):
            for index in (0, 1):
                self._fly(index, 300_000, cut=1 << 20)
                for stream in self._live(1 - index):
                    self.consume((1 - index, stream.id), far=False, share=1.0)
            idle = not any(side.session.wants_write or side.arriving for side in self.sides)
            if idle:
                break
        assert idle
        for index, side in enumerate(self.sides):
            for stream in side.session.streams.values():
                assert stream.state == State.OFFERED or not stream.queued
                received = self.sides[1 - index].got[stream.id]
                assert received == self.sent[index, stream.id]

    def _told(self, index: int, events: list[Event]) -> None:
        side = self.sides[index]
        for event in events:
            if isinstance(event, Data):
                assert event.stream.id not in side.ended
                side.got[event.stream.id] += event.payload
                side.unconsumed[event.stream.id] += len(event.payload)
            elif isinstance(event, Opened):
                event.stream.accept({})
            elif isinstance(event, Ended):
                side.ended.add(event.stream.id)
                sent = self.sent[1 - index, event.stream.id]
                assert side.got[event.stream.id] == sent
                assert (1 - index, event.stream.id) in self.finished
            elif isinstance(event, Closed):
                assert event.stream.id not in side.over
                side.over[event.stream.id] = "well"
                assert event.stream.state == State.CLOSED
            elif isinstance(event, Reset):
                assert event.stream.id not in side.over
                side.over[event.stream.id] = "badly"
                assert event.code in (Code.IDLE, Code.BUSY)
                assert event.code == Code.BUSY or event.stream.id in self.reset
            else:
                assert not isinstance(event, Drained | Accepted) or event.stream.id not in side.over

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for index, side in enumerate(getattr(self, "sides", ())):
            for stream_id, received in side.got.items():
                sent = self.sent[1 - index, stream_id]
                assert len(received) <= len(sent)
                assert sent.startswith(received)

    @invariant()
    def memory_is_accounted_for(self) -> None:
        if not hasattr(self, "sides"):
            return
        promised = 0
        for side in self.sides:
            live = side.session.streams.values()
            promised += sum(stream.window.size for stream in live)
            assert side.session.queued == sum(stream.queued for stream in live)
            for stream in live:
                assert 0 <= side.unconsumed[stream.id] <= stream.window.size
        assert self.budget.used == promised
        # First windows are given whatever the budget says; nothing else is.
        count = sum(len(side.session.streams) for side in self.sides)
        assert promised - count * INITIAL <= self.budget.limit


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(
    max_examples=examples(60),
    stateful_step_count=100,
    deadline=None,
    # Shrinking a hundred steps takes minutes; the steps that failed are shown as they are.
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
