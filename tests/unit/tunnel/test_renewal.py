from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel.dial import Way
from heim_tunnel.grant import Login
from heim_tunnel.renewal import Renewal


def login(token: str, left_s: float) -> Login:
    return Login(
        login_url="https://auth.example.com",
        user="alice",
        domains=[],
        access_token=token,
        access_expires=time.time() + left_s,
        refresh_token="r",
        session_expires=time.time() + 3600,
    )


class Stage:
    """What a renewal is given, and what it asks for."""

    def __init__(self, first: Login, fetch: Callable[[Login], Login]) -> None:
        self.offered: list[str] = []
        self.replaced: list[str] = []
        self._fetch = fetch
        self._news = threading.Condition()
        self.renewal = Renewal(first, Way(), target="db", offer=self._offer, fetch=self._asked)

    def _offer(self, token: str) -> None:
        with self._news:
            self.offered.append(token)
            self._news.notify_all()

    def _asked(self, used: Login) -> Login:
        with self._news:
            self.replaced.append(used.access_token)
            self._news.notify_all()
        return self._fetch(used)

    def wait(self, condition: Callable[[], bool], within_s: float = 5.0) -> bool:
        with self._news:
            return self._news.wait_for(condition, within_s)


def test_a_token_is_replaced_when_two_thirds_of_it_are_over() -> None:
    stage = Stage(login("one", 0.6), lambda _: login("two", 3600))
    begin = time.time()
    stage.renewal.start()
    assert stage.wait(lambda: stage.offered == ["two"])
    assert 0.35 <= time.time() - begin < 3
    assert stage.replaced == ["one"]


def test_each_token_is_replaced_in_its_turn_and_not_in_a_storm() -> None:
    """Even if the login host gives tokens that have ended already."""
    stage = Stage(login("t", 0.0), lambda used: login(used.access_token + "+", 0.0))
    begin = time.time()
    stage.renewal.start()
    stage.renewal.start()
    assert stage.wait(lambda: len(stage.offered) == 2)
    assert stage.offered == ["t+", "t++"]
    assert time.time() - begin >= 0.9


def test_before_it_is_time_nothing_is_asked() -> None:
    stage = Stage(login("one", 3600), lambda _: login("two", 3600))
    stage.renewal.start()
    assert not stage.wait(lambda: bool(stage.replaced), 0.2)


def test_a_session_that_is_over_is_told_once_and_left(capfd: pytest.CaptureFixture[str]) -> None:
    def fetch(used: Login) -> Login:
        raise Complaint("the session has ended; run: heim-tunnel login auth.example.com", AUTH)

    first = login("one", 0.1)
    stage = Stage(first, fetch)
    stage.renewal.start()
    line = ""
    deadline = time.monotonic() + 5
    while not line and time.monotonic() < deadline:
        line = capfd.readouterr().err
    clock = time.strftime("%H:%M", time.localtime(first.access_expires))
    assert line == (
        "heim-tunnel: db: the session has ended; run: heim-tunnel login auth.example.com "
        f"(this connection may end at {clock})\n"
    )
    assert stage.offered == []
