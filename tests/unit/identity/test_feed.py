"""The feed of ended sessions: read from the right place on, and known to be lost when it is."""

from __future__ import annotations

import asyncio
import logging

import pytest

from heim_proxy.identity.feed import GRACE_S, RevocationFeed, in_time
from heim_proxy.store.base import Revocation, StoreUnavailable
from tests.fakes.sessions import NOW, ManualClock
from tests.fakes.store import MemoryStore


@pytest.fixture
async def store() -> MemoryStore:
    made = MemoryStore()
    await made.open()
    return made


def end(store: MemoryStore, sid: str) -> None:
    store._seq += 1
    store.feed.append(Revocation(store._seq, sid, "revoked", NOW))


async def read(feed: RevocationFeed) -> list[str]:
    return [entry.sid for entry in await feed.read()]


async def test_news_is_what_ended_after_the_start(store: MemoryStore) -> None:
    end(store, "before")
    feed = RevocationFeed(store, ManualClock())
    await feed.start()
    end(store, "first")
    end(store, "second")
    assert await read(feed) == ["first", "second"]
    assert await read(feed) == []
    end(store, "third")
    assert await read(feed) == ["third"]


async def test_starting_again_skips_nothing(store: MemoryStore) -> None:
    feed = RevocationFeed(store, ManualClock())
    await feed.start()
    end(store, "news")
    await feed.start()
    assert await read(feed) == ["news"]


async def test_two_who_start_at_once_skip_nothing(store: MemoryStore) -> None:
    feed = RevocationFeed(store, ManualClock())
    store.delay_s = 0.02
    late = asyncio.ensure_future(feed.start())
    await asyncio.sleep(0)
    store.delay_s = 0.0
    await feed.start()
    end(store, "news")
    await late
    assert await read(feed) == ["news"]


async def test_an_outage_is_told_once_and_so_is_its_end(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    feed = RevocationFeed(store, ManualClock())
    await feed.start()
    store.down = "gone"
    for _ in range(5):
        assert await read(feed) == []
    assert feed.problem == "memory: gone"
    end(store, "meanwhile")
    store.down = None
    assert await read(feed) == ["meanwhile"]
    assert feed.problem is None
    assert [record.message for record in caplog.records] == ["store.unavailable", "store.available"]


async def test_the_feed_is_lost_after_the_grace_and_found_with_the_next_read(
    store: MemoryStore,
) -> None:
    clock = ManualClock()
    feed = RevocationFeed(store, clock)
    await read(feed)
    store.down = "gone"
    clock.time += GRACE_S
    await read(feed)
    assert not feed.lost
    clock.time += 1
    assert feed.lost
    store.down = None
    await read(feed)
    assert not feed.lost


async def test_a_store_that_is_down_at_the_start_says_so(store: MemoryStore) -> None:
    store.down = "gone"
    feed = RevocationFeed(store, ManualClock())
    with pytest.raises(StoreUnavailable):
        await feed.start()
    assert await read(feed) == []
    assert feed.problem is not None


async def test_a_store_that_does_not_answer_is_unavailable(store: MemoryStore) -> None:
    store.delay_s = 10.0
    with pytest.raises(StoreUnavailable, match=r"no answer in 0\.02 s"):
        await in_time(store.last_revocation(), deadline_s=0.02)
