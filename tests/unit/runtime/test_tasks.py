from __future__ import annotations

import asyncio
import gc
import logging

import pytest

from heim_runtime import tasks


async def test_a_spawned_task_is_named_and_gives_its_result() -> None:
    async def work() -> int:
        return 7

    task = tasks.spawn("the-answer", work())
    assert task.get_name() == "the-answer"
    assert await task == 7


async def test_a_task_that_nobody_holds_survives_garbage_collection() -> None:
    started, gate, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        started.set()
        await gate.wait()
        ended.set()

    tasks.spawn("unheld", work())
    await started.wait()
    gc.collect()
    gate.set()
    async with asyncio.timeout(1):
        await ended.wait()


async def test_running_lists_a_task_until_it_has_ended() -> None:
    gate = asyncio.Event()
    task = tasks.spawn("listed", _wait(gate))
    assert task in tasks.running()
    gate.set()
    await task
    await asyncio.sleep(0)
    assert task not in tasks.running()


async def test_a_failure_is_logged_with_the_name_of_the_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ValueError("broken")

    task = tasks.spawn("fragile", work())
    await asyncio.wait([task])
    await asyncio.sleep(0)
    [record] = [r for r in caplog.records if r.getMessage() == "task.failed"]
    assert record.levelno == logging.ERROR
    assert vars(record)["task"] == "fragile"
    assert record.exc_info is not None
    assert "broken" in str(record.exc_info[1])


async def test_cancellation_is_not_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    task = tasks.spawn("patient", _wait(asyncio.Event()))
    await asyncio.sleep(0)
    await tasks.cancel([task])
    assert task.cancelled()
    assert caplog.records == []


async def test_cancel_reports_a_task_that_does_not_stop(caplog: pytest.LogCaptureFixture) -> None:
    gate = asyncio.Event()

    async def stubborn() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.spawn("stubborn", stubborn())
    await asyncio.sleep(0)
    await tasks.cancel([task], timeout_s=0.01)
    [record] = caplog.records
    assert record.getMessage() == "task.stuck"
    assert vars(record)["task"] == "stubborn"
    gate.set()
    await task


async def test_cancel_leaves_ended_tasks_and_the_caller_alone() -> None:
    ended = tasks.spawn("ended", asyncio.sleep(0))
    await ended
    current = asyncio.current_task()
    assert current is not None
    await tasks.cancel([ended, current])
    assert current.cancelling() == 0


async def _wait(gate: asyncio.Event) -> None:
    await gate.wait()
