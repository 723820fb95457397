"""Waiting in tests for what something else brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["until"]


async def until(condition: Callable[[], object], within_s: float = 8.0) -> None:
    """Wait until `condition()` is true; fails with a TimeoutError when it does not come true."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)
