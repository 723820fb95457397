from __future__ import annotations

import asyncio

from heim_proxy.sources.base import Loaded, Rejected, Source
from heim_proxy.sources.static import StaticSource
from tests.unit.config.samples import GOOD, load


async def test_it_reports_what_it_is_given_in_order() -> None:
    first, second = Loaded(load(GOOD), "1"), Rejected(())
    source = StaticSource(first)
    checked: Source = source
    updates = checked.updates()
    async with asyncio.timeout(1):
        assert await anext(updates) is first
        source.push(second)
        assert await anext(updates) is second
        source.look()
        assert await anext(updates) is second
        source.refused()
    assert source.name == "static"
