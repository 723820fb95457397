from __future__ import annotations

import pytest

from heim_wire.errors import Code, WireError
from heim_wire.pace import BURST, PER_SECOND, Pace


def spent(pace: Pace, now: float, limit: int = 10 * BURST) -> int:
    """How many of `limit` frames may come at `now`."""
    for count in range(limit):
        try:
            pace.spend(now)
        except WireError:
            return count
    return limit


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
    ends = (now for now in range(60) if spent(pace, now, limit=2 * PER_SECOND) < 2 * PER_SECOND)
    assert 10 < next(ends) < 30


def test_too_many_are_a_breach_of_the_protocol() -> None:
    pace = Pace(0.0)
    spent(pace, 0.0)
    with pytest.raises(WireError) as refused:
        pace.spend(0.0)
    assert refused.value.code == Code.PROTOCOL


def test_silence_saves_up_no_more_than_a_burst() -> None:
    pace = Pace(0.0)
    pace.spend(0.0)
    assert spent(pace, 1e6) == BURST
