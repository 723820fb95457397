from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heim_wire.liveness import DEAD_AFTER, PING_EVERY, Liveness

NOTHING = (None, None)


class Entropy:
    """Eight bytes that are never the same; two bytes (the jitter) in the middle."""

    def __init__(self, jitter: bytes = b"\x80\x00") -> None:
        self.jitter = jitter
        self.count = 0

    def __call__(self, size: int) -> bytes:
        if size == 2:
            return self.jitter
        self.count += 1
        return self.count.to_bytes(size, "big")


def alive(jitter: bytes = b"\x80\x00") -> Liveness:
    one = Liveness(0.0, Entropy(jitter))
    one.greeted = True
    return one


def ping(number: int) -> bytes:
    return number.to_bytes(8, "big")


def test_a_peer_that_does_not_greet_is_not_there() -> None:
    one = Liveness(100.0, os.urandom)
    assert one.deadline == 105.0
    one.heard(104.0)
    assert one.tick(104.9, None) == NOTHING
    assert one.tick(105.0, None) == (None, "no HELLO within 5 s")


def test_silence_is_asked_about_and_then_it_is_death() -> None:
    one = alive()
    assert one.deadline == pytest.approx(15.0, abs=0.01)
    assert one.tick(10.0, None) == NOTHING
    assert one.tick(15.1, None) == (ping(1), None)
    assert one.tick(15.2, None) == NOTHING
    assert one.deadline == 25.0
    assert one.tick(24.9, None) == NOTHING
    assert one.tick(25.0, None) == (None, "nothing was received for 25 s")


def test_silence_after_a_long_life_is_asked_about_after_ten_seconds() -> None:
    one = alive()
    one.heard(100.0)
    assert one.deadline == 110.0
    assert one.tick(110.0, None) == (ping(1), None)
    assert one.deadline == 125.0


def test_any_byte_is_a_sign_of_life() -> None:
    one = alive()
    for now in range(0, 1000, 9):
        one.heard(float(now))
        assert one.tick(now + 8.9, None) == NOTHING


def test_a_silent_peer_that_answers_is_asked_every_quarter_of_a_minute() -> None:
    one, now, pings = alive(), 0.0, 0
    while now < 600:
        now = one.deadline
        payload, dead = one.tick(now, None)
        assert dead is None
        if payload is not None:
            pings += 1
            one.heard(now + 0.05)
            one.pong(payload)
    assert pings == pytest.approx(600 / PING_EVERY, abs=2)


@given(st.binary(min_size=2, max_size=2))
def test_sessions_that_began_together_do_not_ping_together(jitter: bytes) -> None:
    assert 13.5 <= alive(jitter).deadline <= 16.5


def test_jitter_uses_all_of_its_range() -> None:
    assert alive(b"\0\0").deadline == pytest.approx(13.5)
    assert alive(b"\xff\xff").deadline == pytest.approx(16.5)


def test_the_latest_round_trip_counts() -> None:
    """An upload fills the queues on the way within a second; what was before says nothing."""
    one = alive()
    first = one.measure()
    assert first is not None
    assert one.rtt is None
    one.heard(0.04)
    one.pong(first)
    assert one.rtt == pytest.approx(0.04)
    one.heard(20.0)
    second = one.measure()
    assert second is not None
    one.heard(20.12)
    one.pong(second)
    assert one.rtt == pytest.approx(0.12)


def test_an_estimate_is_good_for_a_while() -> None:
    one = alive()
    payload = one.measure()
    assert payload is not None
    assert one.measure() is None, "one is on its way"
    one.heard(0.04)
    one.pong(payload)
    assert one.measure() is None
    one.heard(0.28)
    assert one.measure() is None
    one.heard(0.30)
    assert one.measure() is not None


@pytest.mark.parametrize("payload", [b"\0" * 8, b"\xff" * 8])
def test_an_answer_that_was_not_asked_for_says_nothing(payload: bytes) -> None:
    one = alive()
    one.pong(payload)
    assert one.rtt is None
    real = one.measure()
    assert real is not None
    one.pong(payload)
    assert one.rtt is None
    one.pong(real)
    assert one.rtt == 0.0
    one.heard(5.0)
    one.pong(real)
    assert one.rtt == 0.0, "the same answer again"


def test_a_machine_that_slept_asks_before_it_gives_up() -> None:
    one = alive()
    assert one.tick(1.0, 1_000_001.0) == NOTHING
    # The monotonic clock stood still for ten minutes.
    assert one.tick(2.0, 1_000_602.0) == (ping(1), None)
    assert one.deadline == 5.0
    assert one.tick(4.9, 1_000_604.9) == NOTHING
    assert one.tick(5.0, 1_000_605.0) == (None, "nothing was received for 5 s")


def test_a_peer_that_answers_after_sleep_lives_on() -> None:
    one = alive()
    one.tick(1.0, 1_000_001.0)
    payload, _ = one.tick(2.0, 1_000_602.0)
    assert payload is not None
    one.heard(2.3)
    one.pong(payload)
    assert one.tick(10.0, 1_000_610.0) == NOTHING
    assert one.deadline > 12.0


@pytest.mark.parametrize("step", [-3600.0, -1.0, 4.9])
def test_a_clock_that_is_set_is_not_sleep(step: float) -> None:
    one = alive()
    assert one.tick(1.0, 1_000_001.0) == NOTHING
    assert one.tick(2.0, 1_000_002.0 + step) == NOTHING


def test_a_loop_that_was_busy_asks_before_it_gives_up() -> None:
    one = alive()
    payload, dead = one.tick(60.0, None)
    assert payload is not None
    assert dead is None
    assert one.deadline == 63.0
    assert one.tick(63.0, None) == (None, "nothing was received for 63 s")


def test_a_loop_that_was_busy_for_three_seconds_kills_nobody() -> None:
    one = alive()
    one.tick(15.1, None)
    one.heard(20.0)
    assert one.tick(23.0, None) == NOTHING


def test_after_a_long_life_silence_is_not_taken_for_a_busy_loop() -> None:
    one = alive()
    one.heard(100.0)
    assert one.tick(one.deadline, None)[0] is not None
    assert one.deadline == 100.0 + DEAD_AFTER


def test_time_that_nobody_listened_in_does_not_count_before_hello_either() -> None:
    one = Liveness(0.0, Entropy())
    payload, dead = one.tick(11.0, None)
    assert (payload, dead) == (ping(1), None)
    assert one.tick(14.0, None) == (None, "no HELLO within 5 s")


def test_who_leaves_asking_to_the_peer_asks_when_it_does_not() -> None:
    one = Liveness(0.0, Entropy(), 20.0)
    one.greeted = True
    for moment in (15.0, 30.0, 45.0):
        one.heard(moment)
        assert one.deadline == moment + 20.0
    assert one.tick(65.0, None) == (ping(1), None)
    assert one.deadline == 70.0
    assert one.tick(70.0, None) == (None, "nothing was received for 25 s")
