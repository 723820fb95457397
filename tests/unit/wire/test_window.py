from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.window import INITIAL, Purse, ReceiveWindow, WindowBudget

KIB = 1024
MIB = 1024 * KIB
RTT = 0.04


def window(limit: int = 64 * MIB, budget: WindowBudget | None = None) -> ReceiveWindow:
    return ReceiveWindow(Purse(limit, budget or WindowBudget()), 0.0)


def consume(one: ReceiveWindow, size: int, now: float, rtt: float | None = RTT) -> int:
    assert one.arrived(size)
    return one.consumed(size, now, rtt=rtt, most=16 * MIB)


def test_a_window_begins_with_what_nobody_has_to_grant() -> None:
    one = window()
    assert (one.size, one.credit) == (INITIAL, INITIAL) == (64 * KIB, 64 * KIB)
    assert one.arrived(INITIAL)
    assert not one.arrived(1)


def test_an_opened_stream_is_granted_the_rest_of_its_window() -> None:
    one = window()
    assert one.widen(256 * KIB) == 192 * KIB
    assert one.credit == 256 * KIB
    assert one.widen(256 * KIB) == 0


def test_a_window_is_granted_again_at_half() -> None:
    one = window()
    one.widen(256 * KIB)
    assert consume(one, 128 * KIB - 1, 1.0) == 0
    assert consume(one, 1, 1.0) == 128 * KIB
    assert one.credit == 256 * KIB


def test_what_was_not_consumed_is_not_granted_again() -> None:
    one = window()
    assert one.arrived(INITIAL)
    assert one.credit == 0
    assert one.consumed(INITIAL // 4, 0.0, rtt=None, most=MIB) == 0
    assert one.credit == 0


def test_more_cannot_be_consumed_than_was_received() -> None:
    one = window()
    one.arrived(10)
    with pytest.raises(ValueError, match="11 of 10"):
        one.consumed(11, 0.0, rtt=None, most=MIB)


def run(one: ReceiveWindow, *, rate: float, rtt: float | None, seconds: float = 5.0) -> None:
    """A sender that has `rate` bytes a second at most, and waits a round trip for its credit."""
    now = 0.0
    while now < seconds:
        size = min(one.credit, 64 * KIB)
        if size == 0:
            return
        # A window that is smaller than the path's product takes one round trip.
        now += size / min(rate, one.size / (rtt or RTT))
        consume(one, size, now, rtt)


@pytest.mark.parametrize(
    ("megabits", "rtt", "smallest", "largest"),
    [
        pytest.param(100, 0.04, 512 * KIB, 2 * MIB, id="100 Mbit/s at 40 ms"),
        pytest.param(1000, 0.1, 12 * MIB, 16 * MIB, id="1 Gbit/s at 100 ms: as far as it goes"),
        pytest.param(10_000, 0.2, 16 * MIB, 16 * MIB, id="more than it may become"),
        pytest.param(10, 0.02, 256 * KIB, 256 * KIB, id="a slow link needs no more"),
    ],
)
def test_a_window_grows_to_what_the_path_needs(
    megabits: int, rtt: float, smallest: int, largest: int
) -> None:
    one = window()
    one.widen(256 * KIB)
    run(one, rate=megabits * 125_000, rtt=rtt)
    assert smallest <= one.size <= largest


def test_without_a_round_trip_a_window_stays_as_it_is() -> None:
    one = window()
    one.widen(256 * KIB)
    run(one, rate=1e9, rtt=None)
    assert one.size == 256 * KIB


def test_a_window_whose_sink_was_paused_does_not_grow() -> None:
    one = window()
    one.widen(256 * KIB)
    for _ in range(100):
        one.pause(True)
        one.pause(False)
        consume(one, 64 * KIB, 0.0)
    assert one.size == 256 * KIB
    for _ in range(20):
        one.pause(False)
        consume(one, 64 * KIB, 0.0)
    assert one.size == 1 * MIB


def test_a_sink_that_stays_paused_says_nothing_about_the_window() -> None:
    one = window()
    one.pause(True)
    for _ in range(100):
        consume(one, 32 * KIB, 0.0)
    assert one.size == INITIAL


def test_a_session_promises_no_more_than_it_may() -> None:
    budget = WindowBudget()
    purse = Purse(MIB, budget)
    windows = [ReceiveWindow(purse, 0.0) for _ in range(8)]
    granted = [one.widen(256 * KIB) for one in windows]
    assert granted == [192 * KIB, 192 * KIB, 0, 0, 0, 0, 0, 0]
    assert purse.used == budget.used == 8 * INITIAL + 2 * 192 * KIB <= MIB
    for one in windows:
        one.release()
    assert purse.used == budget.used == 0


def test_a_process_promises_no_more_than_it_may() -> None:
    budget = WindowBudget(512 * KIB)
    mine, yours = window(budget=budget), window(budget=budget)
    assert mine.widen(256 * KIB) == 192 * KIB
    assert yours.widen(256 * KIB) == 192 * KIB
    assert window(budget=budget).widen(256 * KIB) == 0
    assert WindowBudget().limit == 512 * MIB


def test_beyond_the_budget_first_windows_are_given_still() -> None:
    budget = WindowBudget(0)
    assert window(budget=budget).credit == INITIAL
    assert budget.used == INITIAL


def test_a_window_that_was_too_small_for_want_of_memory_grows_once_there_is_some() -> None:
    budget = WindowBudget(128 * KIB)
    other = window(budget=budget)
    one = window(budget=budget)
    assert consume(one, INITIAL, 0.0) == INITIAL
    other.release()
    assert consume(one, INITIAL, 0.0) == 2 * INITIAL
    assert one.size == 128 * KIB


@given(st.lists(st.tuples(st.integers(1, 80_000), st.booleans(), st.floats(0, 0.1)), max_size=200))
def test_the_books_always_balance(steps: list[tuple[int, bool, float]]) -> None:
    budget = WindowBudget(2 * MIB)
    one = window(budget=budget)
    now, waiting = 0.0, 0
    for size, arrives, passed in steps:
        now += passed
        if arrives and size <= one.credit:
            one.arrived(size)
            waiting += size
        elif not arrives and waiting:
            size = min(size, waiting)
            waiting -= size
            one.consumed(size, now, rtt=RTT, most=16 * MIB)
        assert one.credit + one._waiting + one._due == one.size == budget.used <= 2 * MIB
        assert one._waiting == waiting
        assert one._due * 2 < one.size


def test_what_a_part_of_a_budget_promises_counts_for_the_whole() -> None:
    whole = WindowBudget(300 * KIB)
    parts = [WindowBudget(200 * KIB, parent=whole) for _ in range(2)]
    purses = [Purse(64 * MIB, part) for part in parts]
    assert purses[0].reserve(200 * KIB)
    assert not purses[0].reserve(1)
    assert not purses[1].reserve(101 * KIB)
    assert purses[1].reserve(100 * KIB)
    purses[0].release(200 * KIB)
    assert whole.used == 100 * KIB
