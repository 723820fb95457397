"""Verified cookies: bounded, and what is in use stays."""

from __future__ import annotations

from heim_proxy.identity.resident import Session
from heim_proxy.identity.verified import VerifiedCookie, VerifiedCookies
from tests.unit.identity.test_resident import session

SESSION: Session = session()


def entry(*, stale: bool = False) -> VerifiedCookie:
    return VerifiedCookie("app1.example.test", SESSION, expires=100.0, stale=stale)


def test_a_cookie_is_found_by_its_bytes() -> None:
    cookies, one = VerifiedCookies(), entry()
    cookies.add(b"a", one)
    assert cookies.find(b"a") is one
    assert cookies.recent[b"a"] is one
    assert cookies.find(b"b") is None


def test_the_number_kept_is_bounded() -> None:
    cookies = VerifiedCookies(limit=100)
    for number in range(10_000):
        cookies.add(b"%d" % number, entry())
        assert len(cookies) <= 100


def test_what_is_used_stays_while_others_come_and_go() -> None:
    cookies, one = VerifiedCookies(limit=100), entry()
    cookies.add(b"mine", one)
    for number in range(10_000):
        cookies.add(b"%d" % number, entry())
        if number % 40 == 0:
            assert cookies.find(b"mine") is one
    assert cookies.find(b"0") is None


def test_adding_again_does_not_push_others_out() -> None:
    cookies = VerifiedCookies(limit=4)
    cookies.add(b"a", entry())
    cookies.add(b"b", entry())
    for _ in range(10):
        cookies.add(b"b", entry())
    assert b"a" in cookies.recent


def test_one_stale_cookie_is_noted_until_all_is_forgotten() -> None:
    cookies = VerifiedCookies()
    cookies.add(b"a", entry())
    assert not cookies.any_stale
    cookies.add(b"b", entry(stale=True))
    assert cookies.any_stale
    cookies.clear()
    assert not cookies.any_stale
    assert len(cookies) == 0
    assert cookies.find(b"a") is None
