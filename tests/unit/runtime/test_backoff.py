from __future__ import annotations

import pytest

from heim_runtime.backoff import Backoff


class SteppedClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return self.time


def worst(clock: SteppedClock | None = None, *, grace_s: float = 60.0) -> Backoff:
    return Backoff(
        first_s=1.0,
        ceiling_s=8.0,
        grace_s=grace_s,
        clock=clock or SteppedClock(),
        fraction=lambda: 1.0,
    )


def test_the_limit_doubles_up_to_the_ceiling() -> None:
    backoff = worst()
    assert [backoff.failed() for _ in range(6)] == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize(("fraction", "delay"), [(0.0, 0.0), (0.25, 0.25), (0.999, 0.999)])
def test_the_delay_is_a_fraction_of_the_limit(fraction: float, delay: float) -> None:
    assert Backoff(first_s=1.0, fraction=lambda: fraction).failed() == delay


def test_delays_of_two_clients_differ() -> None:
    assert {Backoff().failed() for _ in range(8)} != {Backoff().failed()}


def test_a_short_success_forgets_nothing() -> None:
    clock = SteppedClock()
    backoff = worst(clock)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    clock.time += 59.9
    assert backoff.failed() == 4.0


def test_a_long_success_forgets_the_failures() -> None:
    clock = SteppedClock()
    backoff = worst(clock)
    backoff.failed()
    backoff.failed()
    backoff.succeeded()
    clock.time += 30
    backoff.succeeded()
    clock.time += 30
    assert backoff.failed() == 1.0


def test_weeks_of_failures_do_not_overflow() -> None:
    backoff = worst()
    for _ in range(5000):
        delay = backoff.failed()
    assert delay == 8.0
    assert repr(backoff) == "<Backoff failures=5000 ceiling_s=8>"


@pytest.mark.parametrize(("first", "ceiling"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_limits_that_make_no_sense_are_refused(first: float, ceiling: float) -> None:
    with pytest.raises(ValueError, match="first_s"):
        Backoff(first_s=first, ceiling_s=ceiling)
