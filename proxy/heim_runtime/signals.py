"""Unix signals as calls on the event loop, put back as they were at the end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

__all__ = ["handling"]


@contextmanager
def handling(handlers: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    """Call `handlers` from the running loop when their signal arrives, until the block ends.

    Only in the main thread (Python delivers signals nowhere else). At the end each signal gets the
    disposition back that it had before, so that a second Ctrl-C during clean-up still kills.

    Raises:
        RuntimeError: When not in the main thread.
    """
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, signal.Handlers | Callable[..., object] | int | None] = {}
    try:
        for number, handler in handlers.items():
            previous = signal.getsignal(number)
            try:
                loop.add_signal_handler(number, handler)
            except ValueError as error:
                raise RuntimeError("signals can be handled in the main thread only") from error
            before[number] = previous
        yield
    finally:
        for number, previous in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
