"""Loading sessions: one read however many wait, and a failure for everybody who does."""

from __future__ import annotations

import asyncio

import pytest

from heim_proxy.identity.feed import RevocationFeed
from heim_proxy.identity.loading import SessionLoader
from heim_proxy.identity.resident import Session
from heim_proxy.store.base import SessionRow, StoreUnavailable
from tests.fakes.sessions import ManualClock
from tests.fakes.store import MemoryStore
from tests.unit.identity.test_resident import ROW


class Memory:
    """Notes what was taken in."""

    def __init__(self) -> None:
        self.taken: list[Session] = []

    def take(self, row: SessionRow) -> Session:
        self.taken.append(Session(row, lifetime=1000.0))
        return self.taken[-1]


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    await made.open()
    await made.create_session(ROW)
    return made


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def loader(store: MemoryStore, memory: Memory) -> SessionLoader:
    return SessionLoader(store, RevocationFeed(store, ManualClock()), memory.take)


async def test_a_row_is_read_once_for_all_who_wait(
    store: MemoryStore, loader: SessionLoader, memory: Memory
) -> None:
    found = await asyncio.gather(*(loader.load("s0") for _ in range(20)))
    assert found == memory.taken * 20
    assert store.calls["get_session"] == 1


async def test_a_failure_reaches_all_who_wait_and_is_not_kept(
    store: MemoryStore, loader: SessionLoader
) -> None:
    store.down = "gone"
    found = await asyncio.gather(*(loader.load("s0") for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in found] == ["memory: gone"] * 3
    assert all(isinstance(error, StoreUnavailable) for error in found)
    store.down = None
    assert isinstance(await loader.load("s0"), Session)


async def test_a_read_that_nobody_waits_for_any_more_is_finished(
    store: MemoryStore, loader: SessionLoader, memory: Memory
) -> None:
    store.delay_s = 0.01
    waiting = asyncio.ensure_future(loader.load("s0"))
    await asyncio.sleep(0)
    waiting.cancel()
    while not memory.taken:
        await asyncio.sleep(0.005)
    assert waiting.cancelled()


async def test_who_ended_or_never_was_is_nobody(
    store: MemoryStore, loader: SessionLoader, memory: Memory
) -> None:
    await store.end_session("s0", reason="logout", now=1.0)
    assert await loader.load("s0") is None
    assert await loader.load("unknown") is None
    assert memory.taken == []


async def test_an_end_during_the_read_counts(
    store: MemoryStore, loader: SessionLoader, memory: Memory
) -> None:
    store.delay_s = 0.01
    waiting = asyncio.ensure_future(loader.load("s0"))
    await asyncio.sleep(0)
    loader.ended("s0")
    assert await waiting is None
    assert memory.taken == []


async def test_an_end_without_a_read_is_nothing_to_remember(loader: SessionLoader) -> None:
    loader.ended("s0")
    assert isinstance(await loader.load("s0"), Session)
