"""How often codes may be typed."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from heim_proxy.portal.attempts import Attempts
from heim_proxy.portal.errors import PortalError
from heim_proxy.portal.visit import Facts, Visit
from tests.fakes.portal import LOGIN, PortalStand
from tests.fakes.sessions import ALICE, BOB


def visit(stand: PortalStand, client: str) -> Visit:
    return Visit(make_mocked_request("POST", "/"), Facts(LOGIN, True, client, "r1"), stand.ctx)


async def test_a_person_and_an_address_have_twenty_each(stand: PortalStand) -> None:
    attempts = Attempts()
    alice, bob = await stand.stage.sign_in(ALICE), await stand.stage.sign_in(BOB)
    for _ in range(20):
        attempts.count(visit(stand, "192.0.2.1"), alice)
    for who, client in ((alice, "198.51.100.1"), (bob, "192.0.2.1")):
        with pytest.raises(PortalError) as caught:
            attempts.count(visit(stand, client), who)
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) > 0
    attempts.count(visit(stand, "198.51.100.2"), bob)


async def test_another_login_of_the_same_person_counts_as_theirs(stand: PortalStand) -> None:
    attempts = Attempts()
    for number in range(20):
        attempts.count(visit(stand, f"192.0.2.{number}"), await stand.stage.sign_in(ALICE))
    with pytest.raises(PortalError):
        attempts.count(visit(stand, "192.0.2.99"), await stand.stage.sign_in(ALICE))


async def test_time_gives_attempts_back(stand: PortalStand) -> None:
    attempts, alice = Attempts(), await stand.stage.sign_in(ALICE)
    for _ in range(20):
        attempts.count(visit(stand, "192.0.2.1"), alice)
    stand.clock.time += 41
    attempts.count(visit(stand, "192.0.2.1"), alice)
    attempts.count(visit(stand, "192.0.2.1"), alice)
    with pytest.raises(PortalError):
        attempts.count(visit(stand, "192.0.2.1"), alice)
