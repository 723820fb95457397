"""Bearer tokens: whom they speak for, and until when."""

from __future__ import annotations

import base64

import pytest

from heim_proxy.identity.access_tokens import LIFETIME_S
from heim_proxy.identity.bearer import (
    MAX_BEARER_CHARACTERS,
    Bearer,
    BearerProblem,
    BearerReason,
    is_ours,
)
from heim_proxy.live import EndReason
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.programs import Desk
from tests.fakes.sessions import ALICE

HOUR = 3600.0


@pytest.fixture
async def desk() -> Desk:
    return await Desk.up()


async def judge(desk: Desk, token: str) -> Bearer | BearerProblem:
    return await desk.programs.bearers.authenticate(token, desk.now)


async def good(desk: Desk, token: str) -> Bearer:
    found = await judge(desk, token)
    assert isinstance(found, Bearer), found
    return found


async def reason(desk: Desk, token: str) -> BearerReason:
    found = await judge(desk, token)
    assert isinstance(found, BearerProblem), found
    assert found.detail.endswith(".")
    return found.reason


# -- people -------------------------------------------------------------------------------------


async def test_an_access_token_speaks_for_the_person_who_logged_in(desk: Desk) -> None:
    login = await desk.log_in()
    found = await good(desk, login.access.text.reveal())
    assert found.session is login.session
    assert found.session.subject == ALICE
    assert found.expires == desk.now + LIFETIME_S


async def test_its_word_ends_with_the_session_at_the_latest(desk: Desk) -> None:
    login = await desk.log_in()
    desk.stage.sessions.set_limits(600.0, HOUR)
    assert (await good(desk, login.access.text.reveal())).expires == desk.now + 600


async def test_an_expired_one_is_told_apart_because_refreshing_helps(desk: Desk) -> None:
    login = await desk.log_in()
    desk.wait(LIFETIME_S)
    assert await reason(desk, login.access.text.reveal()) is BearerReason.EXPIRED


@pytest.mark.parametrize("how", list(EndReason), ids=lambda how: how.value)
async def test_a_session_that_ended_takes_its_tokens_with_it(desk: Desk, how: EndReason) -> None:
    login = await desk.log_in()
    await desk.stage.sessions.end(login.session.sid, how, desk.now)
    assert await reason(desk, login.access.text.reveal()) is BearerReason.ENDED


async def test_a_restarted_proxy_knows_the_login(desk: Desk) -> None:
    login = await desk.log_in()
    found = await good(await desk.restarted(), login.access.text.reveal())
    assert found.session.subject == ALICE


async def test_a_revocation_by_another_process_is_noticed_within_a_tick(desk: Desk) -> None:
    login = await desk.log_in()
    await good(desk, login.access.text.reveal())
    await desk.stage.store.end_session(login.session.sid, reason="revoked", now=desk.now)
    await desk.stage.sessions.tick(desk.now)
    assert await reason(desk, login.access.text.reveal()) is BearerReason.ENDED


async def test_use_keeps_a_login_from_falling_idle(desk: Desk) -> None:
    login = await desk.log_in()
    for _ in range(4):
        desk.wait(0.9 * HOUR)
        access = desk.access.issue(login.session, desk.now).text.reveal()
        await good(desk, access)
    desk.wait(HOUR)
    access = desk.access.issue(login.session, desk.now).text.reveal()
    assert await reason(desk, access) is BearerReason.ENDED


async def test_a_browsers_session_is_not_proven_by_a_token(desk: Desk) -> None:
    """Whatever makes one: only sessions of command lines have access tokens."""
    person = await desk.stage.sign_in()
    access = desk.access.issue(person, desk.now).text.reveal()
    assert await reason(desk, access) is BearerReason.INVALID


async def test_a_service_tokens_session_is_not_proven_by_an_access_token(desk: Desk) -> None:
    _, token = await desk.service_token()
    session = (await good(desk, token)).session
    access = desk.access.issue(session, desk.now).text.reveal()
    assert await reason(desk, access) is BearerReason.INVALID


# -- programs -----------------------------------------------------------------------------------


async def test_a_service_token_speaks_for_its_account(desk: Desk) -> None:
    sid, token = await desk.service_token("backup")
    found = await good(desk, token)
    assert (found.session.sid, found.session.subject.name) == (sid, "backup")
    assert found.expires == float("inf")


async def test_a_service_token_ends_when_it_says(desk: Desk) -> None:
    _, token = await desk.service_token(lifetime=10 * 86400.0)
    assert (await good(desk, token)).expires == desk.now + 10 * 86400.0
    desk.wait(10 * 86400.0 - 1)
    await good(desk, token)
    desk.wait(1)
    assert await reason(desk, token) is BearerReason.ENDED


async def test_a_program_may_be_idle_for_longer_than_a_person(desk: Desk) -> None:
    _, token = await desk.service_token()
    await good(desk, token)
    for _ in range(3):
        desk.wait(400 * 86400.0)
        await desk.stage.sessions.tick(desk.now)
        await good(desk, token)


