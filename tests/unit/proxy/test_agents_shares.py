from __future__ import annotations

from heim_proxy.agents.shares import Shares

ALICE, BOB = ("https://idp", "alice"), ("https://idp", "bob")


def test_somebody_is_full_at_the_limit_and_others_are_not() -> None:
    shares, live = Shares(), set(range(0, 20, 2))
    for number in sorted(live):
        shares.note(number, ALICE if number < 8 else BOB, live)
    assert shares.full(ALICE, live, limit=4)
    assert not shares.full(ALICE, live, limit=5)
    assert shares.full(BOB, live, limit=6)
    assert not shares.full(None, live, limit=1)


def test_what_is_over_does_not_count() -> None:
    shares, live = Shares(), {2, 4, 6, 8}
    for number in sorted(live):
        shares.note(number, ALICE, live)
    live -= {2, 4}
    live |= {10, 12}
    assert not shares.full(ALICE, live, limit=3)
    assert shares.full(ALICE, live, limit=2)


def test_a_lane_that_lives_long_is_forgotten_in_part() -> None:
    shares, live = Shares(), set[int]()
    for number in range(0, 20_000, 2):
        live = {number}
        shares.note(number, ALICE, live)
        assert len(shares._owners) <= 2_048
    assert shares.full(ALICE, live, limit=1)
