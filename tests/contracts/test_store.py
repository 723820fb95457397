"""What every store does; one suite, run against each implementation."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from heim_proxy.store.base import (
    DeviceRow,
    PinResult,
    RefreshRow,
    SessionKind,
    SessionRow,
    Store,
    StoreUnavailable,
)

ROW = SessionRow(
    sid="s1",
    issuer="https://idp.example.test",
    subject="1001",
    email="alice@example.test",
    domain="example.test",
    groups=("a,b", "dev", "größe"),
    provider="idp",
    auth_time=900.5,
    created=1000.25,
    expires=2000.0,
    last_seen=1000.25,
    sealed_tokens=b"\x00\xff sealed",
)

CLI = replace(ROW, sid="c1", kind=SessionKind.CLI, label="alice's laptop 💻")
SERVICE = replace(
    ROW, sid="t1", issuer="heim", subject="backup", email=None, domain=None, groups=(),
    provider="heim", expires=float("inf"), kind=SessionKind.SERVICE, secret_hash=b"\x00" * 32,
)  # fmt: skip
REFRESH = RefreshRow("c1", family=b"f" * 32, current=b"1" * 32, rotated=1000.0)
DEVICE = DeviceRow(
    code=b"d" * 32, user_code=b"u" * 32, label="build host", client="192.0.2.7",
    client_key="192.0.2.7", network="192.0.2.7", created=1000.0, expires=1600.0,
)  # fmt: skip
ROOM = {"limit": 100, "limit_per_client": 100}


async def test_a_session_comes_back_as_it_was_stored(store: Store) -> None:
    await store.create_session(ROW)
    assert await store.get_session("s1") == ROW


async def test_absent_values_stay_absent(store: Store) -> None:
    row = replace(ROW, email=None, domain=None, groups=(), sealed_tokens=b"")
    await store.create_session(row)
    assert await store.get_session("s1") == row


async def test_an_unknown_session_is_none(store: Store) -> None:
    assert await store.get_session("nobody") is None


async def test_a_session_id_is_stored_once(store: Store) -> None:
    await store.create_session(ROW)
    with pytest.raises(StoreUnavailable):
        await store.create_session(replace(ROW, subject="someone else"))
    assert await store.get_session("s1") == ROW
    await store.create_session(replace(ROW, sid="s2"))
    assert len(await store.list_sessions()) == 2, "the failed write was left half done"


async def test_times_after_2038_are_kept_exactly(store: Store) -> None:
    row = replace(ROW, expires=4_102_444_800.125)
    await store.create_session(row)
    found = await store.get_session("s1")
    assert found is not None
    assert found.expires == 4_102_444_800.125


async def test_sessions_are_listed_newest_first(store: Store) -> None:
    await store.create_session(ROW)
    await store.create_session(replace(ROW, sid="s2", created=1001.0))
    assert [row.sid for row in await store.list_sessions()] == ["s2", "s1"]


async def test_sessions_are_listed_by_email(store: Store) -> None:
    await store.create_session(ROW)
    await store.create_session(replace(ROW, sid="s2", email="bob@example.test"))
    await store.create_session(replace(ROW, sid="s3", email=None))
    assert [row.sid for row in await store.list_sessions(email="bob@example.test")] == ["s2"]


async def test_ended_sessions_are_listed_only_when_asked_for(store: Store) -> None:
    await store.create_session(ROW)
    await store.end_session("s1", reason="logout", now=1100.0)
    assert await store.list_sessions() == []
    (row,) = await store.list_sessions(include_ended=True)
    assert (row.ended, row.end_reason) == (1100.0, "logout")


async def test_last_seen_moves_forward_only(store: Store) -> None:
    await store.create_session(ROW)
    await store.create_session(replace(ROW, sid="s2"))
    await store.touch_sessions({"s1": 1500.0, "s2": 10.0, "nobody": 1.0})
    first, second = await store.get_session("s1"), await store.get_session("s2")
    assert first is not None
    assert second is not None
    assert (first.last_seen, second.last_seen) == (1500.0, ROW.last_seen)


async def test_ending_a_session_tells_the_feed(store: Store) -> None:
    await store.create_session(ROW)
    assert await store.last_revocation() == 0
    assert await store.end_session("s1", reason="revoked", now=1100.0)
    (entry,) = await store.revocations(0)
    assert (entry.sid, entry.reason, entry.at) == ("s1", "revoked", 1100.0)
    assert entry.seq == await store.last_revocation() > 0


async def test_a_session_ends_once(store: Store) -> None:
    await store.create_session(ROW)
    assert await store.end_session("s1", reason="revoked", now=1100.0)
    assert not await store.end_session("s1", reason="logout", now=1200.0)
    assert not await store.end_session("nobody", reason="logout", now=1200.0)
    assert len(await store.revocations(0)) == 1
    row = await store.get_session("s1")
    assert row is not None
    assert row.end_reason == "revoked"


async def test_the_feed_goes_on_where_the_reader_was(store: Store) -> None:
    for sid in ("s1", "s2", "s3"):
        await store.create_session(replace(ROW, sid=sid))
        await store.end_session(sid, reason="revoked", now=1100.0)
    entries = await store.revocations(0)
    assert [entry.sid for entry in entries] == ["s1", "s2", "s3"]
    assert await store.revocations(entries[1].seq) == entries[2:]
    assert await store.revocations(entries[2].seq) == []


@pytest.mark.parametrize(
    ("email", "before", "ended"),
    [
        pytest.param(None, None, ["s1", "s2", "s3"], id="all"),
        pytest.param("alice@example.test", None, ["s1", "s2"], id="of an e-mail"),
        pytest.param(None, 1500.0, ["s1", "s3"], id="before a time"),
        pytest.param("alice@example.test", 1500.0, ["s1"], id="both"),
        pytest.param("nobody@example.test", None, [], id="none"),
    ],
)
async def test_many_sessions_end_at_once(
    store: Store, email: str | None, before: float | None, ended: list[str]
) -> None:
    await store.create_session(ROW)
    await store.create_session(replace(ROW, sid="s2", created=1500.0))
    await store.create_session(replace(ROW, sid="s3", email="bob@example.test"))
    count = await store.end_sessions_of(now=1600.0, reason="revoked", email=email, before=before)
    assert count == len(ended)
    assert sorted(entry.sid for entry in await store.revocations(0)) == ended
    assert sorted(row.sid for row in await store.list_sessions()) == sorted(
        {"s1", "s2", "s3"} - set(ended)
    )


async def test_sessions_that_ended_before_are_not_ended_again(store: Store) -> None:
    await store.create_session(ROW)
    await store.end_session("s1", reason="logout", now=1100.0)
    assert await store.end_sessions_of(now=1200.0, reason="revoked") == 0
    assert len(await store.revocations(0)) == 1


async def test_a_one_time_id_is_used_once(store: Store) -> None:
    assert await store.burn("t1", expires=1030.0)
    assert not await store.burn("t1", expires=9999.0)
    assert await store.burn("t2", expires=1030.0)


async def test_an_email_belongs_to_whom_it_was_seen_with_first(store: Store) -> None:
    mail = "alice@example.test"
    assert await store.pin(mail, issuer="i", subject="1", now=1.0) is PinResult.NEW
    assert await store.pin(mail, issuer="i", subject="1", now=2.0) is PinResult.SAME
    assert await store.pin(mail, issuer="i", subject="2", now=3.0) is PinResult.CONFLICT
    assert await store.pin(mail, issuer="other", subject="1", now=3.0) is PinResult.CONFLICT
    assert await store.list_pins() == [(mail, "i", "1", 1.0)]


async def test_an_unpinned_email_may_belong_to_somebody_else(store: Store) -> None:
    await store.pin("alice@example.test", issuer="i", subject="1", now=1.0)
    assert await store.unpin("alice@example.test")
    assert not await store.unpin("alice@example.test")
    found = await store.pin("alice@example.test", issuer="i", subject="2", now=2.0)
    assert found is PinResult.NEW


async def test_purge_drops_what_is_over_and_keeps_the_rest(store: Store) -> None:
    await store.create_session(replace(ROW, sid="ended long ago", expires=9000.0))
    await store.create_session(replace(ROW, sid="ended lately", expires=9000.0))
    await store.create_session(replace(ROW, sid="expired long ago", expires=2000.0))
    await store.create_session(replace(ROW, sid="live", expires=9000.0))
    await store.end_session("ended long ago", reason="logout", now=2000.0)
    await store.end_session("ended lately", reason="logout", now=4500.0)
    await store.burn("old", expires=4000.0)
    await store.burn("fresh", expires=6000.0)

    # one session and its feed entry, one expired session, one burned id
    assert await store.purge(now=5000.0, keep_ended=1000.0) == 4

    rows = await store.list_sessions(include_ended=True)
    assert sorted(row.sid for row in rows) == ["ended lately", "live"]
    assert [entry.sid for entry in await store.revocations(0)] == ["ended lately"]
    assert await store.burn("old", expires=9000.0)
    assert not await store.burn("fresh", expires=9000.0)


async def test_the_feed_never_goes_back_after_a_purge(store: Store) -> None:
    await store.create_session(ROW)
    await store.end_session("s1", reason="logout", now=1100.0)
    last = await store.last_revocation()
    await store.purge(now=9000.0, keep_ended=0.0)
    assert await store.revocations(0) == []
    assert await store.last_revocation() == last
    await store.create_session(replace(ROW, sid="s2"))
    await store.end_session("s2", reason="logout", now=1100.0)
    assert [entry.sid for entry in await store.revocations(last)] == ["s2"]


async def test_hostile_text_is_data(store: Store) -> None:
    nasty = "'; DROP TABLE sessions; --\x01\u202e"
    await store.create_session(replace(ROW, sid=nasty, email=nasty, groups=(nasty,)))
    (row,) = await store.list_sessions(email=nasty)
    assert row.groups == (nasty,)


@pytest.mark.parametrize("row", [CLI, SERVICE], ids=lambda row: row.kind.value)
async def test_a_programs_session_comes_back_as_it_was_stored(
    store: Store, row: SessionRow
) -> None:
    await store.create_session(row)
    assert await store.get_session(row.sid) == row


async def test_sessions_are_listed_by_kind(store: Store) -> None:
    for row in (ROW, CLI, SERVICE):
        await store.create_session(row)
    for row in (ROW, CLI, SERVICE):
        assert await store.list_sessions(kind=row.kind) == [row]
    assert [row.sid for row in await store.list_sessions(email=ROW.email)] == ["c1", "s1"]
    assert await store.list_sessions(email=ROW.email, kind=SessionKind.SERVICE) == []


async def test_a_persons_command_lines_are_listed_those_seen_last_first(store: Store) -> None:
    mine = [replace(CLI, sid=f"c{n}", last_seen=1000.0 + n) for n in range(4)]
    others = [
        ROW,
        SERVICE,
        replace(CLI, sid="issuer", issuer="https://other.example.test"),
        replace(CLI, sid="subject", subject="1002"),
        replace(CLI, sid="expired", expires=1500.0),
        replace(CLI, sid="ended"),
    ]
    for row in (*others, *mine):
        await store.create_session(row)
    await store.end_session("ended", reason="logout", now=1100.0)
    who = {"issuer": CLI.issuer, "subject": CLI.subject}
    assert await store.list_cli_logins(**who, now=1500.0, limit=9) == mine[::-1]
    assert await store.list_cli_logins(**who, now=1500.0, limit=2) == [mine[3], mine[2]]
    assert await store.list_cli_logins(**who, now=CLI.expires, limit=9) == []


async def test_a_persons_programs_end_with_the_person(store: Store) -> None:
    for row in (ROW, CLI, SERVICE):
        await store.create_session(row)
    assert await store.end_sessions_of(now=1.0, reason="revoked", email="alice@example.test") == 2
    assert [row.sid for row in await store.list_sessions()] == ["t1"]
    assert await store.end_sessions_of(now=1.0, reason="revoked") == 1


async def test_a_login_and_its_refresh_token_are_stored_together(store: Store) -> None:
    assert await store.get_refresh("c1") is None
    await store.create_session(CLI, refresh=REFRESH)
    assert await store.get_refresh("c1") == REFRESH


async def test_a_login_that_cannot_be_stored_leaves_no_refresh_token(store: Store) -> None:
    await store.create_session(CLI)
    with pytest.raises(StoreUnavailable):
        await store.create_session(CLI, refresh=REFRESH)
    assert await store.get_refresh("c1") is None


async def test_a_refresh_token_is_replaced_by_whoever_has_the_newest(store: Store) -> None:
    await store.create_session(CLI, refresh=REFRESH)
    turn = {"successor": b"2" * 32, "salt": b"s" * 32}
    assert await store.rotate_refresh("c1", current=b"1" * 32, now=1010.0, **turn)
    assert await store.get_refresh("c1") == replace(
        REFRESH, current=b"2" * 32, previous=b"1" * 32, salt=b"s" * 32, rotated=1010.0
    )
    assert not await store.rotate_refresh("c1", current=b"1" * 32, now=1011.0, **turn)
    assert not await store.rotate_refresh("nobody", current=b"1" * 32, now=1011.0, **turn)
    found = await store.get_refresh("c1")
    assert found is not None
    assert found.rotated == 1010.0


async def test_of_many_at_once_one_replaces_a_refresh_token(store: Store) -> None:
    await store.create_session(CLI, refresh=REFRESH)
    won = await asyncio.gather(
        *(
            store.rotate_refresh(
                "c1", current=b"1" * 32, successor=bytes([n]) * 32, salt=b"s" * 32, now=1010.0
            )
            for n in range(20)
        )
    )
    assert sum(won) == 1


async def test_a_waiting_device_is_found_by_either_code(store: Store) -> None:
    assert await store.add_device(DEVICE, **ROOM)
    assert await store.get_device(DEVICE.code) == DEVICE
    assert await store.find_device(DEVICE.user_code) == DEVICE
    assert await store.get_device(DEVICE.user_code) is None
    assert await store.find_device(DEVICE.code) is None


@pytest.mark.parametrize("same", ["code", "user_code"])
async def test_no_two_devices_wait_under_one_code(store: Store, same: str) -> None:
    await store.add_device(DEVICE, **ROOM)
    other = replace(DEVICE, code=b"x" * 32, user_code=b"y" * 32, client="192.0.2.8")
    with pytest.raises(StoreUnavailable):
        await store.add_device(replace(other, **{same: getattr(DEVICE, same)}), **ROOM)
    assert await store.add_device(other, **ROOM)


def device(
    number: int, *, client: str = "192.0.2.7", network: str = "", created: float = 1000.0
) -> DeviceRow:
    return replace(
        DEVICE, code=b"c%031d" % number, user_code=b"u%031d" % number, client_key=client,
        network=network or client, created=created, expires=created + 600,
    )  # fmt: skip


async def test_only_so_many_devices_wait(store: Store) -> None:
    for number in range(3):
        assert await store.add_device(device(number), limit=3, limit_per_client=9)
    assert not await store.add_device(device(3), limit=3, limit_per_client=9)
    assert await store.get_device(device(3).code) is None


async def test_when_all_places_are_taken_the_network_that_has_most_makes_room(
    store: Store,
) -> None:
    """One site with 2^16 clients of its own does not keep everybody else out."""
    one_each = {"limit": 4, "limit_per_client": 1}
    for number in range(4):
        row = device(number, client=f"64-{number}", network="48", created=1000.0 + number)
        assert await store.add_device(row, **one_each)
    await store.decide_device(device(0).user_code, sid="s1", now=1010.0)
    assert not await store.add_device(device(4, client="64-4", network="48"), **one_each)
    for number in (5, 6):
        assert await store.add_device(device(number, client=f"person {number}"), **one_each)
    assert not await store.add_device(device(7, client="person 7", network="person 5"), **one_each)
    left = [n for n in range(8) if await store.get_device(device(n).code)]
    assert left == [0, 3, 5, 6], "not the oldest of the site, or one that was approved"


async def test_among_equals_those_who_came_first_stay(store: Store) -> None:
    for number in range(3):
        await store.add_device(device(number, client=f"{number}"), limit=3, limit_per_client=9)
    assert not await store.add_device(device(3, client="3"), limit=3, limit_per_client=9)
    assert [bool(await store.get_device(device(n).code)) for n in range(4)] == [True] * 3 + [False]


async def test_only_so_many_devices_of_a_client_wait(store: Store) -> None:
    for number in range(3):
        assert await store.add_device(device(number), limit=9, limit_per_client=3)
    assert not await store.add_device(device(3), limit=9, limit_per_client=3)
    assert await store.add_device(device(4, client="192.0.2.8"), limit=9, limit_per_client=3)


async def test_devices_that_expired_make_room(store: Store) -> None:
    for number in range(3):
        await store.add_device(device(number), limit=3, limit_per_client=3)
    assert await store.add_device(device(3, created=1600.0), limit=3, limit_per_client=3)
    assert await store.get_device(device(0).code) is None


@pytest.mark.parametrize("sid", ["s1", ""], ids=["approved", "denied"])
async def test_a_device_is_decided_once_and_taken_once(store: Store, sid: str) -> None:
    await store.add_device(DEVICE, **ROOM)
    assert await store.take_device(DEVICE.code) is None
    assert await store.decide_device(DEVICE.user_code, sid=sid, now=1599.0)
    assert not await store.decide_device(DEVICE.user_code, sid="s2", now=1599.0)
    taken = await asyncio.gather(*(store.take_device(DEVICE.code) for _ in range(5)))
    assert [row for row in taken if row] == [replace(DEVICE, decided=True, sid=sid)]
    assert await store.find_device(DEVICE.user_code) is None


@pytest.mark.parametrize(
    ("user_code", "now"),
    [
        pytest.param(b"x" * 32, 1100.0, id="unknown"),
        pytest.param(DEVICE.user_code, 1600.0, id="expired"),
    ],
)
async def test_a_device_that_does_not_wait_is_not_decided(
    store: Store, user_code: bytes, now: float
) -> None:
    await store.add_device(DEVICE, **ROOM)
    assert not await store.decide_device(user_code, sid="s1", now=now)
    assert await store.get_device(DEVICE.code) == DEVICE


async def test_purge_drops_what_programs_leave_behind(store: Store) -> None:
    await store.create_session(CLI, refresh=REFRESH)
    await store.create_session(
        replace(CLI, sid="c2", expires=9000.0), refresh=replace(REFRESH, sid="c2")
    )
    await store.create_session(SERVICE)
    await store.add_device(DEVICE, **ROOM)
    # the expired login, its refresh token, the device
    assert await store.purge(now=5000.0, keep_ended=1000.0) == 3
    assert await store.get_refresh("c1") is None
    assert await store.get_refresh("c2") is not None
    assert await store.get_device(DEVICE.code) is None
    assert await store.get_session("t1") == SERVICE, "a token that never expires was dropped"


@pytest.mark.parametrize("row", [CLI, REFRESH, DEVICE, SERVICE], ids=lambda row: type(row).__name__)
def test_rows_do_not_show_what_is_secret(row: object) -> None:
    for secret in ("00000000", "ffff", "1111", "dddd", "uuuu", "\\x00", "sealed"):
        assert secret not in repr(row)


async def test_a_closed_store_is_unavailable(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.get_session("s1")
