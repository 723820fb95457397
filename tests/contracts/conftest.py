"""Every implementation of the store, for the suites beside this."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.store.base import Store
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.store import MemoryStore


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = SqliteStore(tmp_path / "state.db") if request.param == "sqlite" else MemoryStore()
    await made.open()
    yield made
    await made.close()
