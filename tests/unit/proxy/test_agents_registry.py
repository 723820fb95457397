from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest

from heim_proxy.agents.presence import LanePresence, Offline
from heim_proxy.agents.registry import Registry

BOOT = {name: name * 32 for name in "abcdef"}


@dataclass
class Wire:
    """What the registry asks of a session."""

    going_away: bool = False
    full: bool = False
    queued: int = 0
    streams: dict[int, Any] = field(default_factory=dict)


@dataclass
class Carriage:
    session: Wire = field(default_factory=Wire)


@dataclass(eq=False)
class FakeLane:
    name: str = "desktop"
    thumbprint: str = "key-1"
    boot: str = BOOT["a"]
    number: int = 0
    channel: Carriage = field(default_factory=Carriage)
    heavy: bool = False
    since: float = 1000.0
    valid_until: float = 90_000.0
    device: str = "box"
    version: str = "1"
    address: str = "192.0.2.1"

    @property
    def wire(self) -> Wire:
        return self.channel.session

    def presence(self) -> LanePresence:
        return LanePresence(
            self.number, self.address, self.since, len(self.wire.streams), self.wire.queued, None,
            self.heavy, self.wire.going_away,
        )  # fmt: skip


def lane(**more: Any) -> Any:
    return FakeLane(**more)


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_an_agent_that_came_is_picked(registry: Registry) -> None:
    one = lane()
    assert registry.arrive(one, 0.0).replaced == ()
    assert registry.pick("desktop") is one
    assert registry.pick("web") == Offline(None, joined=False)
    assert len(registry) == 1


def test_an_agent_that_left_is_offline_since_then(registry: Registry) -> None:
    one = lane()
    registry.arrive(one, 0.0)
    assert registry.leave(one, 2000.0)
    assert registry.pick("desktop") == Offline(2000.0, joined=True)
    assert len(registry) == 0
    assert not registry.leave(one, 3000.0)
    assert registry.pick("desktop") == Offline(2000.0, joined=True)


def test_who_joined_and_never_came_is_known(registry: Registry) -> None:
    registry.joined("desktop")
    assert registry.pick("desktop") == Offline(None, joined=True)
    registry.joined("desktop", 50.0)
    registry.joined("desktop")
    registry.joined("desktop", 40.0)
    assert registry.offline("desktop") == Offline(50.0, joined=True)


def test_an_agent_whose_last_lane_was_revoked_is_so_until_a_machine_joins(
    registry: Registry,
) -> None:
    first, second = lane(), lane(number=1)
    registry.arrive(first, 0.0)
    registry.arrive(second, 0.0)
    registry.leave(first, 2000.0, revoked=True)
    registry.leave(second, 2000.0, revoked=True)
    assert registry.pick("desktop") == Offline(2000.0, joined=True, revoked=True)
    registry.joined("desktop")
    assert not registry.offline("desktop").revoked


def test_an_agent_that_left_by_itself_was_not_revoked(registry: Registry) -> None:
    first, second = lane(), lane(thumbprint="key-2")
    registry.arrive(first, 0.0)
    registry.arrive(second, 0.0)
    registry.leave(first, 2000.0, revoked=True)
    registry.leave(second, 3000.0)
    assert not registry.offline("desktop").revoked


def test_the_machine_that_was_replaced_does_not_speak_for_its_successor(
    registry: Registry,
) -> None:
    """A token made with --replace: the new machine is enrolled before the old one is ended."""
    old, new = lane(), lane(thumbprint="key-2")
    registry.arrive(old, 0.0)
    registry.joined("desktop")
    registry.leave(old, 2000.0, revoked=True)
    assert not registry.offline("desktop").revoked
    registry.arrive(new, 1.0)
    registry.leave(new, 3000.0, revoked=True)
    assert registry.offline("desktop").revoked


def test_what_is_not_configured_any_more_is_forgotten(registry: Registry) -> None:
    registry.joined("desktop", 50.0)
    registry.joined("web", 60.0)
    registry.count("desktop", "opened")
    registry.count("web", "opened")
    registry.retain(["web"])
    assert registry.offline("desktop") == Offline(None, joined=False)
    assert registry.offline("web").since == 60.0
    assert registry.outcomes == {("web", "opened"): 1}


def test_streams_are_counted_by_agent_and_result(registry: Registry) -> None:
    for result in ("opened", "dial_refused", "opened"):
        registry.count("desktop", result)
    assert registry.outcomes == {("desktop", "opened"): 2, ("desktop", "dial_refused"): 1}


# -- which lane of several ---------------------------------------------------------------------


def busy(**more: Any) -> Any:
    wire = Wire(**{key: more.pop(key) for key in list(more) if hasattr(Wire(), key)})
    return lane(channel=Carriage(wire), **more)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({}, {"queued": 1}),
        ({"streams": {1: 0}}, {"streams": {1: 0, 3: 0}}),
        ({"streams": {1: 0, 3: 0}}, {"queued": 1}),
        ({"queued": 10**7}, {"heavy": True}),
        ({"heavy": True}, {"full": True}),
        ({"full": True}, {"going_away": True}),
    ],
    ids=["queued", "streams", "queued first", "heavy", "full", "leaving"],
)
def test_the_better_lane_is_picked(
    registry: Registry, better: dict[str, Any], worse: dict[str, Any]
) -> None:
    good, bad = busy(number=1, **better), busy(number=0, **worse)
    registry.arrive(bad, 0.0)
    registry.arrive(good, 0.0)
    assert registry.pick("desktop") is good


