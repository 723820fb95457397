"""What relays bytes is tested on both event loops; everything else here on one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.fakes.loops import LOOPS

_ON_BOTH = (
    "test_agents_dialer",
    "test_agents_door",
    "test_agents_lane",
    "test_agents_opening",
    "test_tunnel_dialling",
    "test_tunnel_streams",
)


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loops on which a test of this folder runs."""
    return LOOPS if item.path.stem in _ON_BOTH else {"asyncio": LOOPS["asyncio"]}
