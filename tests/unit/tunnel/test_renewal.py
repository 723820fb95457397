from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from heim_tunnel.complaints import AUTH, Complaint
from heim_tunnel.dial import Way
from heim_tunnel.renewal import Renewal


class Session:
    """What a renewal is given and asks for."""

    def __init__(self, fetch: Callable[[float], str]) -> None:
        self.offered: list[str] = []
        self.wanted: list[float] = []
        self._fetch = fetch
        self._news = threading.Event()
        self.renewal = Renewal(
            "auth.example.com", Way(), target="db", offer=self._offer, fetch=self._asked
        )

    def _offer(self, token: str) -> None:
        self.offered.append(token)
        self._news.set()

    def _asked(self, left_s: float) -> str:
        self.wanted.append(left_s)
        try:
            return self._fetch(left_s)
        finally:
            self._news.set()

    def wait(self) -> None:
        assert self._news.wait(5)
        self._news.clear()


def test_a_token_is_replaced_when_two_thirds_of_it_are_over() -> None:
    session = Session(lambda left_s: "next")
    begin = time.time()
    session.renewal.accepted(begin + 0.6)
    session.wait()
    assert 0.35 <= time.time() - begin < 3
    # One that lasts longer than the one in use: somebody may have fetched it already.
    assert session.wanted[0] > 1


def test_each_end_that_is_told_counts_anew() -> None:
    session = Session(lambda left_s: "next")
    session.renewal.accepted(time.time() + 3600)
    assert session.wanted == []
    session.renewal.accepted(time.time() + 0.3)
    session.wait()
    session.renewal.accepted(time.time() + 0.4)
    while len(session.offered) < 2:
        session.wait()
    assert session.offered == ["next", "next"]


def test_the_same_end_again_fetches_nothing() -> None:
    session = Session(lambda left_s: "next")
    end = time.time() + 0.3
    session.renewal.accepted(end)
    session.wait()
    session.renewal.accepted(end)
    assert not session._news.wait(0.5) or len(session.wanted) == 1


def test_a_session_that_is_over_is_told_once_and_left(capfd: pytest.CaptureFixture[str]) -> None:
    def fetch(left_s: float) -> str:
        raise Complaint("the session has ended; run: heim-tunnel login auth.example.com", AUTH)

    session = Session(fetch)
    end = time.time() + 0.2
    session.renewal.accepted(end)
    session.wait()
    line = ""
    deadline = time.monotonic() + 5
    while not line and time.monotonic() < deadline:
        line = capfd.readouterr().err
    clock = time.strftime("%H:%M", time.localtime(end))
    assert line == (
        "heim-tunnel: db: the session has ended; run: heim-tunnel login auth.example.com "
        f"(this connection may end at {clock})\n"
    )
    assert session.offered == []
