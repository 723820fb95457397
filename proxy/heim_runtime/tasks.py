"""Start and stop background tasks so that none is lost, nameless or silently dead.

The event loop keeps only weak references to tasks: one that nobody holds may be collected in the
middle of an await, and its exception is reported, if ever, when the garbage collector runs.
`spawn` holds the reference, and reports the failure when it happens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any, Final, TypeVar

__all__ = ["cancel", "running", "spawn"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_RUNNING: Final[set[asyncio.Task[Any]]] = set()


def spawn(name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run `coro` in a task called `name`, referenced until it ends; log it if it fails.

    The failure is logged as ``task.failed`` even when somebody awaits the task as well: twice told
    is better than lost. Cancellation is not a failure.
    """
    # This is the one place where the bare call is right: the reference and the callback follow.
    task = asyncio.get_running_loop().create_task(coro, name=name)
    _RUNNING.add(task)
    task.add_done_callback(_finished)
    return task


def running() -> tuple[asyncio.Task[Any], ...]:
    """Every task that `spawn` started and that has not ended, of all event loops."""
    return tuple(_RUNNING)


async def cancel(tasks: Iterable[asyncio.Task[Any]], *, timeout_s: float = 5.0) -> None:
    """Cancel `tasks` and wait until they have ended, `timeout_s` seconds at most.

    Failures of the tasks are not raised here (`spawn` has logged them). A task that outlives the
    deadline is logged as ``task.stuck`` and left alone.
    """
    waiting = {task for task in tasks if not task.done() and task is not asyncio.current_task()}
    for task in waiting:
        task.cancel()
    if not waiting:
        return
    _, stuck = await asyncio.wait(waiting, timeout=timeout_s)
    for task in stuck:
        log.warning("task.stuck", extra={"task": task.get_name(), "timeout_s": timeout_s})


def _finished(task: asyncio.Task[Any]) -> None:
    _RUNNING.discard(task)
    if task.cancelled():
        return
    error = task.exception()
    if error is not None:
        log.error("task.failed", extra={"task": task.get_name()}, exc_info=error)
