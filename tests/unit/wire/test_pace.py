from __future__ import annotations

import pytest

from heim_wire.errors import Code, WireError
from heim_wire.pace import BURST, PER_SECOND, Pace


def spent(pace: Pace, now: float) -> int:
    """How many frames may come at `now`."""
    for count in range(10 * BURST):
        try:
            pace.spend(now)
        except WireError as refused:
            assert refused.code == Code.PROTOCOL
            return count
    raise AssertionError("no end")


def test_a_burst_is_as_large_as_a_proxy_that_drains_needs() -> None:
    assert spent(Pace(0.0), 0.0) == BURST
    assert BURST >= 2 * 1024


def test_in_the_long_run_it_is_so_many_a_second() -> None:
    pace = Pace(0.0)
    for tenth in range(6000):
        for _ in range(PER_SECOND // 10):
            pace.spend(tenth / 10)
    assert spent(pace, 600.0) <= BURST + 1


def test_twice_as_many_are_noticed_within_a_minute() -> None:
    pace = Pace(0.0)
    with pytest.raises(WireError):
        for tenth in range(600):
            for _ in range(PER_SECOND // 5):
                pace.spend(tenth / 10)


def test_silence_saves_up_no_more_than_a_burst() -> None:
    pace = Pace(0.0)
    pace.spend(0.0)
    assert spent(pace, 1e6) == BURST
