from __future__ import annotations

import pytest

from heim_agent.renewal import Renewals, Span, Urgency
from tests.fakes.lane_host import Root

DAY = 86_400.0
SPAN = Span(0.0, DAY)


def never() -> float:
    return 0.0


@pytest.mark.parametrize(
    ("part", "urgency"),
    [
        (0.0, Urgency.EARLY),
        (0.66, Urgency.EARLY),
        (0.67, Urgency.DUE),
        (0.83, Urgency.DUE),
        (0.84, Urgency.LATE),
        (0.999, Urgency.LATE),
        (1.0, Urgency.OVER),
        (2.0, Urgency.OVER),
    ],
)
def test_how_bad_it_is_that_nothing_was_renewed(part: float, urgency: Urgency) -> None:
    assert SPAN.urgency(part * DAY) is urgency


def test_it_is_time_after_two_thirds_of_a_life() -> None:
    renewals = Renewals(SPAN, never)
    assert renewals.wait_s(0.0) == pytest.approx(16 * 3600)
    assert renewals.wait_s(20 * 3600.0) == 0.0


def test_a_renewed_one_starts_anew() -> None:
    renewals = Renewals(SPAN, never)
    renewals.failed(17 * 3600.0)
    renewals.renewed(Span(17 * 3600.0, 17 * 3600.0 + DAY))
    assert renewals.wait_s(17 * 3600.0) == pytest.approx(16 * 3600)


def test_attempts_that_fail_are_repeated_at_growing_intervals() -> None:
    renewals = Renewals(SPAN, never)
    now, waits = 16 * 3600.0, []
    for _ in range(7):
        renewals.failed(now)
        waits.append(renewals.wait_s(now))
        now += waits[-1]
    assert waits == [30, 60, 120, 240, 480, 900, 900]


def test_attempts_become_more_frequent_when_little_is_left() -> None:
    renewals = Renewals(SPAN, never)
    for _ in range(9):
        renewals.failed(DAY - 1200.0)
    assert renewals.wait_s(DAY - 1200.0) == pytest.approx(100.0)
    renewals.failed(DAY + 1.0)
    assert renewals.wait_s(DAY + 1.0) == 30.0


def test_lanes_do_not_ask_together() -> None:
    renewals = Renewals(SPAN, lambda: 1.0)
    renewals.failed(16 * 3600.0)
    assert renewals.wait_s(16 * 3600.0) == pytest.approx(24.0)


def test_a_failure_tells_how_bad_it_is() -> None:
    renewals = Renewals(SPAN, never)
    assert renewals.failed(17 * 3600.0) is Urgency.DUE
    assert renewals.failed(21 * 3600.0) is Urgency.LATE
    assert renewals.failed(25 * 3600.0) is Urgency.OVER


def test_a_life_is_read_from_a_certificate() -> None:
    root = Root()
    span = Span.of(root.certificate(root.key.public_key(), begins=-300.0, life_s=DAY))
    assert span.ends - span.begins == DAY
    with pytest.raises(ValueError, match=r"[Pp]ars"):
        Span.of(b"no certificate")
