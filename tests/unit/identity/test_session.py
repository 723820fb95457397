"""Sessions: who is let in by a cookie, and who is not (G1-G10, G13)."""

from __future__ import annotations

import asyncio
import dataclasses
import timeit

import pytest

from heim_proxy.identity.cookies import SESSION_COOKIE
from heim_proxy.identity.seal import Purpose, Sealer
from heim_proxy.identity.session import CLOCK_SKEW_S, Miss, Session
from heim_proxy.identity.session_cookie import CookieClaims
from heim_proxy.live import EndReason
from tests.fakes.sessions import ALICE, NOW, Stage, ring

APP1 = "app1.example.test"
APP2 = "app2.example.test"


@pytest.fixture
async def stage() -> Stage:
    return await Stage.up()


@pytest.fixture
async def alice(stage: Stage) -> Session:
    return await stage.sign_in()


def forged(stage: Stage, session: Session, **change: object) -> bytes:
    """A cookie that our own key sealed, with something wrong in it."""
    claims = CookieClaims(session.sid, session.digest, NOW, NOW, session.expires)
    changed = claims._replace(**change)  # type: ignore[arg-type]
    return stage.sealer.seal(
        changed.pack(), purpose=Purpose.SESSION, host=APP1, name=SESSION_COOKIE
    ).encode()


async def test_a_cookie_finds_its_session(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    assert stage.sessions.find(APP1, cookie, NOW + 1) is alice
    assert stage.sessions.find(APP1, cookie, NOW + 2) is alice
    assert alice.subject == ALICE
    assert alice.last_seen == NOW + 2


async def test_the_cookie_is_small_and_says_nothing(stage: Stage, alice: Session) -> None:
    value = stage.cookie(alice)
    assert len(value) < 700
    assert stage.sessions.cookie_for(alice, APP1, NOW).endswith(
        "; Max-Age=86400; Path=/; Secure; HttpOnly; SameSite=Lax"
    )
    assert len(stage.cookie(await stage.sign_in(dataclasses.replace(
        ALICE, groups=frozenset(f"group {number}" for number in range(10_000))
    )))) == len(value)  # fmt: skip


async def test_every_flipped_bit_and_truncation_is_anonymous(stage: Stage, alice: Session) -> None:
    """G1, G2: never an exception, never somebody."""
    cookie = stage.cookie(alice)
    assert stage.sessions.find(APP1, cookie, NOW) is alice
    for at in range(len(cookie)):
        assert stage.sessions.find(APP1, cookie[:at], NOW) is Miss.INVALID
        for bit in range(8):
            flipped = bytearray(cookie)
            flipped[at] ^= 1 << bit
            assert stage.sessions.find(APP1, bytes(flipped), NOW) is Miss.INVALID, (at, bit)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"=", b"x" * 16384, b"\x00\xff", b'"quoted"', b"a b", "größe".encode()],
    ids=["empty", "equals", "16 KiB", "binary", "quotes", "space", "UTF-8"],
)
async def test_garbage_is_anonymous(stage: Stage, garbage: bytes) -> None:
    """G2."""
    assert stage.sessions.find(APP1, garbage, NOW) is Miss.INVALID
    assert await stage.sessions.load(APP1, garbage, NOW) is None
    assert "get_session" not in stage.store.calls


async def test_garbage_is_not_remembered(stage: Stage) -> None:
    """G18."""
    for number in range(2000):
        stage.sessions.find(APP1, f"garbage{number}".encode(), NOW)
    assert len(stage.sessions._verified) == 0


@pytest.mark.parametrize("warm", [True, False], ids=["remembered", "unknown"])
async def test_a_cookie_of_one_application_is_nothing_at_another(
    stage: Stage, alice: Session, warm: bool
) -> None:
    """G4."""
    cookie = stage.cookie(alice, APP1)
    if warm:
        assert stage.sessions.find(APP1, cookie, NOW) is alice
    for host in (APP2, "auth.example.test", "", APP1.upper()):
        assert stage.sessions.find(host, cookie, NOW) is Miss.INVALID
        assert await stage.sessions.load(host, cookie, NOW) is None
    assert stage.sessions.find(APP1, cookie, NOW) is alice


async def test_a_box_for_something_else_is_no_session_cookie(stage: Stage, alice: Session) -> None:
    """G5."""
    claims = CookieClaims(alice.sid, alice.digest, NOW, NOW, NOW + 100).pack()
    for purpose in set(Purpose) - {Purpose.SESSION}:
        box = stage.sealer.seal(claims, purpose=purpose, host=APP1, name=SESSION_COOKIE)
        assert stage.sessions.find(APP1, box.encode(), NOW) is Miss.INVALID


