from __future__ import annotations

import dataclasses

from heim_proxy.tunnel.places import Places
from tests.fakes.sessions import ALICE, BOB

MIB = 1024 * 1024


def test_a_person_has_so_many_places_and_no_more() -> None:
    places = Places()
    assert [places.claim(ALICE, 2) for _ in range(3)] == [True, True, False]


def test_one_persons_places_are_not_anothers() -> None:
    places = Places()
    assert places.claim(ALICE, 1)
    assert places.claim(BOB, 1)


def test_every_login_of_a_person_counts_together() -> None:
    places = Places()
    assert places.claim(ALICE, 1)
    again = dataclasses.replace(ALICE, groups=frozenset(), email="alice@new.test")
    assert not places.claim(again, 1)


def test_the_same_subject_of_another_issuer_is_somebody_else() -> None:
    places = Places()
    assert places.claim(ALICE, 1)
    assert places.claim(dataclasses.replace(ALICE, issuer="https://other.test"), 1)


def test_a_place_that_was_left_is_free() -> None:
    places = Places()
    assert places.claim(ALICE, 1)
    places.leave(ALICE)
    assert places.claim(ALICE, 1)


def test_who_has_no_streams_costs_no_memory() -> None:
    places = Places()
    places.claim(ALICE, 3)
    places.claim(ALICE, 3)
    places.leave(ALICE)
    places.leave(ALICE)
    assert not places


def test_a_smaller_limit_refuses_and_takes_nothing_away() -> None:
    places = Places()
    assert places.claim(ALICE, 3)
    assert places.claim(ALICE, 3)
    assert not places.claim(ALICE, 1)
    places.leave(ALICE)
    places.leave(ALICE)
    assert places.claim(ALICE, 1)


def test_one_persons_windows_cannot_take_the_memory_of_all() -> None:
    places = Places()
    for one in (ALICE, BOB):
        places.claim(one, 3)
    alice, bob = places.budget(ALICE), places.budget(BOB)
    assert alice.fits(64 * MIB)
    alice.add(64 * MIB)
    assert not alice.fits(1)
    assert bob.fits(64 * MIB)


def test_every_stream_of_a_person_draws_from_one_share() -> None:
    places = Places()
    places.claim(ALICE, 3)
    first = places.budget(ALICE)
    places.claim(ALICE, 3)
    assert places.budget(ALICE) is first
