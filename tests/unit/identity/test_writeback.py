"""Writing back: ends are owed until they are recorded, times and cleaning come when due."""

from __future__ import annotations

import asyncio

import pytest

from heim_proxy.identity.resident import ResidentSessions
from heim_proxy.identity.writeback import FLUSH_EVERY_S, KEEP_ENDED_S, PURGE_EVERY_S, WriteBack
from heim_proxy.live import EndReason
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.sessions import NOW, ManualClock
from tests.fakes.store import MemoryStore
from tests.unit.identity.test_resident import ROW, session


class Desk:
    """A write-back and what it works on."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = ManualClock()
        self.resident = ResidentSessions()
        self.owed = WriteBack(self.store, self.resident, self.clock)

    @property
    def reason(self) -> str:
        return self.store.sessions["s0"].end_reason


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.store.open()
    await made.store.create_session(ROW)
    return made


async def test_an_end_is_recorded_at_once(desk: Desk) -> None:
    assert await desk.owed.end("s0", EndReason.LOGOUT, NOW)
    assert desk.reason == "logout"
    assert not desk.owed.ends("s0")
    assert not await desk.owed.end("s0", EndReason.LOGOUT, NOW)


async def test_an_end_counts_while_it_is_being_recorded(desk: Desk) -> None:
    ending = asyncio.ensure_future(desk.owed.end("s0", EndReason.LOGOUT, NOW))
    await asyncio.sleep(0)
    assert desk.reason == ""
    assert desk.owed.ends("s0")
    await ending


async def test_an_end_that_cannot_be_recorded_is_owed(desk: Desk) -> None:
    desk.store.full = True
    with pytest.raises(StoreUnavailable):
        await desk.owed.end("s0", EndReason.LOGOUT, NOW)
    with pytest.raises(StoreUnavailable):
        await desk.owed.run(NOW + 1)
    assert desk.owed.ends("s0")
    desk.store.full = False
    await desk.owed.run(NOW + 2)
    assert not desk.owed.ends("s0")
    row = desk.store.sessions["s0"]
    assert (row.ended, row.end_reason) == (NOW, "logout")


async def test_many_ends_are_recorded_in_turns(desk: Desk) -> None:
    for number in range(250):
        desk.owed.owe(f"x{number}", EndReason.IDLE, NOW)
    for done in (100, 200, 250):
        await desk.owed.run(NOW)
        assert desk.store.calls["end_session"] == done


async def test_what_is_owed_is_bounded(desk: Desk) -> None:
    for number in range(10_001):
        desk.owed.owe(f"x{number}", EndReason.IDLE, NOW)
    assert desk.owed.ends("x9999")
    assert not desk.owed.ends("x10000")


async def test_times_are_written_when_due_and_again_when_it_failed(desk: Desk) -> None:
    one = session()
    desk.resident.add(one)
    one.last_seen = NOW
    await desk.owed.run(NOW)
    assert "touch_sessions" not in desk.store.calls
    desk.clock.time += FLUSH_EVERY_S
    desk.store.full = True
    with pytest.raises(StoreUnavailable):
        await desk.owed.run(NOW)
    desk.store.full = False
    await desk.owed.run(NOW)
    await desk.owed.run(NOW)
    assert desk.store.calls["touch_sessions"] == 2
    assert desk.store.sessions["s0"].last_seen == NOW


async def test_nothing_seen_is_nothing_written(desk: Desk) -> None:
    desk.clock.time += FLUSH_EVERY_S
    await desk.owed.run(NOW)
    assert "touch_sessions" not in desk.store.calls


async def test_the_store_is_cleaned_every_hour(desk: Desk) -> None:
    await desk.store.burn("old", expires=NOW)
    await desk.owed.run(NOW + 1)
    assert "old" in desk.store.burned
    desk.clock.time += PURGE_EVERY_S
    await desk.owed.run(NOW + 1)
    await desk.owed.run(NOW + 1)
    assert desk.store.calls["purge"] == 1
    assert "old" not in desk.store.burned
    assert "s0" not in desk.store.sessions, f"expired {KEEP_ENDED_S} s ago"
