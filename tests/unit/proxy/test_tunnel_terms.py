from __future__ import annotations

import math
from typing import Any

import pytest

from heim_proxy.routing import Backend, Endpoint, TcpTarget
from heim_proxy.tunnel.terms import NOTICE_S, Stop, Terms, span
from heim_wire.errors import Code

T0 = 1_800_000_000.0


def target(**limits: Any) -> TcpTarget:
    return TcpTarget(Backend("web1"), Endpoint("tcp", "10.0.0.5", 22), **limits)


def check(
    terms: Terms, later: float, *, moved: int = 0, login: float = math.inf
) -> tuple[list[str], Stop | None]:
    return terms.check(T0 + later, moved=moved, login_end=T0 + login)


def test_without_limits_there_is_nothing_to_do_ever() -> None:
    terms = Terms(target(), T0, again="run: x")
    assert check(terms, 0.5) == ([], None)
    assert terms.due == math.inf
    assert check(terms, 1e9) == ([], None)


class TestSilence:
    def test_a_silent_stream_ends(self) -> None:
        terms = Terms(target(idle=60.0), T0, again="run: x")
        assert check(terms, 59.5)[1] is None
        stop = check(terms, 60.0)[1]
        assert stop == Stop(Code.IDLE, "idle_timeout", "closed after 1m without data")

    def test_every_byte_starts_the_clock_anew(self) -> None:
        terms = Terms(target(idle=60.0), T0, again="run: x")
        assert check(terms, 50, moved=1)[1] is None
        assert check(terms, 109, moved=1)[1] is None
        assert check(terms, 110, moved=1)[1] is not None

    def test_it_is_looked_for_at_every_tick(self) -> None:
        terms = Terms(target(idle=60.0), T0, again="run: x")
        check(terms, 5)
        assert terms.due <= T0 + 5.5


class TestAge:
    def test_an_old_stream_ends_and_is_told_before(self) -> None:
        terms = Terms(target(max_duration=3600.0), T0, again="run: x")
        assert check(terms, 0) == ([], None)
        assert terms.due == T0 + 3600 - NOTICE_S
        notices, stop = check(terms, 3600 - NOTICE_S)
        assert stop is None
        assert [text.split(",")[0] for text in notices] == ["this connection ends at 09:00 UTC"]
        assert terms.due == T0 + 3600
        assert check(terms, 3599) == ([], None)
        stop = check(terms, 3600)[1]
        assert stop is not None
        assert (stop.code, stop.end) == (Code.MAX_DURATION, "max_duration")
        assert stop.reason == "closed after 1h, the limit that is set for web1"

    def test_traffic_does_not_make_it_younger(self) -> None:
        terms = Terms(target(max_duration=10.0, idle=5.0), T0, again="run: x")
        for second in range(10):
            assert check(terms, second, moved=second + 1)[1] is None
        assert check(terms, 10, moved=100)[1] is not None

    def test_a_short_life_is_not_announced(self) -> None:
        terms = Terms(target(max_duration=NOTICE_S), T0, again="run: x")
        assert check(terms, 0) == ([], None)
        assert terms.due == T0 + NOTICE_S


class TestLogin:
    def test_its_end_is_told_once_and_left_to_others(self) -> None:
        terms = Terms(target(), T0, again="run: x")
        assert check(terms, 0, login=1000) == ([], None)
        assert terms.due == T0 + 1000 - NOTICE_S
        notices, stop = check(terms, 700, login=1000)
        assert notices == ["your login ends at 08:16 UTC; run: x"]
        assert stop is None
        assert check(terms, 701, login=1000) == ([], None)
        assert check(terms, 2000, login=1000) == ([], None)
        assert terms.due == math.inf

    def test_one_that_ends_soon_is_told_at_once(self) -> None:
        assert check(Terms(target(), T0, again="run: x"), 0, login=10)[0]

    def test_one_that_was_prolonged_is_told_again(self) -> None:
        terms = Terms(target(), T0, again="run: x")
        assert check(terms, 0, login=100)[0]
        assert check(terms, 1, login=10_000) == ([], None)
        assert check(terms, 9_800, login=10_000)[0]


class TestChange:
    def test_new_limits_hold_for_a_running_stream(self) -> None:
        terms = Terms(target(), T0, again="run: x")
        check(terms, 0)
        terms.change(target(max_duration=3600.0, idle=60.0))
        assert terms.due == -math.inf
        assert check(terms, 59)[1] is None
        stop = check(terms, 61)[1]
        assert stop is not None
        assert stop.code == Code.IDLE

    def test_a_limit_that_is_gone_ends_nothing(self) -> None:
        terms = Terms(target(max_duration=10.0), T0, again="run: x")
        terms.change(target())
        assert check(terms, 100) == ([], None)

    def test_a_longer_life_is_announced_in_its_time(self) -> None:
        terms = Terms(target(max_duration=60.0), T0, again="run: x")
        check(terms, 0)
        terms.change(target(max_duration=7200.0))
        assert check(terms, 60) == ([], None)
        assert check(terms, 7200 - NOTICE_S)[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "0.5s"), (45, "45s"), (60, "1m"), (90, "90s"), (3600, "1h"), (5400, "90m"),
     (86400, "1d"), (604800, "7d")],
)  # fmt: skip
def test_durations_are_said_in_the_biggest_whole_unit(seconds: float, text: str) -> None:
    assert span(seconds) == text
