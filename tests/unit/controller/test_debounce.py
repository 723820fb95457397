"""Many changes to one piece of work."""

from __future__ import annotations

import asyncio
import time

from heim_controller.debounce import Debounce


async def test_one_change_is_waited_for_until_it_is_quiet() -> None:
    debounce = Debounce(quiet_s=0.05, longest_s=1)
    began = time.monotonic()
    debounce.touch()
    await debounce.wait()
    assert 0.045 <= time.monotonic() - began < 0.9
    assert not debounce.touched


async def test_changes_that_never_pause_are_not_waited_for_longer_than_said() -> None:
    debounce = Debounce(quiet_s=0.1, longest_s=0.2)
    ended = asyncio.Event()

    async def busy() -> None:
        while not ended.is_set():
            debounce.touch()
            await asyncio.sleep(0.01)

    touching = asyncio.ensure_future(busy())
    began = time.monotonic()
    async with asyncio.timeout(2):
        await debounce.wait()
    assert 0.19 <= time.monotonic() - began < 1.5
    ended.set()
    await touching


async def test_nothing_happens_without_a_change() -> None:
    debounce = Debounce(quiet_s=0, longest_s=0)
    waiting = asyncio.ensure_future(debounce.wait())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    debounce.touch()
    await waiting


async def test_a_change_during_the_work_is_work_again() -> None:
    debounce = Debounce(quiet_s=0, longest_s=0)
    debounce.touch()
    await debounce.wait()
    debounce.touch()
    assert debounce.touched
    await debounce.wait()
