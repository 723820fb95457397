from __future__ import annotations

from heim_proxy.agents.sparing import EVERY_S, Sparing


def test_the_first_is_said_and_the_next_after_a_minute_with_a_count() -> None:
    said = Sparing()
    found = [said.others("a", float(second)) for second in range(int(EVERY_S) + 2)]
    assert found == [0, *[None] * 59, 59, None]


def test_each_thing_has_a_minute_of_its_own() -> None:
    said = Sparing()
    assert [said.others(thing, 0.0) for thing in "abab"] == [0, 0, None, None]
    assert said.others("a", 60.0) == 1


def test_beyond_what_is_kept_apart_everything_is_one_thing() -> None:
    said = Sparing(most=3)
    assert [said.others(thing, 0.0) for thing in "abcdefa"] == [0, 0, 0, 0, None, None, None]
    # Those that would be said again anyway make room; what was counted is not forgotten.
    assert said.others("g", 61.0) == 0
    assert said.others("a", 61.0) == 1


def test_a_count_that_nobody_asks_for_is_forgotten_after_an_hour() -> None:
    said = Sparing(most=1)
    assert [said.others("a", 0.0) for _ in range(2)] == [0, None]
    assert said.others("b", 3_601.0) == 0
    assert said.others("a", 3_601.0) == 0
    assert len(said._said) == 2


def test_room_is_made_once_a_second_and_not_with_each_of_a_flood() -> None:
    said = Sparing(most=1)
    said.others("a", 0.0)
    said.others("b", 0.5)
    assert said._forgot == 0.5
    said.others("c", 1.0)
    assert said._forgot == 0.5
