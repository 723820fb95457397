"""Fixtures of the identity side: test modules name this file in `pytest_plugins`.

A module of its own, because a plugin must not have been imported before it is registered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.hostile.signin import Stand, signin_stand


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    async with signin_stand(tmp_path_factory.mktemp("signin")) as stand:
        yield stand


@pytest_asyncio.fixture(loop_scope="module")
async def stand(shared_stand: Stand) -> AsyncIterator[Stand]:
    """The module's stand; afterwards it must still serve."""
    shared_stand.reset()
    yield shared_stand
    await shared_stand.alive()
