from __future__ import annotations

from heim_controller.kube.moments import micro_time, time_of


def test_a_micro_time_has_six_digits() -> None:
    assert micro_time(0) == "1970-01-01T00:00:00.000000Z"
    assert micro_time(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"


def test_a_time_has_seconds() -> None:
    assert time_of(1_700_000_000.99) == "2023-11-14T22:13:20Z"
