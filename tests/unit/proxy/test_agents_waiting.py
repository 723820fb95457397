from __future__ import annotations

import pytest

from heim_proxy.agents.waiting import WaitingRoom, retry_after


def room(*visits: tuple[str, str], limit: int = 4) -> WaitingRoom[str]:
    built: WaitingRoom[str] = WaitingRoom(limit)
    for name, address in visits:
        assert built.enter(name, address)
    return built


def test_it_holds_so_many_and_no_more() -> None:
    full = room(*((str(number), f"192.0.2.{number}") for number in range(4)))
    assert not full.enter("late", "192.0.2.9")
    assert len(full) == 4
    full.leave("0", "192.0.2.0")
    assert full.enter("late", "192.0.2.9")
    assert sorted(full.everybody()) == ["1", "2", "3", "late"]


def test_leaving_twice_or_without_having_come_is_harmless() -> None:
    one = room(("a", "192.0.2.1"))
    one.leave("b", "192.0.2.1")
    one.leave("a", "192.0.2.2")
    assert len(one) == 1
    one.leave("a", "192.0.2.1")
    one.leave("a", "192.0.2.1")
    assert len(one) == 0


@pytest.mark.parametrize(
    ("visits", "newcomer", "goes"),
    [
        ([("a", "192.0.2.1"), ("b", "192.0.2.1")], "192.0.2.2", "a"),
        ([("a", "192.0.2.1"), ("b", "192.0.2.1")], "192.0.2.1", None),
        ([("a", "192.0.2.1"), ("b", "192.0.2.2")], "192.0.2.3", None),
        ([("a", "192.0.2.1"), ("b", "192.0.2.1"), ("c", "192.0.2.2")], "192.0.2.2", None),
        ([("a", "2001:db8::1"), ("b", "2001:db8::2")], "2001:db8:1::1", "a"),
        ([("a", "2001:db8::1"), ("b", "2001:db8::2")], "2001:db8::3", None),
        ([("a", "2001:db8:0:1::1"), ("b", "2001:db8:0:2::1")], "2001:db8:1::1", "a"),
        ([("a", "fe80::1%eth0"), ("b", "fe80::1%eth0")], "192.0.2.2", "a"),
        ([("a", "::ffff:192.0.2.1"), ("b", "192.0.2.1")], "192.0.2.2", "a"),
        ([("a", "::ffff:192.0.2.1"), ("b", "::ffff:192.0.2.2")], "192.0.2.3", None),
        ([("a", "unknown"), ("b", "unknown")], "192.0.2.2", "a"),
        ([], "192.0.2.2", None),
    ],
    ids=[
        "from who has two more", "not from itself", "not for the same", "one more is not enough",
        "a network", "its own network", "a site", "with a zone", "IPv4 in IPv6", "two of those",
        "no address", "nobody",
    ],
)  # fmt: skip
def test_a_newcomer_takes_a_place_from_who_has_two_more(
    visits: list[tuple[str, str]], newcomer: str, goes: str | None
) -> None:
    assert room(*visits).crowd(newcomer) == goes


def test_who_came_from_there_before_takes_a_strangers_place() -> None:
    """Somebody has an address for each place, and says nothing."""
    full = room(*((str(number), f"192.0.2.{number}") for number in range(4)))
    full.learn("198.51.100.7")
    full.learn("192.0.2.0")
    assert full.crowd("203.0.113.1") is None
    assert full.crowd("198.51.100.7") == "1"
    # One at a time: in a storm everybody has come from somewhere before.
    full.leave("1", "192.0.2.1")
    assert full.enter("back", "198.51.100.7")
    assert full.crowd("198.51.100.7") is None


def test_known_places_are_safe_from_each_other_and_few_enough_to_be_kept() -> None:
    full = room(*((str(number), f"192.0.2.{number}") for number in range(4)))
    for number in range(5):
        full.learn(f"192.0.2.{number}")
    assert full.crowd("192.0.2.4") is None
    for number in range(10_000):
        full.learn(f"10.0.{number // 250}.{number % 250}")
    assert len(full._known) == 10_000
    assert full.crowd("10.0.1.1") == "0"


def test_who_is_sent_away_comes_back_at_a_moment_of_its_own() -> None:
    drawn = {retry_after() for _ in range(500)}
    assert drawn <= set(range(1, 31))
    assert len(drawn) > 20
