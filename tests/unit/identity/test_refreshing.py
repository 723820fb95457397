"""One fetch for everybody, kept for a while, retried politely (S4)."""

from __future__ import annotations

import asyncio

import pytest

from heim_proxy.identity.login_errors import LoginError, ProviderDown
from heim_proxy.identity.refreshing import Refreshing
from tests.fakes.sessions import ManualClock


class Source:
    """Counts fetches, and answers with that number or with a failure."""

    def __init__(self) -> None:
        self.fetches = 0
        self.down = False
        self.gate: asyncio.Event | None = None

    async def fetch(self) -> int:
        self.fetches += 1
        number = self.fetches
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise ProviderDown("test", "down")
        return number


def refreshing(source: Source, clock: ManualClock) -> Refreshing[int]:
    return Refreshing(
        "test",
        source.fetch,
        clock=clock,
        fresh_for_s=100.0,
        stale_for_s=1000.0,
        retry_after_s=5.0,
    )


async def test_a_value_is_fetched_once_while_fresh() -> None:
    source, clock = Source(), ManualClock()
    kept = refreshing(source, clock)
    assert [await kept.get() for _ in range(5)] == [1] * 5
    clock.time += 101
    assert await kept.get() == 2


async def test_everybody_waits_for_the_same_fetch() -> None:
    source, clock = Source(), ManualClock()
    source.gate = asyncio.Event()
    kept = refreshing(source, clock)
    waiting = [asyncio.ensure_future(kept.get()) for _ in range(20)]
    await asyncio.sleep(0)
    source.gate.set()
    assert await asyncio.gather(*waiting) == [1] * 20


async def test_whoever_goes_away_does_not_stop_the_fetch_for_others() -> None:
    source, clock = Source(), ManualClock()
    source.gate = asyncio.Event()
    kept = refreshing(source, clock)
    first = asyncio.ensure_future(kept.get())
    second = asyncio.ensure_future(kept.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.gate.set()
    assert await second == 1
    assert first.cancelled()


async def test_a_failing_source_is_not_asked_again_at_once() -> None:
    source, clock = Source(), ManualClock()
    source.down = True
    kept = refreshing(source, clock)
    for _ in range(50):
        with pytest.raises(ProviderDown):
            await kept.get()
    assert source.fetches == 1
    clock.time += 5
    source.down = False
    assert await kept.get() == 2


async def test_an_old_value_serves_while_the_source_is_down_but_not_for_ever() -> None:
    source, clock = Source(), ManualClock()
    kept = refreshing(source, clock)
    await kept.get()
    source.down = True
    clock.time += 200
    assert await kept.get() == 1
    clock.time += 900
    with pytest.raises(ProviderDown):
        await kept.get()


async def test_a_newer_value_is_fetched_at_most_once_per_interval() -> None:
    source, clock = Source(), ManualClock()
    kept = refreshing(source, clock)
    assert await kept.get() == 1
    assert [await kept.newer() for _ in range(1000)] == [1] * 1000
    clock.time += 5
    assert [await kept.newer() for _ in range(1000)] == [2] * 1000
    assert source.fetches == 2


@pytest.mark.filterwarnings("default")
async def test_a_fetch_that_breaks_is_an_error_and_not_a_hang() -> None:
    clock = ManualClock()

    async def broken() -> int:
        raise RuntimeError("bug")

    kept = Refreshing("test", broken, clock=clock, fresh_for_s=1, stale_for_s=1, retry_after_s=5)
    with pytest.raises(RuntimeError):
        await kept.get()
    with pytest.raises(LoginError):
        await kept.get()
