from __future__ import annotations

from typing import Any

import pytest

from heim_proxy.agents import choice as module
from heim_proxy.agents.choice import COMPARED, Choice
from tests.unit.proxy.test_agents_registry import lane


def choice(*lanes: Any) -> Choice:
    made = Choice()
    for one in lanes:
        made.add(one)
    return made


def give(made: Choice, one: Any) -> None:
    """A stream."""
    one.wire.streams[len(one.wire.streams)] = object()
    made.took(one)


def test_lanes_that_carry_nothing_take_turns() -> None:
    lanes = [lane(number=number) for number in range(3)]
    made = choice(*lanes)
    picked = []
    for _ in lanes:
        picked.append(made.pick())
        give(made, picked[-1])
    assert picked == lanes


def test_what_has_just_ended_is_as_good_as_what_is_known_to_be_free() -> None:
    one, other = lane(number=0), lane(number=1)
    made = choice(one, other)
    give(made, one)
    give(made, other)
    one.wire.streams.clear()
    assert made.pick() is one
    made.freed(one)
    assert made.pick() is one


def test_one_that_goes_away_is_the_last_choice() -> None:
    going, heavy = lane(number=0), lane(number=1)
    made = choice(going, heavy)
    going.wire.going_away = True
    give(made, heavy)
    heavy.heavy = True
    assert made.pick() is heavy
    made.remove(heavy)
    assert made.pick() is going


def test_those_that_are_gone_are_not_chosen() -> None:
    one, other = lane(number=0), lane(number=1)
    made = choice(one, other)
    made.remove(one)
    assert made.pick() is other
    # An event of one that is gone changes nothing.
    made.took(one)
    made.freed(one)
    give(made, other)
    assert made.pick() is other


@pytest.mark.parametrize("number", [1, COMPARED, COMPARED + 1, 10_000])
def test_few_are_looked_at_however_many_there_are(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Any] = []
    load = module._load

    def watched(one: Any) -> object:
        looked.append(one)
        return load(one)

    monkeypatch.setattr(module, "_load", watched)
    lanes = [lane() for _ in range(number)]
    made = choice(*lanes)
    assert made.pick() is lanes[0]
    assert len(looked) == 1
    for one in lanes:
        give(made, one)
    looked.clear()
    for _ in range(3):
        made.pick()
    assert len(looked) == 3 * min(number, COMPARED)
    # All in turn.
    assert len(set(map(id, looked))) == min(number, 3 * COMPARED)
