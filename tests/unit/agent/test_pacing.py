from __future__ import annotations

from dataclasses import replace

import pytest

from heim_agent.endings import Ending, Kind
from heim_agent.pacing import GRACE_S, Pacer

LOST = Ending(Kind.LOST, "it broke")
REFUSED = Ending(Kind.REFUSED, "no")


class Time:
    """A clock in our hands; and jitter."""

    def __init__(self) -> None:
        self.at = 0.0
        self.part = 0.999999

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def fraction(self) -> float:
        return self.part


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def pacer(time: Time) -> Pacer:
    return Pacer(time, time.fraction)


def delays(pacer: Pacer, ending: Ending, count: int) -> list[float]:
    return [round(pacer.after(ending), 2) for _ in range(count)]


def test_delays_double_up_to_half_a_minute(pacer: Pacer) -> None:
    assert delays(pacer, LOST, 8) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_delays_are_anywhere_between_nothing_and_their_limit(pacer: Pacer, time: Time) -> None:
    time.part = 0.0
    assert delays(pacer, LOST, 3) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.UNTRUSTED, Kind.SUPERSEDED])
def test_what_a_person_must_mend_is_asked_for_every_five_minutes(pacer: Pacer, kind: Kind) -> None:
    ending = replace(REFUSED, kind=kind)
    assert delays(pacer, ending, 8) == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]


@pytest.mark.parametrize(
    ("lived_s", "first"),
    [(GRACE_S - 1, 30.0), (GRACE_S + 1, 0.25)],
    ids=["less than a minute", "a healthy minute"],
)
def test_a_lane_that_was_healthy_comes_back_at_once_and_once(
    pacer: Pacer, lived_s: float, first: float
) -> None:
    delays(pacer, LOST, 7)
    assert delays(pacer, LOST.after(lived_s), 1) == [first]
    if first < 1:
        assert delays(pacer, LOST, 3) == [0.5, 1.0, 2.0]


def test_a_healthy_lane_that_is_refused_does_not_come_back_at_once(pacer: Pacer) -> None:
    assert delays(pacer, REFUSED.after(3600.0), 1) == [5.0]
    assert delays(pacer, REFUSED, 2) == [10.0, 20.0]


@pytest.mark.parametrize(
    ("part", "low", "high"), [(0.0, 7.0, 7.0), (0.999999, 7.0, 7.71)], ids=["early", "late"]
)
def test_who_was_asked_to_wait_waits_so_long_and_a_little(
    pacer: Pacer, time: Time, part: float, low: float, high: float
) -> None:
    time.part = part
    assert low <= pacer.after(replace(LOST, kind=Kind.BUSY, wait_s=7.0)) <= high


def test_a_peer_that_says_at_once_for_ever_is_not_believed(pacer: Pacer) -> None:
    ending = replace(LOST, kind=Kind.AWAY, wait_s=0.01)
    assert delays(pacer, ending, 7)[-1] == 30.0


def test_a_healthy_lane_that_was_sent_away_comes_when_it_was_told(pacer: Pacer) -> None:
    ending = replace(LOST, kind=Kind.AWAY, wait_s=4.0).after(3600.0)
    assert pacer.after(ending) == pytest.approx(4.4, abs=0.01)


def test_nobody_is_kept_away_for_a_day_by_a_header(pacer: Pacer) -> None:
    assert pacer.after(replace(LOST, wait_s=86_400.0)) <= 605.0


def test_while_the_proxy_is_expected_back_delays_stay_short(pacer: Pacer, time: Time) -> None:
    delays(pacer, LOST, 7)
    pacer.after(replace(LOST, kind=Kind.AWAY, wait_s=1.0, try_for_s=60.0))
    assert max(delays(pacer, LOST, 5)) <= 5.0
    time.at = 62.0
    assert delays(pacer, LOST, 1) == [30.0]


def test_a_refusal_with_a_time_waits_for_the_longer_of_both(pacer: Pacer) -> None:
    ending = replace(REFUSED, kind=Kind.SUPERSEDED, wait_s=60.0)
    assert delays(pacer, ending, 1)[0] >= 60.0
    assert delays(pacer, ending, 7)[-1] == 300.0
