from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from heim_controller.kube.errors import Busy, Conflict, Invalid, KubeError, Unreachable
from heim_controller.kube.queue import WORKERS, WriteQueue
from tests.fakes.waiting import until


class Written:
    """What a queue wrote, with failures to come."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.errors: dict[str, list[KubeError]] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.active: Counter[str] = Counter()
        self.most = 0

    async def write(self, key: str) -> None:
        self.calls.append(key)
        self.active[key] += 1
        assert self.active[key] == 1, "never twice at a time for one"
        self.most = max(self.most, sum(self.active.values()))
        try:
            await self.gate.wait()
            if self.errors.get(key):
                raise self.errors[key].pop(0)
        finally:
            self.active[key] -= 1


@asynccontextmanager
async def running(written: Written) -> AsyncIterator[WriteQueue[str]]:
    queue = WriteQueue(written.write, first_s=0.01, ceiling_s=0.05, name="status")
    task = asyncio.ensure_future(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_changes_are_one_write() -> None:
    written = Written()
    async with running(written) as queue:
        for _ in range(10):
            queue.put("a")
        await until(lambda: not len(queue))
        assert written.calls == ["a"]


async def test_a_change_during_a_write_is_written_after_it() -> None:
    written = Written()
    written.gate.clear()
    async with running(written) as queue:
        queue.put("a")
        await until(lambda: written.calls)
        queue.put("a")
        queue.put("a")
        written.gate.set()
        await until(lambda: not len(queue))
        assert written.calls == ["a", "a"]


async def test_so_many_at_a_time_and_no_more() -> None:
    written = Written()
    written.gate.clear()
    async with running(written) as queue:
        for number in range(20):
            queue.put(str(number))
        await until(lambda: len(written.calls) == WORKERS)
        assert len(queue) == 20
        written.gate.set()
        await until(lambda: not len(queue))
        assert written.most == WORKERS
        assert sorted(written.calls, key=int) == [str(number) for number in range(20)]


@pytest.mark.parametrize(
    "error", [Unreachable("x"), Conflict(409, "x"), Busy(503, "x")], ids=lambda e: type(e).__name__
)
async def test_a_failure_is_tried_again(error: KubeError) -> None:
    written = Written()
    written.errors["a"] = [error, error, error]
    async with running(written) as queue:
        queue.put("a")
        queue.put("b")
        await until(lambda: queue.written == 2)
        assert Counter(written.calls) == {"a": 4, "b": 1}
        assert queue.failed == 3


async def test_what_is_invalid_waits_for_a_change() -> None:
    written = Written()
    written.errors["a"] = [Invalid(422, "x")]
    async with running(written) as queue:
        queue.put("a")
        await until(lambda: queue.refused == 1)
        await until(lambda: not len(queue))
        queue.put("a")
        await until(lambda: queue.written == 1)
        assert written.calls == ["a", "a"]


async def test_a_change_does_not_cut_a_wait_short() -> None:
    written = Written()
    written.errors["a"] = [Busy(429, "x", retry_after_s=0.3)]
    async with running(written) as queue:
        queue.put("a")
        await until(lambda: queue.failed == 1)
        began = asyncio.get_running_loop().time()
        queue.put("a")
        await until(lambda: queue.written == 1)
        assert asyncio.get_running_loop().time() - began > 0.25
        assert written.calls == ["a", "a"]


async def test_a_mistake_of_ours_ends_the_queue() -> None:
    async def write(key: str) -> None:
        raise KeyError(key)

    queue = WriteQueue(write)
    queue.put("a")
    with pytest.raises(ExceptionGroup) as told:
        await queue.run()
    assert isinstance(told.value.exceptions[0], KeyError)


async def test_what_is_due_stays_due_when_the_queue_ends() -> None:
    written = Written()
    written.errors["a"] = [Busy(429, "x", retry_after_s=60.0)]
    queue = WriteQueue(written.write)
    queue.put("a")
    task = asyncio.ensure_future(queue.run())
    await until(lambda: queue.failed == 1)
    written.gate.clear()
    queue.put("b")
    await until(lambda: "b" in written.calls)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(queue) == 2
    written.gate.set()
    again = asyncio.ensure_future(queue.run())
    await until(lambda: not len(queue))
    assert queue.written == 2
    again.cancel()
    await asyncio.gather(again, return_exceptions=True)


def test_a_queue_tells_how_it_is() -> None:
    queue = WriteQueue(Written().write, name="status")
    queue.put("a")
    assert repr(queue) == "<WriteQueue status waiting=1 written=0>"
