"""Fixtures of the hostile suite: one world per module, examined after each test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.loops import LOOPS
from tests.hostile.world import World


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of production; HEIM_TEST_LOOP=asyncio runs the same attacks on the other one."""
    name = os.environ.get("HEIM_TEST_LOOP", "uvloop")
    return {name: LOOPS[name]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory: Path = tmp_path_factory.mktemp("heim")
    world = await World.start(directory)
    yield world
    await world.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def world(shared_world: World) -> AsyncIterator[World]:
    """The module's world, clean; afterwards it must still serve."""
    await shared_world.fresh()
    yield shared_world
    await shared_world.alive()
    shared_world.reset()
