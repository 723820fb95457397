from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from heim_wire.aio.alarms import GRAIN_S, Alarms, alarms
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until

pytestmark = pytest.mark.parametrize("loop", LOOPS)


class Bell:
    """Notes when it rang."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.rang: list[float] = []
        self._then = then

    def ring(self) -> None:
        self.rang.append(monotonic())
        self._then()


def test_it_rings_once_and_not_too_early(loop: str) -> None:
    async def run() -> None:
        bells = [Bell() for _ in range(20)]
        now = monotonic()
        for index, bell in enumerate(bells):
            alarms().set(now + index / 40, bell.ring)
        await until(lambda: all(bell.rang for bell in bells))
        await asyncio.sleep(GRAIN_S * 1.5)
        for index, bell in enumerate(bells):
            (at,) = bell.rang
            # The clocks of loops count in milliseconds.
            assert at >= now + index / 40 - 0.002
        assert not alarms()._due

    run_on(loop, run())


def test_an_earlier_one_is_not_held_up_by_a_later_one(loop: str) -> None:
    async def run() -> None:
        late, soon = Bell(), Bell()
        slot = alarms().set(monotonic() + 3600, late.ring)
        alarms().set(monotonic(), soon.ring)
        await until(lambda: soon.rang)
        assert not late.rang
        alarms().cancel(slot, late.ring)

    run_on(loop, run())


def test_one_that_is_cancelled_never_rings_and_leaves_no_timer(loop: str) -> None:
    async def run() -> None:
        bell, found = Bell(), alarms()
        slot = found.set(monotonic(), bell.ring)
        found.cancel(slot, bell.ring)
        found.cancel(slot, bell.ring)
        assert found._handle is None
        await asyncio.sleep(GRAIN_S * 2)
        assert not bell.rang

    run_on(loop, run())


def test_one_may_cancel_another_that_is_due_with_it(loop: str) -> None:
    async def run() -> None:
        found, when = alarms(), monotonic()
        other = Bell()
        slots: list[int] = []
        first = Bell(lambda: found.cancel(slots[1], other.ring))
        slots += [found.set(when, first.ring), found.set(when, other.ring)]
        assert slots[0] == slots[1]
        await until(lambda: first.rang)
        await asyncio.sleep(GRAIN_S)
        assert not other.rang

    run_on(loop, run())


def test_one_may_set_itself_again_beside_others(loop: str) -> None:
    """Even for a time that has passed: that is the next look, not this one."""

    async def run() -> None:
        found = alarms()
        other = Bell()
        again = Bell(lambda: None if len(again.rang) > 2 else _set(found, again))
        _set(found, again)
        found.set(monotonic() + 3 * GRAIN_S, other.ring)
        await until(lambda: len(again.rang) == 3)
        await until(lambda: other.rang)
        assert again.rang[1] - again.rang[0] > GRAIN_S / 2

    run_on(loop, run())


def _set(found: Alarms, bell: Bell) -> None:
    found.set(monotonic() - 1, bell.ring)


def test_one_that_fails_is_told_of_and_the_others_ring(loop: str) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    async def run() -> None:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        when, bell = monotonic(), Bell()
        alarms().set(when, fail)
        alarms().set(when, bell.ring)
        later = Bell()
        alarms().set(when + 2 * GRAIN_S, later.ring)
        await until(lambda: later.rang)
        assert bell.rang
        assert [str(context["exception"]) for context in told] == ["a bug"]

    run_on(loop, run())


def test_a_loop_that_is_gone_is_forgotten(loop: str) -> None:
    found: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def run() -> None:
        bell = Bell()
        slot = alarms().set(monotonic() + 60, bell.ring)
        alarms().cancel(slot, bell.ring)
        found.append(weakref.ref(asyncio.get_running_loop()))

    run_on(loop, run())
    gc.collect()
    assert found[0]() is None
