"""Bounds on what strangers can make the portal do (S7, H21)."""

from __future__ import annotations

import pytest

from heim_proxy.portal.limits import LoopGuard, NetworkRate, RateLimit, client_key, network_key


def test_a_burst_is_allowed_and_then_a_rate() -> None:
    limit = RateLimit(burst=3, per_second=2)
    assert [limit.wait("a", 0.0) for _ in range(3)] == [0, 0, 0]
    assert limit.wait("a", 0.0) == pytest.approx(0.5)
    assert limit.wait("b", 0.0) == 0
    assert limit.wait("a", 0.5) == 0
    assert limit.wait("a", 0.5) > 0
    assert [limit.wait("a", 100.0) > 0 for _ in range(4)] == [False, False, False, True]


def test_being_refused_does_not_prolong_the_wait() -> None:
    limit = RateLimit(burst=1, per_second=1)
    limit.wait("a", 0.0)
    for _ in range(100):
        limit.wait("a", 0.5)
    assert limit.wait("a", 1.0) == 0


def test_memory_is_bounded() -> None:
    limit = RateLimit()
    for number in range(RateLimit.MAX_CLIENTS + 100):
        limit.wait(str(number), 0.0)
    assert len(limit) == RateLimit.MAX_CLIENTS


def test_a_network_is_held_to_its_rate_however_many_clients_it_has() -> None:
    limit = NetworkRate(
        client=RateLimit(burst=2, per_second=1), network=RateLimit(burst=3, per_second=1)
    )
    waits = [limit.wait(f"2001:db8:1:{n:x}::1", 0.0) for n in range(4)]
    assert [wait > 0 for wait in waits] == [False, False, False, True]
    assert limit.wait("2001:db8:2::1", 0.0) == 0


def test_a_client_over_its_own_rate_uses_up_nothing_of_its_networks() -> None:
    limit = NetworkRate(
        client=RateLimit(burst=1, per_second=1), network=RateLimit(burst=2, per_second=1)
    )
    waits = [limit.wait("2001:db8:1::1", 0.0) for _ in range(5)]
    assert [wait > 0 for wait in waits] == [False, True, True, True, True]
    assert limit.wait("2001:db8:1:2::1", 0.0) == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", "unknown"),
        ("unix:", "unknown"),
        ("192.0.2.1, 10.0.0.1", "unknown"),
    ],
)
def test_a_client_is_an_address_or_a_64(address: str, key: str) -> None:
    assert client_key(address) == key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("", "unknown"),
    ],
)
def test_a_network_is_an_address_or_a_48(address: str, key: str) -> None:
    assert network_key(address) == key


def test_a_loop_is_the_same_page_again_and_again() -> None:
    guard = LoopGuard()
    assert [guard.looping("s", "h", "/", 0.0) for _ in range(4)] == [False, False, False, True]
    assert not guard.looping("s", "h", "/other", 0.0)
    assert not guard.looping("s", "other", "/", 0.0)
    assert not guard.looping("other", "h", "/", 0.0)


def test_a_loop_is_forgotten_after_a_while() -> None:
    guard = LoopGuard()
    for at in range(30):
        assert not guard.looping("s", "h", "/", at * LoopGuard.WINDOW_S)
