from __future__ import annotations

import pytest
from bench.head import FIRST, Head, script
from bench.scenarios import SCENARIOS

HEAD = Head.build("1k", host="app.bench.test", scheme="https", cookie="__Host-heim=sealed")


def test_requests_differ_in_target_referer_and_etag_and_not_in_length() -> None:
    first, second = (HEAD.numbered(number).split(b"\r\n") for number in (FIRST, FIRST + 1))
    differing = [a.split(b" ")[0] for a, b in zip(first, second, strict=True) if a != b]
    assert differing == [b"GET", b"Referer:", b"If-None-Match:"]
    assert len(HEAD.numbered(FIRST)) == len(HEAD.numbered(FIRST + 5_000_000))


def test_the_session_is_one_of_three_cookies() -> None:
    assert b"\r\nCookie: theme=dark; __Host-heim=sealed; tz=UTC\r\n" in HEAD.numbered(FIRST)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_only_an_offered_rate_makes_wrk_wait(name: str) -> None:
    scenario = SCENARIOS[name]
    lua = script(HEAD, scenario, connections=64)
    assert ("function delay" in lua) == (scenario.rate is not None)
    assert "\\r\\nHost: app.bench.test\\r\\n" in lua
