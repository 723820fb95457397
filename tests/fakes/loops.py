"""Run a scenario on each event loop that Heim supports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import uvloop

__all__ = ["LOOPS", "run_on"]

T = TypeVar("T")

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

# A scenario that hangs fails where it hangs, with a traceback.
DEADLINE_S: Final = 10.0


def run_on(name: str, scenario: Coroutine[Any, Any, T]) -> T:
    """Run `scenario` to its end on a fresh loop of the kind called `name`."""

    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE_S):
            return await scenario

    with asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        return runner.run(bounded())
