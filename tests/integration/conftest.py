"""An upstream for the length of a test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.upstream import Upstream


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Answers 200 "ok" until a test gives it a script."""
    started = await Upstream().start()
    yield started
    await started.stop()
