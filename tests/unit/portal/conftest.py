"""A portal for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.portal import PortalStand, portal_stand


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[PortalStand]:
    async with portal_stand(tmp_path) as made:
        yield made
