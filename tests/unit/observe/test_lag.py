from __future__ import annotations

import asyncio
import time

from heim_proxy.observe.lag import LoopLag


async def test_a_stall_of_the_loop_is_seen_once() -> None:
    lag = LoopLag()
    lag.start()
    assert lag.read() == 0
    # A stall is what is measured: only a blocking sleep makes one.
    time.sleep(0.5)
    worst = 0.0
    async with asyncio.timeout(3):
        while not worst:
            await asyncio.sleep(0.01)
            worst = lag.read()
    assert 0.2 < worst < 2.0
    assert lag.read() < 0.2
    lag.stop()
    lag.stop()


async def test_stopped_it_measures_nothing() -> None:
    lag = LoopLag()
    lag.start()
    lag.stop()
    time.sleep(0.3)
    await asyncio.sleep(0.01)
    assert lag.read() == 0