@pytest.mark.parametrize("payload", [b"", b"{}", b"x" * 57, b"x" * 59, b"\xff" * 58])
async def test_a_box_with_another_content_is_no_session_cookie(
    stage: Stage, payload: bytes
) -> None:
    box = stage.sealer.seal(payload, purpose=Purpose.SESSION, host=APP1, name=SESSION_COOKIE)
    assert stage.sessions.find(APP1, box.encode(), NOW) is Miss.INVALID


async def test_every_login_gets_a_session_id_of_its_own(stage: Stage) -> None:
    """G6: nothing that was there before the login can become the session."""
    sids = {(await stage.sign_in()).sid for _ in range(100)}
    assert len(sids) == 100
    assert all(len(sid) == 24 for sid in sids)


async def test_a_session_of_one_key_works_on_every_host_it_was_given_to(
    stage: Stage, alice: Session
) -> None:
    assert stage.sessions.find(APP1, stage.cookie(alice, APP1), NOW) is alice
    assert stage.sessions.find(APP2, stage.cookie(alice, APP2), NOW) is alice


async def test_groups_and_tokens_are_in_the_store_only(stage: Stage, alice: Session) -> None:
    row = stage.store.sessions[alice.sid]
    assert row.groups == ("dev", "sre")
    assert b"refresh" not in row.sealed_tokens
    assert await stage.sessions.tokens(alice.sid) == b"refresh"
    assert await stage.sessions.tokens("unknown") == b""


async def test_tokens_open_only_for_their_session_and_with_their_key(stage: Stage) -> None:
    one, two = await stage.sign_in(), await stage.sign_in()
    rows = stage.store.sessions
    rows[two.sid] = dataclasses.replace(rows[two.sid], sealed_tokens=rows[one.sid].sealed_tokens)
    assert await stage.sessions.tokens(two.sid) == b""
    stage.sessions.set_keys(ring("k2"))
    assert await stage.sessions.tokens(one.sid) == b""


@pytest.mark.parametrize(
    ("issued", "good"),
    [(NOW + CLOCK_SKEW_S, True), (NOW + CLOCK_SKEW_S + 1, False)],
    ids=["60 s ahead", "61 s ahead"],
)
async def test_a_cookie_from_the_future_is_tolerated_within_skew(
    stage: Stage, alice: Session, issued: float, good: bool
) -> None:
    """G10."""
    found = stage.sessions.find(APP1, forged(stage, alice, issued=issued), NOW)
    assert found is (alice if good else Miss.INVALID)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("field", ["issued", "auth_time", "expires"])
async def test_times_that_are_none_are_refused(
    stage: Stage, alice: Session, field: str, value: float
) -> None:
    assert stage.sessions.find(APP1, forged(stage, alice, **{field: value}), NOW) is Miss.INVALID


@pytest.mark.parametrize("warm", [True, False], ids=["remembered", "unknown"])
async def test_a_session_ends_at_its_absolute_age_however_busy(warm: bool) -> None:
    """G10."""
    stage = await Stage.up(lifetime=1000.0, idle=500.0)
    alice = await stage.sign_in()
    cookie = stage.cookie(alice)
    if warm:
        for age in range(0, 1000, 100):
            assert stage.sessions.find(APP1, cookie, NOW + age) is alice
    else:
        alice.last_seen = NOW + 900
    assert stage.sessions.find(APP1, cookie, NOW + 999.9) is alice
    assert stage.sessions.find(APP1, cookie, NOW + 1000) is Miss.INVALID
    assert await stage.sessions.load(APP1, cookie, NOW + 1000) is None


@pytest.mark.parametrize("warm", [True, False], ids=["remembered", "unknown"])
async def test_a_session_ends_when_it_was_idle_too_long(warm: bool) -> None:
    """G10."""
    stage = await Stage.up(idle=500.0)
    alice = await stage.sign_in()
    cookie = stage.cookie(alice)
    if warm:
        stage.sessions.find(APP1, cookie, NOW)
    assert stage.sessions.find(APP1, cookie, NOW + 499) is alice
    assert stage.sessions.find(APP1, cookie, NOW + 998) is alice
    assert stage.sessions.find(APP1, cookie, NOW + 1498) is Miss.INVALID
    assert alice.ended == "idle"
    assert stage.sessions.find(APP1, cookie, NOW + 999) is Miss.INVALID, "it came back"


async def test_sessions_after_2038_are_like_any_other() -> None:
    """G10."""
    stage = await Stage.up()
    stage.clock.time = 4_102_444_800.0
    alice = await stage.sign_in()
    cookie = stage.cookie(alice)
    assert stage.sessions.find(APP1, cookie, stage.now + 3599) is alice
    stage = await stage.restarted()
    assert isinstance(await stage.sessions.load(APP1, cookie, stage.now + 10), Session)


