"""Sessions: every way in which one ends, with and without a store (G12, G14, K2)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from heim_proxy.identity.feed import GRACE_S
from heim_proxy.identity.seal import Sealer
from heim_proxy.identity.session import Miss, Session, Sessions
from heim_proxy.live import EndReason, LiveRegistry
from heim_proxy.store.base import StoreUnavailable
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.sessions import BOB, NOW, Exchange, ManualClock, Stage, ring

APP1 = "app1.example.test"
APP2 = "app2.example.test"


@pytest.fixture
async def stage() -> Stage:
    return await Stage.up()


@pytest.fixture
async def alice(stage: Stage) -> Session:
    return await stage.sign_in()


async def test_logout_ends_cookies_and_exchanges_at_once(stage: Stage, alice: Session) -> None:
    """K2."""
    one, two = stage.cookie(alice, APP1), stage.cookie(alice, APP2)
    stage.sessions.find(APP1, one, NOW)
    exchange = stage.open_exchange(alice)
    assert await stage.sessions.end(alice.sid, EndReason.LOGOUT, NOW + 1)
    assert exchange.ended is EndReason.LOGOUT
    assert stage.sessions.find(APP1, one, NOW + 1) is Miss.INVALID
    assert await stage.sessions.load(APP2, two, NOW + 1) is None
    assert stage.store.sessions[alice.sid].end_reason == "logout"
    assert not await stage.sessions.end(alice.sid, EndReason.LOGOUT, NOW + 2)
    assert not await stage.sessions.end("unknown", EndReason.LOGOUT, NOW + 2)


async def test_a_session_that_is_not_in_memory_can_be_ended(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    after = await stage.restarted()
    assert await after.sessions.end(alice.sid, EndReason.REVOKED, NOW)
    assert await after.sessions.load(APP1, cookie, NOW) is None


async def test_a_revocation_by_another_process_ends_exchanges_with_the_next_tick(
    stage: Stage, alice: Session
) -> None:
    """G14."""
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW)
    bob = await stage.sign_in(BOB)
    gone, stays = stage.open_exchange(alice), stage.open_exchange(bob)
    await stage.sessions.tick(NOW)
    await stage.store.end_session(alice.sid, reason="revoked", now=NOW)
    assert gone.ended is None
    await stage.sessions.tick(NOW + 0.5)
    assert gone.ended is EndReason.REVOKED
    assert stays.ended is None
    assert alice.ended == "revoked"
    assert stage.sessions.find(APP1, cookie, NOW + 0.5) is Miss.INVALID


async def test_the_command_line_ends_a_session_through_the_file(tmp_path: Path) -> None:
    """G14, with two connections to one real database."""
    clock, live = ManualClock(), LiveRegistry()
    ours, theirs = SqliteStore(tmp_path / "state.db"), SqliteStore(tmp_path / "state.db")
    await ours.open()
    await theirs.open()
    sessions = Sessions(ours, Sealer(ring("k1")), live, lifetime=86400.0, idle=3600.0, clock=clock)
    bob = await sessions.create(BOB, auth_time=NOW, tokens=b"", now=NOW)
    exchange = Exchange(bob)
    live.add(exchange)
    await sessions.tick(NOW)
    assert await theirs.end_session(bob.sid, reason="revoked", now=NOW)
    await sessions.tick(NOW + 0.5)
    assert exchange.ended is EndReason.REVOKED
    await ours.close()
    await theirs.close()


async def test_a_revocation_with_a_reason_we_do_not_know_is_one(
    stage: Stage, alice: Session
) -> None:
    exchange = stage.open_exchange(alice)
    await stage.store.end_session(alice.sid, reason="reason of a later version", now=NOW)
    await stage.sessions.tick(NOW)
    assert exchange.ended is EndReason.REVOKED


async def test_all_sessions_of_a_person_end_together(stage: Stage) -> None:
    """G14."""
    sessions = [await stage.sign_in() for _ in range(3)]
    exchanges = [stage.open_exchange(session) for session in sessions]
    await stage.store.end_sessions_of(now=NOW, reason="revoked", email="alice@example.test")
    await stage.sessions.tick(NOW)
    assert [exchange.ended for exchange in exchanges] == [EndReason.REVOKED] * 3


async def test_what_ended_before_the_start_is_not_read_again(stage: Stage, alice: Session) -> None:
    await stage.store.end_session(alice.sid, reason="revoked", now=NOW)
    after = await stage.restarted()
    await after.sessions.tick(NOW)
    after.store.feed.clear()
    bob = await after.sign_in(BOB)
    await after.store.end_session(bob.sid, reason="revoked", now=NOW)
    await after.sessions.tick(NOW)
    assert bob.ended == "revoked"


async def test_a_session_revoked_while_it_is_loaded_is_not_let_in(
    stage: Stage, alice: Session
) -> None:
    cookie = stage.cookie(alice)
    after = await stage.restarted()
    await after.sessions.tick(NOW)
    live_row = stage.store.sessions[alice.sid]
    await stage.store.end_session(alice.sid, reason="revoked", now=NOW)

    # The row was read just before it was ended, and arrives after the feed told of the end.
    after.store.delay_s = 0.05
    loading = asyncio.ensure_future(after.sessions.load(APP1, cookie, NOW))
    await asyncio.sleep(0.01)
    after.store.delay_s = 0.0
    await after.sessions.tick(NOW)
    stage.store.sessions[alice.sid] = live_row
    assert await loading is None
    assert after.sessions.find(APP1, cookie, NOW) is Miss.INVALID


async def test_a_session_is_over_while_its_end_is_being_written(
    stage: Stage, alice: Session
) -> None:
    cookie = stage.cookie(alice)
    stage.store.delay_s = 0.05
    ending = asyncio.ensure_future(stage.sessions.end(alice.sid, EndReason.LOGOUT, NOW))
    await asyncio.sleep(0)
    assert stage.store.sessions[alice.sid].ended is None
    assert stage.sessions.find(APP1, cookie, NOW) is Miss.INVALID
    assert await stage.sessions.get(alice.sid, NOW) is None
    assert await ending


async def test_exchanges_end_when_their_session_was_idle_too_long(
    stage: Stage, alice: Session
) -> None:
    exchange = stage.open_exchange(alice)
    await stage.sessions.tick(NOW + 3599)
    assert exchange.ended is None
    await stage.sessions.tick(NOW + 3600)
    assert exchange.ended is EndReason.IDLE


async def test_exchanges_end_when_their_session_expires_however_busy(
    stage: Stage, alice: Session
) -> None:
    exchange = stage.open_exchange(alice)
    alice.last_seen = NOW + 86399
    await stage.sessions.tick(NOW + 86399)
    assert exchange.ended is None
    await stage.sessions.tick(NOW + 86400)
    assert exchange.ended is EndReason.EXPIRED


async def test_an_idle_session_is_ended_in_the_store_too(stage: Stage, alice: Session) -> None:
    await stage.sessions.tick(NOW + 3600)
    await stage.sessions.tick(NOW + 3600.5)
    assert stage.store.sessions[alice.sid].end_reason == "idle"


async def test_who_is_known_goes_on_while_the_store_is_down(stage: Stage, alice: Session) -> None:
    """G12."""
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW)
    stage.store.down = "disk gone"
    await stage.sessions.tick(NOW + 1)
    assert stage.sessions.store_problem == "memory: disk gone"
    assert stage.sessions.find(APP1, cookie, NOW + 2) is alice
    stage.store.down = None
    await stage.sessions.tick(NOW + 3)
    assert stage.sessions.store_problem is None


async def test_a_store_that_can_only_be_read_is_said_and_stops_nobody(
    stage: Stage, alice: Session
) -> None:
    assert stage.sessions.store_check() == (True, "")
    stage.store.full = True
    await stage.sessions.tick(NOW + 1)
    assert stage.sessions.store_check() == (
        True, "nobody can sign in: cannot be written: memory: database or disk is full",
    )  # fmt: skip
    stage.store.down = "disk gone"
    await stage.sessions.tick(NOW + 2)
    assert stage.sessions.store_check() == (False, "memory: disk gone")


async def test_who_is_not_known_is_not_let_in_while_the_store_is_down(
    stage: Stage, alice: Session
) -> None:
    """G12: 503, not anonymous, and never let in."""
    cookie = stage.cookie(alice)
    after = await stage.restarted()
    after.store.down = "disk gone"
    assert after.sessions.find(APP1, cookie, NOW) is Miss.LOAD
    with pytest.raises(StoreUnavailable):
        await after.sessions.load(APP1, cookie, NOW)
    with pytest.raises(StoreUnavailable):
        await after.sessions.get(alice.sid, NOW)
    after.store.down = None
    assert isinstance(await after.sessions.load(APP1, cookie, NOW), Session)


async def test_garbage_is_anonymous_while_the_store_is_down(stage: Stage) -> None:
    stage.store.down = "disk gone"
    assert await stage.sessions.load(APP1, b"garbage", NOW) is None


async def test_no_session_begins_that_cannot_be_stored(stage: Stage) -> None:
    stage.store.full = True
    with pytest.raises(StoreUnavailable, match="full"):
        await stage.sign_in()
    assert len(stage.sessions) == 0


async def test_a_full_disk_keeps_sessions_and_reads_going(stage: Stage, alice: Session) -> None:
    cookie = stage.cookie(alice)
    stage.store.full = True
    stage.clock.time += 61
    stage.sessions.find(APP1, cookie, stage.now)
    await stage.sessions.tick(stage.now)
    after = await stage.restarted()
    assert isinstance(await after.sessions.load(APP1, cookie, stage.now), Session)
    stage.store.full = False
    await stage.sessions.tick(stage.now + 1)
    assert stage.store.sessions[alice.sid].last_seen == NOW + 61, "nothing lost, only later"


async def test_without_the_feed_memory_is_trusted_for_the_grace_only(
    stage: Stage, alice: Session
) -> None:
    """G12."""
    stage.sessions.set_limits(86400.0, 86400.0)
    cookie = stage.cookie(alice)
    stage.sessions.find(APP1, cookie, NOW)
    exchange = stage.open_exchange(alice)
    await stage.sessions.tick(NOW)
    stage.store.down = "disk gone"

    stage.clock.time = NOW + GRACE_S
    await stage.sessions.tick(stage.now)
    assert stage.sessions.find(APP1, cookie, stage.now) is alice
    assert exchange.ended is None

    stage.clock.time = NOW + GRACE_S + 1
    await stage.sessions.tick(stage.now)
    assert exchange.ended is EndReason.EXPIRED
    assert stage.sessions.find(APP1, cookie, stage.now) is Miss.LOAD
    with pytest.raises(StoreUnavailable):
        await stage.sessions.load(APP1, cookie, stage.now)

    stage.store.down = None
    again = await stage.sessions.load(APP1, cookie, stage.now)
    assert isinstance(again, Session)
    assert again is not alice
    await stage.sessions.tick(stage.now)
    assert stage.sessions.find(APP1, cookie, stage.now) is again


async def test_a_revocation_during_an_outage_holds_after_it(stage: Stage, alice: Session) -> None:
    exchange = stage.open_exchange(alice)
    await stage.sessions.tick(NOW)
    stage.store.down = "disk gone"
    await stage.sessions.tick(NOW + 1)
    stage.store._end(alice.sid, "revoked", NOW + 2)
    await stage.sessions.tick(NOW + 3)
    assert exchange.ended is None
    stage.store.down = None
    await stage.sessions.tick(NOW + 4)
    assert exchange.ended is EndReason.REVOKED


async def test_a_logout_during_an_outage_holds_here_and_is_recorded_after(
    stage: Stage, alice: Session
) -> None:
    cookie = stage.cookie(alice)
    exchange = stage.open_exchange(alice)
    stage.store.down = "disk gone"
    with pytest.raises(StoreUnavailable):
        await stage.sessions.end(alice.sid, EndReason.LOGOUT, NOW)
    assert exchange.ended is EndReason.LOGOUT
    assert stage.sessions.find(APP1, cookie, NOW) is Miss.INVALID
    assert await stage.sessions.get(alice.sid, NOW) is None
    stage.store.down = None
    assert await stage.sessions.load(APP1, cookie, NOW) is None, "before the store knows"
    await stage.sessions.tick(NOW + 1)
    row = stage.store.sessions[alice.sid]
    assert (row.ended, row.end_reason) == (NOW, "logout")


async def test_the_end_of_a_session_is_an_audit_event(
    stage: Stage, alice: Session, caplog: pytest.LogCaptureFixture
) -> None:
    stage.open_exchange(alice)
    caplog.set_level(logging.INFO, logger="heim.audit")
    await stage.sessions.end(alice.sid, EndReason.LOGOUT, stage.now)
    (event,) = [record for record in caplog.records if record.message == "session.ended"]
    facts = [vars(event)[name] for name in ("sid", "user", "reason", "exchanges")]
    assert facts == [alice.sid, "alice@example.test", "logout", 1]
