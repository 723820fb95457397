from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.frames import HEAD_BYTES, MAX_DATA
from heim_wire.scheduler import HIGH_MARK, LOW_MARK, QUANTUM, Scheduler, SendQueue
from tests.unit.wire.pairs import frames

PLENTY = 1 << 30


class Queue(SendQueue):
    """A queue that writes down what it is told."""

    def __init__(self, stream_id: int, credit: int = PLENTY) -> None:
        super().__init__(stream_id, credit)
        self.told: list[str] = []

    def drained(self) -> None:
        self.told.append("drained")

    def emptied(self) -> None:
        self.told.append("emptied")


def take(scheduler: Scheduler, room: int = 65_536) -> list[tuple[int, bytes]]:
    """(stream, payload) of one take."""
    parts: list[bytes | memoryview] = []
    size = scheduler.take(room, parts)
    data = b"".join(parts)
    assert len(data) == size <= room
    return [(stream, payload) for _, stream, payload in frames(data)]


def bulk(scheduler: Scheduler, *ids: int, size: int = 1 << 22) -> list[Queue]:
    queues = [Queue(stream_id) for stream_id in ids]
    for queue in queues:
        for _ in range(size // 65_536):
            scheduler.push(queue, b"b" * 65_536)
    return queues


def test_nothing_waits_and_nothing_is_taken() -> None:
    scheduler = Scheduler()
    assert not scheduler.busy
    assert take(scheduler) == []


def test_what_is_pushed_is_taken_in_order() -> None:
    scheduler, queue = Scheduler(), Queue(1)
    for word in (b"one ", b"two ", b"three"):
        scheduler.push(queue, word)
    assert (scheduler.queued, queue.queued) == (13, 13)
    assert take(scheduler) == [(1, b"one two three")]
    assert (scheduler.queued, queue.queued, scheduler.busy) == (0, 0, False)
    assert queue.told == ["emptied"]


def test_a_stream_that_is_alone_sends_frames_as_long_as_they_can_be() -> None:
    scheduler = Scheduler()
    bulk(scheduler, 1)
    assert [len(payload) for _, payload in take(scheduler, 200_000)] == [MAX_DATA] * 3


def test_streams_that_wait_together_send_two_tls_records_each_in_turn() -> None:
    scheduler = Scheduler()
    bulk(scheduler, 1, 3, 5)
    sent = [(stream, len(payload)) for stream, payload in take(scheduler, 6 * (QUANTUM + 8))]
    assert sent == [(stream, QUANTUM) for stream in (1, 3, 5, 1, 3, 5)]
    assert QUANTUM + HEAD_BYTES + 8 == 2 * 16_384


@pytest.mark.parametrize("room", [16_384, 32_768, 50_000, 65_536])
def test_bulk_streams_share_fairly_whatever_is_taken_at_a_time(room: int) -> None:
    scheduler = Scheduler()
    bulk(scheduler, 1, 3, 5, 7)
    sent: Counter[int] = Counter()
    while sent.total() < 8 << 20:
        for stream, payload in take(scheduler, room):
            sent[stream] += len(payload)
    assert max(sent.values()) <= min(sent.values()) * 1.03


def test_chunks_of_any_size_share_fairly() -> None:
    scheduler, rng = Scheduler(), random.Random(1)
    queues = [Queue(1), Queue(3), Queue(5)]
    sizes = {1: 65_536, 3: 1, 5: 1500}
    sent: Counter[int] = Counter()
    while sent.total() < 1 << 20:
        for queue in queues:
            while not queue.full:
                scheduler.push(queue, b"x" * rng.randint(1, sizes[queue.id]))
        for stream, payload in take(scheduler):
            sent[stream] += len(payload)
    assert max(sent.values()) - min(sent.values()) <= QUANTUM, "one turn"


@pytest.mark.parametrize("bulks", [1, 4, 30])
def test_a_stream_that_was_quiet_is_next(bulks: int) -> None:
    scheduler = Scheduler()
    bulk(scheduler, *range(3, 3 + 2 * bulks, 2))
    for _ in range(bulks):
        take(scheduler)
    key = Queue(1)
    for _ in range(100):
        scheduler.push(key, b"k" * 64)
        assert take(scheduler)[0] == (1, b"k" * 64)


def test_a_stream_that_was_alone_makes_room_at_once() -> None:
    scheduler = Scheduler()
    bulk(scheduler, 3)
    take(scheduler)
    key = Queue(1)
    scheduler.push(key, b"k")
    assert take(scheduler)[0] == (1, b"k")


@pytest.mark.parametrize("room", [5_000, 20_000, 65_536, 200_000])
def test_what_a_stream_was_too_large_for_while_alone_is_not_sent_at_once_later(room: int) -> None:
    """A frame that was cut by the room left the rest of its turn, 80 KiB, for the next frame."""
    scheduler = Scheduler()
    bulk(scheduler, 3)
    take(scheduler, room)
    bulk(scheduler, 1)
    assert max(len(payload) for _, payload in take(scheduler, 400_000)) <= QUANTUM


def test_a_stream_that_comes_back_again_and_again_gets_no_more_than_its_share() -> None:
    """Emptying one's queue before each turn is no way to stay in front (RFC 8290, 4.2)."""
    scheduler = Scheduler()
    bulk(scheduler, 3, 5, size=1 << 24)
    greedy = Queue(1)
    sent: Counter[int] = Counter()
    for _ in range(600):
        if not greedy.queued:
            scheduler.push(greedy, b"g" * QUANTUM)
        for stream, payload in take(scheduler, QUANTUM + HEAD_BYTES):
            sent[stream] += len(payload)
    assert sent[1] <= min(sent[3], sent[5]) * 1.03


def test_without_credit_a_stream_waits() -> None:
    scheduler, queue = Scheduler(), Queue(1, credit=10)
    scheduler.push(queue, b"x" * 25)
    assert take(scheduler) == [(1, b"x" * 10)]
    assert not scheduler.busy
    assert queue.told == []
    scheduler.allow(queue, 5)
    assert take(scheduler) == [(1, b"x" * 5)]
    scheduler.allow(queue, 100)
    assert take(scheduler) == [(1, b"x" * 10)]
    assert (queue.credit, queue.told) == (90, ["emptied"])


@pytest.mark.parametrize("size", [9, 10, 11, 20])
def test_no_byte_goes_beyond_the_credit(size: int) -> None:
    scheduler, queue = Scheduler(), Queue(1, credit=10)
    scheduler.push(queue, b"x" * size)
    assert take(scheduler) == [(1, b"x" * min(size, 10))]


def test_one_without_credit_does_not_hold_up_the_others() -> None:
    scheduler, stuck = Scheduler(), Queue(1, credit=0)
    scheduler.push(stuck, b"x")
    bulk(scheduler, 3)
    assert {stream for stream, _ in take(scheduler)} == {3}


def test_a_source_is_told_to_go_on_when_its_queue_is_low() -> None:
    scheduler, queue = Scheduler(), Queue(1)
    scheduler.push(queue, b"x" * (HIGH_MARK - 1))
    assert not queue.full
    scheduler.push(queue, b"x")
    assert queue.full
    take(scheduler, LOW_MARK)
    assert queue.told == []
    take(scheduler, 100)
    assert queue.told == ["drained"]
    take(scheduler)
    assert queue.told == ["drained", "emptied"]


def test_a_source_that_was_not_stopped_is_not_told() -> None:
    scheduler, queue = Scheduler(), Queue(1)
    scheduler.push(queue, b"x" * 100_000)
    take(scheduler)
    take(scheduler)
    assert queue.told == ["emptied"]


def test_the_rest_of_the_room_is_not_filled_with_crumbs() -> None:
    scheduler = Scheduler()
    bulk(scheduler, 1, 3)
    assert [len(payload) for _, payload in take(scheduler, QUANTUM + 8 + 1000)] == [QUANTUM]


@pytest.mark.parametrize("room", [0, 1, 8])
def test_no_room_for_a_byte_is_no_room(room: int) -> None:
    scheduler = Scheduler()
    bulk(scheduler, 1)
    assert take(scheduler, room) == []


def test_little_room_is_used() -> None:
    scheduler = Scheduler()
    bulk(scheduler, 1, 3)
    assert take(scheduler, 9) == [(1, b"b")]


def test_single_bytes_do_not_take_a_hundred_times_their_size() -> None:
    scheduler, queue = Scheduler(), Queue(1)
    for _ in range(50_000):
        scheduler.push(queue, b"x")
    assert len(queue._chunks) < 50
    assert sum(len(payload) for _, payload in take(scheduler)) == 50_000


def test_large_chunks_are_not_copied() -> None:
    scheduler, queue, chunk = Scheduler(), Queue(1), b"x" * 100_000
    scheduler.push(queue, chunk)
    parts: list[bytes | memoryview] = []
    scheduler.take(50_000, parts)
    scheduler.take(65_536, parts)
    views = [part for part in parts if len(part) > HEAD_BYTES]
    assert [view.obj is chunk for view in views if isinstance(view, memoryview)] == [True, True]


def test_what_is_dropped_is_gone() -> None:
    scheduler = Scheduler()
    one, other = bulk(scheduler, 1, 3)
    take(scheduler)
    scheduler.drop(one)
    scheduler.drop(one)
    assert one.queued == 0
    assert scheduler.queued == other.queued
    assert {stream for stream, _ in take(scheduler)} == {3}
    scheduler.drop(other)
    assert not scheduler.busy
    assert scheduler.queued == 0


steps = st.lists(
    st.tuples(st.sampled_from(["push", "allow", "take", "drop"]), st.integers(0, 3),
              st.integers(1, 40_000)),
    max_size=60,
)  # fmt: skip


@given(steps)
def test_every_byte_comes_out_once_and_in_order(moves: list[tuple[str, int, int]]) -> None:
    scheduler = Scheduler()
    queues = [Queue(stream_id, credit=1000) for stream_id in (1, 2, 3, 4)]
    model = [bytearray() for _ in queues]
    for number, (what, index, size) in enumerate(moves):
        queue, waiting = queues[index], model[index]
        if what == "push":
            chunk = number.to_bytes(2, "big") * size
            scheduler.push(queue, chunk)
            waiting += chunk
        elif what == "allow":
            scheduler.allow(queue, size)
        elif what == "drop":
            scheduler.drop(queue)
            waiting.clear()
        else:
            for stream, payload in take(scheduler, size + 8):
                assert model[stream - 1].startswith(payload)
                del model[stream - 1][: len(payload)]
        assert [one.queued for one in queues] == [len(one) for one in model]
        assert scheduler.queued == sum(map(len, model))
        assert all(one.credit >= 0 for one in queues)
        assert scheduler.busy == any(one.queued and one.credit for one in queues)


def test_marks_of_its_own_decide_when_a_queue_is_full_and_drained() -> None:
    scheduler, queue = Scheduler(), Queue(1, credit=0)
    queue.set_marks(101, 11)
    scheduler.push(queue, b"x" * 100)
    assert not queue.full
    scheduler.push(queue, b"x")
    assert queue.full
    for credit, told in ((90, []), (1, ["drained"]), (10, ["drained", "emptied"])):
        scheduler.allow(queue, credit)
        take(scheduler)
        assert queue.told == told


def test_a_lower_mark_makes_a_queue_full_at_once() -> None:
    scheduler, queue = Scheduler(), Queue(1)
    scheduler.push(queue, b"x" * 100)
    queue.set_marks(1, 1)
    assert queue.full
    take(scheduler)
    assert queue.told == ["drained", "emptied"]