async def test_a_revoked_service_token_is_worthless_within_a_tick(desk: Desk) -> None:
    sid, token = await desk.service_token()
    exchange = desk.stage.open_exchange((await good(desk, token)).session)
    await desk.stage.store.end_session(sid, reason="revoked", now=desk.now)
    await desk.stage.sessions.tick(desk.now)
    assert exchange.ended is EndReason.REVOKED
    assert await reason(desk, token) is BearerReason.ENDED
    assert await reason(await desk.restarted(), token) is BearerReason.ENDED


async def test_an_account_that_left_the_configuration_takes_its_tokens_with_it(desk: Desk) -> None:
    _, token = await desk.service_token("backup")
    desk.accounts = ["other"]
    found = await judge(desk, token)
    assert found == BearerProblem(
        "The service account backup is no longer configured.", BearerReason.NO_ACCOUNT
    )
    desk.accounts = ["backup"]
    await good(desk, token)


async def test_a_wrong_secret_is_no_use_of_the_token(desk: Desk) -> None:
    sid, token = await desk.service_token()
    seen = (await good(desk, token)).session.last_seen
    desk.wait(60)
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert await reason(desk, wrong) is BearerReason.ENDED
    session = await desk.stage.sessions.peek(sid, desk.now)
    assert session is not None
    assert session.last_seen == seen
    await good(desk, token)
    assert session.last_seen == desk.now


async def test_use_is_written_down_once_a_minute(desk: Desk) -> None:
    sid, token = await desk.service_token()
    for _ in range(10):
        desk.wait(30)
        await good(desk, token)
        await desk.stage.sessions.tick(desk.now)
    assert desk.stage.store.sessions[sid].last_seen == desk.now
    assert desk.stage.store.calls["touch_sessions"] == 5


async def test_an_id_with_anothers_secret_proves_nothing(desk: Desk) -> None:
    (_, one), (_, other) = await desk.service_token(), await desk.service_token()
    assert await reason(desk, one[:33] + other[33:]) is BearerReason.ENDED


async def test_the_ids_of_people_are_no_service_tokens(desk: Desk) -> None:
    login = await desk.log_in()
    token = f"heim_st_{login.session.sid}_{'A' * 43}"
    assert await reason(desk, token) is BearerReason.ENDED


# -- everything else ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "token",
    ["", "x", "heim_st_", "heim_st_x_y", "heim_rt_" + "A" * 91, "é" * 100, "a.b.c",
     "A" * (MAX_BEARER_CHARACTERS + 1), "heim_st_" + "A" * 100_000],
    ids=range(9),
)  # fmt: skip
async def test_garbage_is_invalid_and_costs_no_look_at_the_store(desk: Desk, token: str) -> None:
    assert await reason(desk, token) is BearerReason.INVALID
    assert "get_session" not in desk.stage.store.calls


async def test_a_refresh_token_is_no_bearer_token(desk: Desk) -> None:
    login = await desk.log_in()
    assert await reason(desk, login.refresh.reveal()) is BearerReason.INVALID


async def test_a_store_that_is_down_ends_nobody_who_is_in_memory(desk: Desk) -> None:
    """G12."""
    login = await desk.log_in()
    _, token = await desk.service_token()
    await good(desk, token)
    other = await desk.restarted()
    desk.stage.store.down = "gone"
    await good(desk, login.access.text.reveal())
    await good(desk, token)
    for one in (login.access.text.reveal(), token):
        with pytest.raises(StoreUnavailable):
            await judge(other, one)


async def test_nothing_says_what_the_token_was(desk: Desk) -> None:
    _, token = await desk.service_token()
    desk.accounts = []
    for bad in (token, token[:-1], "a.b.c"):
        assert bad not in repr(await judge(desk, bad))


# -- what no application may see ----------------------------------------------------------------


async def test_every_token_that_is_issued_is_known_by_its_looks(desk: Desk) -> None:
    login = await desk.log_in()
    _, service = await desk.service_token()
    for token in (login.access.text.reveal(), login.refresh.reveal(), service):
        assert is_ours(f"Bearer {token}".encode())
        assert is_ours(f"bearer \t {token}".encode())
        assert is_ours(token.encode())
        for basic in (f"git:{token}", f"{token}:", f"{token}:x-oauth-basic"):
            assert is_ours(b"Basic " + base64.b64encode(basic.encode()))
            assert is_ours(b"bAsic " + base64.urlsafe_b64encode(basic.encode()).rstrip(b"="))


@pytest.mark.parametrize(
    "value",
    [b"", b" ", b"Bearer", b"Bearer ", b"Bearer a.b.c", b"Bearer \xff.\xff", b"Basic eDp5",
     b"Basic", b"Basic e", b"Basic " + b"\xff" * 9, b"Heimdall x",
     b"Bearer " + b"A" * 513 + b".e30.x",
     b"Basic " + base64.b64encode(b"x" * 2048 + b":heim_st_x")],
    ids=["nothing", "blank", "none", "ends", "no header", "no ASCII", "basic", "none of basic",
         "no base64", "basic, no ASCII", "scheme", "long", "long basic"],
)  # fmt: skip
def test_other_credentials_are_not_ours(value: bytes) -> None:
    assert not is_ours(value)
