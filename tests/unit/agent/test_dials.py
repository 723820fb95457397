from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from heim_agent.dials import MAX_DIALS, MAX_PER_TARGET, MAX_UNANSWERED, Dials
from tests.fakes.loops import run_on


class Dialling:
    """Dials that hold their places until they are let go."""

    def __init__(self, dials: Dials) -> None:
        self.dials = dials
        self.held: list[str] = []
        self.go = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self, target: str, count: int) -> None:
        for _ in range(count):
            self.tasks.append(asyncio.ensure_future(self._dial(target)))

    async def _dial(self, target: str) -> None:
        await self.dials.take(target, asyncio.get_running_loop().time() + 60)
        try:
            self.held.append(target)
            await self.go.wait()
        finally:
            self.dials.give_back(target)

    async def settle(self) -> dict[str, int]:
        for _ in range(5):
            await asyncio.sleep(0)
        return {target: self.held.count(target) for target in set(self.held)}


def test_one_target_has_half_of_the_places() -> None:
    async def scenario() -> None:
        dialling = Dialling(Dials())
        dialling.begin("dead", 100)
        dialling.begin("ssh", 10)
        assert await dialling.settle() == {"dead": MAX_PER_TARGET, "ssh": 10}
        dialling.go.set()
        await asyncio.gather(*dialling.tasks)
        assert len(dialling.held) == 110

    run_on("asyncio", scenario())


def test_all_together_have_64() -> None:
    async def scenario() -> None:
        dialling = Dialling(Dials())
        for number in range(10):
            dialling.begin(f"t{number}", 20)
        assert sum((await dialling.settle()).values()) == MAX_DIALS
        dialling.go.set()
        await asyncio.gather(*dialling.tasks)

    run_on("asyncio", scenario())


@pytest.mark.parametrize("how", ["done", "cancelled"])
def test_places_are_given_back_and_targets_forgotten(how: str) -> None:
    async def scenario() -> None:
        dials = Dials()
        dialling = Dialling(dials)
        dialling.begin("a", 40)
        await dialling.settle()
        end: Callable[[asyncio.Task[None]], object] = lambda task: task.cancel()  # noqa: E731
        if how == "done":
            dialling.go.set()
        else:
            for task in dialling.tasks:
                end(task)
        await asyncio.gather(*dialling.tasks, return_exceptions=True)
        assert dials._targets == dials._users == {}
        again = Dialling(dials)
        again.begin("b", MAX_PER_TARGET)
        again.begin("c", MAX_PER_TARGET)
        assert sum((await again.settle()).values()) == MAX_DIALS
        again.go.set()
        await asyncio.gather(*again.tasks)

    run_on("asyncio", scenario())


def test_nobody_waits_for_longer_than_is_said() -> None:
    async def scenario() -> None:
        dials = Dials()
        soon = asyncio.get_running_loop().time() + 0.02
        for _ in range(MAX_PER_TARGET):
            await dials.take("dead", soon)
        with pytest.raises(TimeoutError):
            await dials.take("dead", soon)
        for _ in range(MAX_PER_TARGET):
            dials.give_back("dead")
        assert dials._targets == dials._users == {}

    run_on("asyncio", scenario())


def test_it_is_full_when_four_lanes_wait() -> None:
    async def scenario() -> None:
        dials = Dials()
        dials.unanswered = MAX_UNANSWERED - 1
        assert not dials.full
        dials.unanswered += 1
        assert dials.full

    run_on("asyncio", scenario())
