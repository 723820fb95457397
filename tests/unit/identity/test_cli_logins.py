"""Logins of command lines: like the browser's session they come from, and apart from it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from heim_proxy.identity.authorization_codes import Consent
from heim_proxy.identity.cli_logins import MAX_LISTED, CliLogin, Refused
from heim_proxy.identity.session import Miss
from heim_proxy.live import EndReason
from heim_proxy.store.base import SessionKind, StoreUnavailable
from tests.fakes.programs import Desk
from tests.fakes.sessions import ALICE, BOB

HOUR = 3600.0


@pytest.fixture
async def desk() -> Desk:
    return await Desk.up()


async def refreshed(desk: Desk, token: str) -> CliLogin:
    login = await desk.programs.logins.refresh(token, desk.now)
    assert isinstance(login, CliLogin), login
    return login


async def test_a_login_is_the_same_person_in_a_session_of_its_own(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    desk.wait(600)
    session = (await desk.log_in(person, "alice's laptop")).session
    assert session.sid != person.sid
    assert (session.kind, session.label) == (SessionKind.CLI, "alice's laptop")
    assert session.subject == person.subject == ALICE
    assert (session.auth_time, session.provider) == (person.auth_time, person.provider)
    assert session.created == desk.now
    assert session.expires == desk.now + 24 * HOUR
    assert desk.stage.store.sessions[session.sid].label == "alice's laptop"


async def test_signing_out_of_the_browser_leaves_the_login(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    login = await desk.log_in(person)
    await desk.stage.sessions.end(person.sid, EndReason.LOGOUT, desk.now)
    await refreshed(desk, login.refresh.reveal())


async def test_a_persons_logins_are_those_of_issuer_and_subject(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    first, second = await desk.log_in(person, "one"), await desk.log_in(person, "two")
    same_mail = dataclasses.replace(ALICE, issuer="https://other.example.test")
    await desk.log_in(await desk.stage.sign_in(same_mail), "another account")
    desk.wait(60)
    await refreshed(desk, first.refresh.reveal())
    found, more = await desk.programs.logins.of(ALICE, desk.now)
    assert [one.label for one in found] == ["one", "two"], "not those used last first"
    assert not more
    assert found[0].last_seen == desk.now
    assert found[1].last_seen == second.session.created, "looking at it was taken for use"


@pytest.mark.parametrize("how", ["idle", "a shorter lifetime", "ended, store away"])
async def test_a_login_that_is_over_is_not_listed(desk: Desk, how: str) -> None:
    login = await desk.log_in()
    if how == "idle":
        desk.wait(HOUR)
    elif how == "a shorter lifetime":
        desk.stage.sessions.set_limits(600, HOUR)
        desk.wait(600)
    else:
        desk.stage.store.full = True
        with pytest.raises(StoreUnavailable):
            await desk.stage.sessions.end(login.session.sid, EndReason.LOGOUT, desk.now)
    assert await desk.programs.logins.of(ALICE, desk.now) == ([], False)
    assert (await desk.restarted()).stage.store.sessions[login.session.sid].ended is None


async def test_of_very_many_logins_a_hundred_are_listed_and_all_are_ended(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    for _ in range(MAX_LISTED + 1):
        await desk.log_in(person)
    found, more = await desk.programs.logins.of(ALICE, desk.now)
    assert (len(found), more) == (MAX_LISTED, True)
    ended = [one.sid async for one in desk.programs.logins.end_all(ALICE, desk.now)]
    assert len(set(ended)) == MAX_LISTED + 1
    assert await desk.programs.logins.of(ALICE, desk.now) == ([], False)
    assert [row.sid for row in await desk.stage.store.list_sessions()] == [person.sid]


async def test_a_login_of_another_process_is_listed_and_ended_there(desk: Desk) -> None:
    login = await desk.log_in()
    stream = desk.stage.open_exchange(login.session)
    other = await desk.restarted()
    ((found,), _) = await other.programs.logins.of(ALICE, desk.now)
    assert await other.programs.logins.end_one(found.sid, ALICE, desk.now) is not None
    await desk.stage.sessions.tick(desk.now)
    assert stream.ended is EndReason.LOGOUT


async def test_nobody_elses_session_is_ended_and_no_browser(desk: Desk) -> None:
    alice = await desk.stage.sign_in()
    bobs = (await desk.log_in(await desk.stage.sign_in(BOB))).session
    service, _ = await desk.service_token()
    for sid in (bobs.sid, alice.sid, service, "", "x" * 4000):
        assert await desk.programs.logins.end_one(sid, ALICE, desk.now) is None
    assert [one async for one in desk.programs.logins.end_all(ALICE, desk.now)] == []
    assert all(row.ended is None for row in desk.stage.store.sessions.values())


async def test_revoking_the_person_ends_both_and_what_they_have_open(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    login = await desk.log_in(person)
    streams = [desk.stage.open_exchange(one) for one in (person, login.session)]
    await desk.stage.store.end_sessions_of(now=desk.now, reason="revoked", email=ALICE.email)
    await desk.stage.sessions.tick(desk.now)
    assert [stream.ended for stream in streams] == [EndReason.REVOKED] * 2
    assert await desk.programs.logins.refresh(login.refresh.reveal(), desk.now) == Refused()


@pytest.mark.parametrize("how", ["signed out", "expired", "unknown", "a command line's"])
async def test_only_a_browser_that_is_signed_in_can_consent(desk: Desk, how: str) -> None:
    person = await desk.stage.sign_in()
    sid = person.sid
    if how == "signed out":
        await desk.stage.sessions.end(sid, EndReason.LOGOUT, desk.now)
    elif how == "expired":
        desk.wait(25 * HOUR)
    elif how == "unknown":
        sid = "x" * 24
    else:
        sid = (await desk.log_in(person)).session.sid
    before = len(desk.stage.store.sessions)
    assert await desk.programs.logins.begin(Consent(sid, "laptop"), desk.now) is None
    assert len(desk.stage.store.sessions) == before


async def test_no_login_begins_behind_a_revocation_that_is_not_heard_of_yet(desk: Desk) -> None:
    """Another process revoked the person; ours will read so in half a second."""
    person = await desk.stage.sign_in()
    assert person.subject.email is not None
    await desk.stage.store.end_sessions_of(
        now=desk.now, reason="revoked", email=person.subject.email
    )
    consent = Consent(person.sid, "laptop")
    assert await desk.programs.logins.begin(consent, desk.now) is None
    rows = await desk.stage.store.list_sessions(kind=SessionKind.CLI)
    assert list(rows) == []


async def test_consent_does_not_keep_the_browser_from_falling_idle(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    desk.wait(0.9 * HOUR)
    await desk.log_in(person)
    assert person.last_seen == desk.now - 0.9 * HOUR


async def test_refreshing_keeps_a_login_going_until_its_end(desk: Desk) -> None:
    login = await desk.log_in()
    for _ in range(26):
        desk.wait(0.9 * HOUR)
        login = await refreshed(desk, login.refresh.reveal())
        assert login.access.expires <= login.session.expires
    desk.wait(0.9 * HOUR)
    assert await desk.programs.logins.refresh(login.refresh.reveal(), desk.now) == Refused()


async def test_a_login_that_nobody_uses_falls_idle(desk: Desk) -> None:
    login = await desk.log_in()
    desk.wait(HOUR)
    assert await desk.programs.logins.refresh(login.refresh.reveal(), desk.now) == Refused()
    await desk.stage.sessions.tick(desk.now)
    assert desk.stage.store.sessions[login.session.sid].end_reason == "idle"


async def test_a_restarted_proxy_goes_on_with_logins(desk: Desk) -> None:
    login = await desk.log_in()
    login = await refreshed(await desk.restarted(), login.refresh.reveal())
    await refreshed(desk, login.refresh.reveal())


async def test_a_copied_token_ends_the_login_and_what_it_has_open(desk: Desk) -> None:
    first = await desk.log_in()
    second = await refreshed(desk, first.refresh.reveal())
    stream = desk.stage.open_exchange(first.session)
    desk.wait(60)
    outcome = await desk.programs.logins.refresh(first.refresh.reveal(), desk.now)
    assert outcome == Refused(first.session, reused=True)
    assert stream.ended is EndReason.REVOKED
    assert desk.stage.store.sessions[first.session.sid].end_reason == "revoked"
    assert await desk.programs.logins.refresh(second.refresh.reveal(), desk.now) == Refused()


async def test_a_copy_is_told_once(desk: Desk) -> None:
    """The second time it is the token of a login that is over, and no event."""
    first = await desk.log_in()
    await refreshed(desk, first.refresh.reveal())
    desk.wait(60)
    await desk.programs.logins.refresh(first.refresh.reveal(), desk.now)
    assert await desk.programs.logins.refresh(first.refresh.reveal(), desk.now) == Refused()


async def test_a_lost_answer_costs_nobody_the_login(desk: Desk) -> None:
    first = await desk.log_in()
    answers = await asyncio.gather(*(refreshed(desk, first.refresh.reveal()) for _ in range(5)))
    assert len({one.refresh.reveal() for one in answers}) == 1
    desk.wait(60)
    await refreshed(desk, answers[0].refresh.reveal())


@pytest.mark.parametrize("newest", [True, False], ids=["newest", "older"])
async def test_a_login_ends_by_any_of_its_tokens(desk: Desk, newest: bool) -> None:
    first = await desk.log_in()
    second = await refreshed(desk, first.refresh.reveal())
    token = second.refresh if newest else first.refresh
    desk.wait(60)
    assert await desk.programs.logins.end(token.reveal(), desk.now) is first.session
    assert desk.stage.store.sessions[first.session.sid].end_reason == "logout"
    assert await desk.programs.logins.end(token.reveal(), desk.now) is None


@pytest.mark.parametrize("token", ["", "x", "heim_rt_" + "A" * 91, "a.b.c"])
async def test_what_is_no_refresh_token_does_nothing(desk: Desk, token: str) -> None:
    await desk.log_in()
    assert await desk.programs.logins.refresh(token, desk.now) == Refused()
    assert await desk.programs.logins.end(token, desk.now) is None
    assert all(row.ended is None for row in desk.stage.store.sessions.values())


async def test_a_service_token_is_no_refresh_token(desk: Desk) -> None:
    _, token = await desk.service_token()
    assert await desk.programs.logins.refresh(token, desk.now) == Refused()
    assert await desk.programs.logins.end(token, desk.now) is None


async def test_a_login_that_cannot_be_stored_is_none(desk: Desk) -> None:
    person = await desk.stage.sign_in()
    desk.stage.store.full = True
    with pytest.raises(StoreUnavailable):
        await desk.log_in(person)
    assert len(desk.stage.store.sessions) == 1
    assert desk.stage.store.refresh == {}


async def test_an_outage_costs_nobody_the_login(desk: Desk) -> None:
    login = await desk.log_in()
    for how in ("down", "full"):
        desk.stage.store.down = "gone" if how == "down" else None
        desk.stage.store.full = how == "full"
        with pytest.raises(StoreUnavailable):
            await desk.programs.logins.refresh(login.refresh.reveal(), desk.now)
    desk.stage.store.full = False
    desk.wait(600)
    await refreshed(desk, login.refresh.reveal())


async def test_no_cookie_opens_a_programs_session(desk: Desk) -> None:
    """G5: what proves a session is its kind's, however the other came to be made."""
    login = await desk.log_in()
    cookie = desk.stage.cookie(login.session)
    assert desk.stage.sessions.find("app1.example.test", cookie, desk.now) is Miss.INVALID
    other = await desk.restarted()
    assert await other.stage.sessions.load("app1.example.test", cookie, desk.now) is None


async def test_nothing_shows_a_token(desk: Desk) -> None:
    login = await desk.log_in()
    shown = repr(login)
    assert login.refresh.reveal() not in shown
    assert login.access.text.reveal() not in shown
