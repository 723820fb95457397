"""What every store does for agents: join tokens, enrolments, those who wait to be let in."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from heim_proxy.store.base import (
    DeviceRow,
    EnrolFailure,
    Enrolment,
    JoinTokenRow,
    SessionKind,
    SessionRow,
    Store,
    StoreUnavailable,
)

TOKEN = JoinTokenRow("j1", "desktop", secret_hash=b"h" * 32, created=1000.0, expires=1900.0)
ROW = SessionRow(
    sid="a1", issuer="heim", subject="desktop", email=None, domain=None, groups=(),
    provider="heim", auth_time=1010.0, created=1010.0, expires=float("inf"), last_seen=1010.0,
    kind=SessionKind.AGENT, label="pc-17", secret_hash=b"k" * 32,
)  # fmt: skip
OTHER = replace(ROW, sid="a2", secret_hash=b"o" * 32, created=1020.0, label="pc-18")
ALONE = {"group": False, "replace": False}


async def test_a_join_token_comes_back_as_it_was_stored(store: Store) -> None:
    row = replace(TOKEN, replace=True)
    await store.add_join_token(row)
    assert await store.get_join_token("j1") == row
    assert await store.get_join_token("j2") is None


async def test_a_join_token_is_stored_once(store: Store) -> None:
    await store.add_join_token(TOKEN)
    with pytest.raises(StoreUnavailable):
        await store.add_join_token(replace(TOKEN, name="office"))
    assert await store.list_join_tokens() == [TOKEN]


async def test_join_tokens_are_listed_newest_first(store: Store) -> None:
    newer = replace(TOKEN, id="j2", created=1001.0)
    for row in (TOKEN, newer):
        await store.add_join_token(row)
    assert await store.list_join_tokens() == [newer, TOKEN]


async def test_a_join_token_is_dropped_unless_it_was_used(store: Store) -> None:
    await store.add_join_token(TOKEN)
    await store.add_join_token(replace(TOKEN, id="j2"))
    await store.enrol(ROW, **ALONE, token="j2")
    assert await store.drop_join_token("j1")
    assert not await store.drop_join_token("j1")
    assert not await store.drop_join_token("j2")
    assert [row.id for row in await store.list_join_tokens()] == ["j2"]


async def test_an_enrolment_burns_its_token(store: Store) -> None:
    await store.add_join_token(TOKEN)
    assert await store.enrol(ROW, **ALONE, token="j1") == Enrolment(ROW)
    assert await store.get_join_token("j1") == replace(TOKEN, used=1010.0, sid="a1")
    assert await store.get_session("a1") == ROW
    assert await store.list_enrolments("desktop") == [ROW]


async def test_an_enrolment_needs_no_token(store: Store) -> None:
    assert await store.enrol(ROW, **ALONE) == Enrolment(ROW)
    assert await store.list_enrolments("desktop") == [ROW]


@pytest.mark.parametrize(
    ("row", "token"),
    [
        pytest.param(ROW, "j9", id="unknown"),
        pytest.param(replace(ROW, subject="office"), "j1", id="for another name"),
        pytest.param(replace(ROW, created=1900.0), "j1", id="expired"),
    ],
)
async def test_a_token_that_is_no_good_enrols_nobody(
    store: Store, row: SessionRow, token: str
) -> None:
    await store.add_join_token(TOKEN)
    assert await store.enrol(row, **ALONE, token=token) is EnrolFailure.TOKEN_OVER
    assert await store.list_enrolments(row.subject) == []
    assert await store.get_join_token("j1") == TOKEN


async def test_of_many_at_once_one_uses_a_token(store: Store) -> None:
    await store.add_join_token(TOKEN)
    rows = [replace(ROW, sid=f"a{n}", secret_hash=bytes([n]) * 32) for n in range(10)]
    done = await asyncio.gather(
        *(store.enrol(row, group=True, replace=False, token="j1") for row in rows)
    )
    assert done.count(EnrolFailure.TOKEN_OVER) == 9
    assert len(await store.list_enrolments("desktop")) == 1


async def test_a_name_that_is_enrolled_is_taken_and_the_token_stays(store: Store) -> None:
    await store.add_join_token(TOKEN)
    await store.enrol(ROW, **ALONE)
    assert await store.enrol(OTHER, **ALONE, token="j1") is EnrolFailure.NAME_TAKEN
    assert await store.list_enrolments("desktop") == [ROW]
    assert await store.get_join_token("j1") == TOKEN
    assert await store.revocations(0) == []


async def test_a_name_is_free_again_when_its_enrolment_ended(store: Store) -> None:
    await store.enrol(ROW, **ALONE)
    await store.end_session("a1", reason="revoked", now=1015.0)
    assert await store.list_enrolments("desktop") == []
    assert await store.enrol(OTHER, **ALONE) == Enrolment(OTHER)


async def test_replacing_ends_what_was_there_and_tells_the_feed(store: Store) -> None:
    await store.enrol(ROW, **ALONE)
    assert await store.enrol(OTHER, group=False, replace=True) == Enrolment(OTHER, ("a1",))
    (entry,) = await store.revocations(0)
    assert (entry.sid, entry.reason, entry.at) == ("a1", "replaced", 1020.0)
    assert await store.list_enrolments("desktop") == [OTHER]


async def test_a_group_has_several_keys_and_ends_none(store: Store) -> None:
    await store.enrol(ROW, group=True, replace=False)
    assert await store.enrol(OTHER, group=True, replace=True) == Enrolment(OTHER)
    assert await store.list_enrolments("desktop") == [OTHER, ROW]
    assert await store.revocations(0) == []


async def test_one_machine_of_a_group_is_found_by_its_key(store: Store) -> None:
    await store.enrol(ROW, group=True, replace=False)
    await store.enrol(OTHER, group=True, replace=False)
    await store.enrol(replace(ROW, sid="a3", subject="office"), **ALONE)
    assert await store.list_enrolments("desktop", key=ROW.secret_hash) == [ROW]
    await store.end_session("a1", reason="revoked", now=1015.0)
    assert await store.list_enrolments("desktop", key=ROW.secret_hash) == []


@pytest.mark.parametrize("replaces", [False, True])
async def test_a_key_that_is_enrolled_keeps_its_enrolment(store: Store, replaces: bool) -> None:
    """An agent whose join was answered into a dead connection joins again with a new token."""
    await store.add_join_token(TOKEN)
    await store.enrol(ROW, **ALONE)
    again = replace(ROW, sid="a9", created=1020.0, label="renamed")
    kept = replace(ROW, label="renamed")
    assert await store.enrol(again, group=False, replace=replaces, token="j1") == Enrolment(kept)
    assert await store.list_enrolments("desktop") == [kept]
    assert await store.get_join_token("j1") == replace(TOKEN, used=1020.0, sid="a1")
    assert await store.revocations(0) == []


async def test_replacing_ends_the_others_also_for_a_key_that_is_enrolled(store: Store) -> None:
    """It was a group and is one machine now: whoever is replaced must not stay."""
    await store.enrol(ROW, group=True, replace=False)
    await store.enrol(OTHER, group=True, replace=False)
    again = replace(ROW, sid="a3", created=1030.0)
    assert await store.enrol(again, group=False, replace=True) == Enrolment(ROW, ("a2",))
    assert await store.list_enrolments("desktop") == [ROW]
    assert [one.sid for one in await store.revocations(0)] == ["a2"]


async def test_one_key_may_be_several_agents(store: Store) -> None:
    await store.enrol(ROW, **ALONE)
    await store.enrol(replace(ROW, sid="a2", subject="office"), **ALONE)
    assert [row.sid for row in await store.list_enrolments("office")] == ["a2"]


async def test_an_enrolment_that_cannot_be_stored_burns_no_token(store: Store) -> None:
    await store.add_join_token(TOKEN)
    await store.create_session(replace(ROW, kind=SessionKind.SERVICE))
    with pytest.raises(StoreUnavailable):
        await store.enrol(ROW, **ALONE, token="j1")
    assert await store.get_join_token("j1") == TOKEN


async def test_other_sessions_of_that_name_are_no_enrolments(store: Store) -> None:
    """A service account may have an agent's name, and a provider's subject may be any word."""
    await store.create_session(replace(ROW, sid="t1", kind=SessionKind.SERVICE))
    await store.create_session(replace(ROW, sid="s1", kind=SessionKind.BROWSER))
    assert await store.list_enrolments("desktop") == []
    assert await store.enrol(ROW, **ALONE) == Enrolment(ROW)
    assert await store.list_sessions(kind=SessionKind.AGENT) == [ROW]


async def test_an_enrolment_is_nobodys_command_line(store: Store) -> None:
    await store.enrol(ROW, **ALONE)
    found = await store.list_cli_logins(issuer="heim", subject="desktop", now=1020.0, limit=9)
    assert found == []


async def test_an_agent_that_waits_comes_back_with_its_key(store: Store) -> None:
    row = DeviceRow(
        code=b"d" * 32, user_code=b"u" * 32, label="pc-17", client="192.0.2.7",
        client_key="192.0.2.7", network="192.0.2.7", created=1000.0, expires=1600.0,
        agent="desktop", key=b"spki", version="0.4.0",
    )  # fmt: skip
    await store.add_device(row, limit=9, limit_per_client=9)
    assert await store.get_device(row.code) == row
    await store.decide_device(row.user_code, sid="s1", now=1001.0)
    assert await store.take_device(row.code) == replace(row, decided=True, sid="s1")


async def test_purge_drops_join_tokens_and_keeps_enrolments(store: Store) -> None:
    await store.add_join_token(TOKEN)
    await store.add_join_token(replace(TOKEN, id="j2", expires=4500.0))
    await store.enrol(ROW, **ALONE)
    assert await store.purge(now=5000.0, keep_ended=1000.0) == 1
    assert [row.id for row in await store.list_join_tokens()] == ["j2"]
    assert await store.list_enrolments("desktop") == [ROW]


def test_a_token_does_not_show_its_hash() -> None:
    assert repr(TOKEN) == "<JoinTokenRow 'j1' for 'desktop'>"