def test_the_machines_of_a_group_share(registry: Registry) -> None:
    first, second = busy(thumbprint="key-1", streams={1: 0}), busy(thumbprint="key-2")
    registry.arrive(first, 0.0)
    assert registry.arrive(second, 0.0).replaced == ()
    assert registry.pick("desktop") is second
    registry.leave(second, 0.0)
    assert registry.pick("desktop") is first
    assert registry.lanes_of("desktop") == (first,)


# -- generations -------------------------------------------------------------------------------


def test_a_lane_that_comes_again_replaces_its_dead_self(registry: Registry) -> None:
    old, new, other = lane(), lane(), lane(number=1)
    registry.arrive(old, 0.0)
    registry.arrive(other, 0.0)
    assert registry.arrive(new, 1.0).replaced == (old,)
    assert set(registry.lanes_of("desktop")) == {new, other}
    assert len(registry) == 2


def test_the_end_of_an_old_lane_does_not_take_the_new_one_away(registry: Registry) -> None:
    old, new = lane(), lane()
    registry.arrive(old, 0.0)
    registry.arrive(new, 1.0)
    assert not registry.leave(old, 2.0)
    assert registry.pick("desktop") is new
    assert len(registry) == 1


def test_a_newer_run_of_the_program_replaces_all_lanes_of_the_older(registry: Registry) -> None:
    old = [lane(number=number) for number in range(3)]
    for one in old:
        registry.arrive(one, 0.0)
    new = lane(boot=BOOT["b"], number=1)
    arrival = registry.arrive(new, 1.0)
    assert set(arrival.replaced) == set(old)
    assert arrival.twin is None
    assert registry.lanes_of("desktop") == (new,)
    assert len(registry) == 1
    assert not any(registry.leave(one, 2.0) for one in old)


def test_a_restart_of_the_program_is_no_duplicate_however_often(registry: Registry) -> None:
    for number in range(20):
        one = lane(boot=secrets.token_hex(16))
        assert registry.arrive(one, number * 0.1).replaced == ()
        registry.leave(one, 0.0)
    assert registry.duplicates == 0


def clones(registry: Registry, count: int, *, every: float = 5.0) -> list[Any]:
    """Two machines with one key that take the name from each other."""
    arrivals = []
    for number in range(count):
        one = lane(boot=BOOT["ab"[number % 2]], device="ab"[number % 2])
        arrivals.append((one, registry.arrive(one, number * every)))
    return arrivals


def test_two_machines_with_one_key_are_found_out(registry: Registry) -> None:
    arrivals = clones(registry, 5)
    assert [len(arrival.replaced) for _, arrival in arrivals] == [0, 1, 1, 1, 0]
    newcomer, last = arrivals[-1]
    assert last.refused
    assert last.twin is arrivals[-2][0]
    assert last.twin.device != newcomer.device
    assert registry.pick("desktop") is last.twin
    assert registry.duplicates == 1


def test_the_one_that_is_here_stays_while_the_other_asks(registry: Registry) -> None:
    staying = clones(registry, 5)[-2][0]
    for minute in range(1, 30):
        again = registry.arrive(lane(boot=BOOT["a"]), 20.0 + 66.0 * minute)
        assert again.refused
        assert again.twin is staying
    assert registry.duplicates == 30


def test_when_the_one_that_is_here_goes_the_other_may_come(registry: Registry) -> None:
    staying = clones(registry, 5)[-2][0]
    registry.leave(staying, 0.0)
    other = lane(boot=BOOT["a"])
    assert not registry.arrive(other, 30.0).refused
    assert registry.pick("desktop") is other


def test_a_machine_that_is_reset_now_and_then_is_not_taken_for_two(registry: Registry) -> None:
    assert not any(arrival.refused for _, arrival in clones(registry, 40, every=20.1))


def test_a_second_lane_of_the_run_that_stays_is_let_in(registry: Registry) -> None:
    staying = clones(registry, 5)[-2][0]
    assert not registry.arrive(lane(boot=staying.boot, number=1), 21.0).refused


# -- presence ----------------------------------------------------------------------------------


def test_each_machine_is_shown_once_with_its_lanes(registry: Registry) -> None:
    registry.arrive(lane(number=1, since=10.0, valid_until=500.0, address="192.0.2.7"), 0.0)
    registry.arrive(busy(number=0, since=20.0, valid_until=400.0, streams={2: 0, 4: 0}), 0.0)
    registry.arrive(lane(name="alpha", thumbprint="key-2"), 0.0)
    alpha, desktop = registry.agents()
    assert (alpha.name, desktop.name) == ("alpha", "desktop")
    assert (desktop.since, desktop.expires, desktop.streams) == (10.0, 400.0, 2)
    assert [one.number for one in desktop.lanes] == [0, 1]
    assert set(registry.by_agent()) == {("desktop", 1, 2, 400.0), ("alpha", 1, 1, 90_000.0)}
    assert len(registry.lanes()) == 3