async def test_a_clock_set_back_does_not_prolong_idleness(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW + 3000)
    stage.sessions.find(APP1, cookie, NOW)
    assert stage.sessions.find(APP1, cookie, NOW + 3600) is Miss.INVALID


async def test_a_shorter_lifetime_holds_for_running_sessions_and_a_longer_does_not(
    stage: Stage, alice: Session
) -> None:
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW)
    stage.sessions.set_limits(10 * 86400.0, 10 * 86400.0)
    assert alice.expires == NOW + 86400
    stage.sessions.set_limits(100.0, 1000.0)
    assert stage.sessions.find(APP1, cookie, NOW + 99) is alice
    assert stage.sessions.find(APP1, cookie, NOW + 100) is Miss.INVALID


async def test_a_shorter_idle_time_holds_at_once(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW)
    stage.sessions.set_limits(86400.0, 60.0)
    assert stage.sessions.find(APP1, cookie, NOW + 60) is Miss.INVALID


async def test_a_restart_keeps_sessions(stage: Stage, alice: Session) -> None:
    """G13."""
    cookie = stage.cookie(alice)
    after = await stage.restarted()
    assert after.sessions.find(APP1, cookie, NOW + 1) is Miss.LOAD
    loaded = await after.sessions.load(APP1, cookie, NOW + 1)
    assert isinstance(loaded, Session)
    assert (loaded.sid, loaded.subject, loaded.auth_time, loaded.expires) == (
        alice.sid,
        ALICE,
        NOW,
        alice.expires,
    )
    assert after.sessions.find(APP1, cookie, NOW + 2) is loaded


async def test_a_loaded_session_serves_every_host(stage: Stage, alice: Session) -> None:
    one, two = stage.cookie(alice, APP1), stage.cookie(alice, APP2)
    after = await stage.restarted()
    loaded = await after.sessions.load(APP1, one, NOW)
    assert after.sessions.find(APP2, two, NOW) is loaded


