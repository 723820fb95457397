"""Several upstreams of one path: turns, and what happens when one of them is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.heim import Heim
from tests.fakes.upstream import Upstream

HOST = "app.example.test"


@asynccontextmanager
async def spread_over(directory: Path, *upstreams: Upstream) -> AsyncIterator[Heim]:
    for upstream in upstreams:
        await upstream.start()
    http = [{"path": "/", "upstreams": [upstream.url for upstream in upstreams]}]
    heim = await Heim.start(directory, backends=[{"name": "app", "public": True, "http": http}])
    try:
        yield heim
    finally:
        await heim.stop()
        for upstream in upstreams:
            await upstream.stop()


async def test_requests_one_after_another_are_spread_evenly(tmp_path: Path) -> None:
    first, second, third = Upstream(), Upstream(), Upstream()
    async with spread_over(tmp_path, first, second, third) as heim:
        for _ in range(12):
            assert (await heim.request("/", host=HOST)).status == 200
        assert [len(one.requests) for one in (first, second, third)] == [4, 4, 4]
        # Each endpoint's connection is used again.
        assert [one.connections for one in (first, second, third)] == [1, 1, 1]


async def test_an_upstream_that_is_gone_costs_no_request(tmp_path: Path) -> None:
    gone, alive = Upstream(), Upstream()
    async with spread_over(tmp_path, gone, alive) as heim:
        for _ in range(4):
            assert (await heim.request("/", host=HOST)).status == 200
        await gone.stop()
        for _ in range(6):
            assert (await heim.request("/", host=HOST)).status == 200
        assert len(gone.requests) == 2
        assert len(alive.requests) == 8


async def test_when_all_are_gone_the_answer_says_so(tmp_path: Path) -> None:
    first, second = Upstream(), Upstream()
    async with spread_over(tmp_path, first, second) as heim:
        await first.stop()
        await second.stop()
        answer = await heim.request("/", host=HOST)
        assert answer.status == 502
        assert "backend app cannot be reached" in answer.text