async def test_one_read_serves_all_who_wait_for_it(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    after = await stage.restarted()
    found = await asyncio.gather(*(after.sessions.load(APP1, cookie, NOW) for _ in range(50)))
    assert len({id(session) for session in found}) == 1
    assert after.store.calls["get_session"] == 1


async def test_who_gives_up_waiting_does_not_fail_the_others(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    after = await stage.restarted()
    waiting = [asyncio.ensure_future(after.sessions.load(APP1, cookie, NOW)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert isinstance(results[1], Session)
    assert results[2] is results[1]


@pytest.mark.parametrize(
    "how", ["ended", "purged", "idle", "of somebody else", "made after its cookie"]
)
async def test_a_row_that_does_not_bear_its_cookie_out_is_anonymous(
    stage: Stage, alice: Session, how: str
) -> None:
    cookie = stage.cookie(alice)
    rows, row = stage.store.sessions, stage.store.sessions[alice.sid]
    later = NOW + 10
    match how:
        case "ended":
            await stage.store.end_session(alice.sid, reason="revoked", now=NOW)
        case "purged":
            del rows[alice.sid]
        case "idle":
            later = NOW + 3600
        case "of somebody else":
            rows[alice.sid] = dataclasses.replace(row, subject="666")
        case "made after its cookie":
            rows[alice.sid] = dataclasses.replace(row, created=NOW + 1000, last_seen=NOW + 1000)
            later = NOW + 1001
    after = await stage.restarted()
    assert after.sessions.find(APP1, cookie, later) is Miss.LOAD
    assert await after.sessions.load(APP1, cookie, later) is None
    assert after.sessions.find(APP1, cookie, later) is Miss.INVALID


async def test_a_row_older_than_its_cookie_decides(stage: Stage, alice: Session) -> None:
    """A store restored from a backup: the row's times are the earlier ones, and they count."""
    cookie = forged(stage, alice, auth_time=NOW + 500, expires=NOW + 999_999)
    loaded = await (await stage.restarted()).sessions.load(APP1, cookie, NOW + 1)
    assert isinstance(loaded, Session)
    assert (loaded.auth_time, loaded.expires) == (NOW, NOW + 86400)


async def test_an_earlier_end_in_the_cookie_counts(stage: Stage, alice: Session) -> None:
    cookie = forged(stage, alice, expires=NOW + 50)
    assert stage.sessions.find(APP1, cookie, NOW + 49) is alice
    assert stage.sessions.find(APP1, cookie, NOW + 50) is Miss.INVALID
    assert stage.sessions.find(APP1, stage.cookie(alice), NOW + 50) is alice


async def test_an_ended_session_costs_one_read_however_often_it_is_tried(
    stage: Stage, alice: Session
) -> None:
    cookie = stage.cookie(alice)
    await stage.store.end_session(alice.sid, reason="revoked", now=NOW)
    after = await stage.restarted()
    for _ in range(10):
        assert await after.sessions.load(APP1, cookie, NOW) is None
    assert after.store.calls["get_session"] == 1


async def test_last_seen_is_written_once_a_minute_and_survives(
    stage: Stage, alice: Session
) -> None:
    cookie = stage.cookie(alice)
    for second in range(121):
        stage.clock.time = NOW + second
        stage.sessions.find(APP1, cookie, stage.now)
        await stage.sessions.tick(stage.now)
    assert stage.store.calls["touch_sessions"] == 2
    assert stage.store.sessions[alice.sid].last_seen == NOW + 120


async def test_a_session_by_its_id_needs_no_cookie(stage: Stage, alice: Session) -> None:
    assert await stage.sessions.get(alice.sid, NOW) is alice
    assert await stage.sessions.get("unknown", NOW) is None
    after = await stage.restarted()
    assert isinstance(await after.sessions.get(alice.sid, NOW), Session)
    await after.sessions.end(alice.sid, EndReason.LOGOUT, NOW)
    assert await after.sessions.get(alice.sid, NOW) is None


async def test_an_old_key_opens_and_its_cookies_are_renewed() -> None:
    """G9."""
    old, new = ring("old"), ring("new")
    stage = await Stage.up(sealer=Sealer(old))
    alice = await stage.sign_in()
    cookie = stage.cookie(alice)
    assert stage.sessions.find(APP1, cookie, NOW) is alice
    assert stage.sessions.renewal(APP1, cookie) is None

    stage.sessions.set_keys(type(old)([new.first, old.first]))
    assert stage.sessions.find(APP1, cookie, NOW) is alice
    header = stage.sessions.renewal(APP1, cookie)
    assert header is not None
    assert stage.sessions.renewal(APP2, cookie) is None
    renewed = header.partition("=")[2].partition(";")[0].encode()
    assert stage.sessions.find(APP1, renewed, NOW) is alice
    assert stage.sessions.renewal(APP1, renewed) is None

    stage.sessions.set_keys(new)
    assert stage.sessions.find(APP1, renewed, NOW) is alice
    assert stage.sessions.find(APP1, cookie, NOW) is Miss.INVALID


async def test_a_key_that_is_removed_during_a_load_lets_nobody_in() -> None:
    """G9: what a stolen key sealed must not stay in memory, whenever the ring changes."""
    stage = await Stage.up(sealer=Sealer(ring("stolen")))
    cookie = stage.cookie(await stage.sign_in())
    after = await stage.restarted()
    loading = asyncio.ensure_future(after.sessions.load(APP1, cookie, NOW))
    await asyncio.sleep(0)
    after.sessions.set_keys(ring("new"))
    assert await loading is None
    assert after.sessions.find(APP1, cookie, NOW) is Miss.INVALID


async def test_what_is_no_cookie_of_ours_is_not_renewed(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW)
    old = next(iter(stage.sealer._boxes))
    assert old == b"k1"
    assert stage.sessions.renewal(APP1, b"garbage") is None
    assert stage.sessions.renewal(APP1, b"") is None


async def test_a_hit_is_one_look_and_makes_no_objects(stage: Stage, alice: Session) -> None:
    """A regression guard, not a bench: measured 0.25 µs; a decryption or a tuple key shows."""
    cookie = stage.cookie(alice)
    find = stage.sessions.find
    find(APP1, cookie, NOW)
    best = min(timeit.repeat(lambda: find(APP1, cookie, NOW), number=2000, repeat=20)) / 2000
    assert best < 3e-6


async def test_repr_shows_whom_and_no_whole_id(stage: Stage, alice: Session) -> None:
    assert repr(alice).startswith("<Session 'alice@example.test' ")
    assert alice.sid not in repr(alice)
    await stage.sessions.end(alice.sid, EndReason.LOGOUT, NOW)
    assert "logout" in repr(alice)


async def test_looking_at_a_session_is_no_use_of_it(stage: Stage, alice: Session) -> None:
    stage.clock.time += 60
    assert await stage.sessions.peek(alice.sid, stage.now) is alice
    assert alice.last_seen == NOW
    assert await stage.sessions.get(alice.sid, stage.now) is alice
    assert alice.last_seen == NOW + 60


async def test_looking_finds_no_session_whose_time_is_over(stage: Stage, alice: Session) -> None:
    stage.clock.time += 86400
    assert await stage.sessions.peek(alice.sid, stage.now) is None
    assert alice.ended == "expired"
    assert await stage.sessions.peek("x" * 24, stage.now) is None
