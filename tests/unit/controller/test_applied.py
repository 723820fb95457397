"""What the proxy has in force."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from heim_controller.applied import MAX_ANSWER, Applied, Times
from tests.fakes.kube_cluster import FakeProxy
from tests.fakes.waiting import until


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    async with FakeProxy() as found:
        yield found


@asynccontextmanager
async def running(
    url: str, changes: list[str], clock: Clock | None = None
) -> AsyncIterator[Applied]:
    applied = Applied(url, changed=lambda: changes.append(applied.digest), clock=clock or Clock())
    task = asyncio.ensure_future(applied.run())
    try:
        yield applied
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_is_in_force_is_learned_and_told_once(proxy: FakeProxy) -> None:
    changes: list[str] = []
    proxy.digest = "a"
    async with running(proxy.url, changes) as applied:
        await until(lambda: applied.digest == "a")
        assert not applied.current
        applied.expect("a")
        await until(lambda: proxy.asked > 1)
        assert applied.current
        assert applied.trouble == ""
    assert changes == ["a"]


async def test_what_was_published_is_asked_for_until_it_is_there(proxy: FakeProxy) -> None:
    changes: list[str] = []
    async with running(proxy.url, changes) as applied:
        applied.expect("b")
        await until(lambda: proxy.asked > 1)
        proxy.digest = "b"
        await until(lambda: applied.current)
    assert changes[-1] == "b"


async def test_a_proxy_that_does_not_apply_is_trouble_after_a_while(proxy: FakeProxy) -> None:
    clock = Clock()
    proxy.digest = "a" * 64
    async with running(proxy.url, [], clock) as applied:
        applied.expect("b" * 64)
        await until(lambda: bool(applied.digest))
        assert applied.trouble == ""
        clock.time += Times.grace
        assert applied.trouble.startswith(f"the proxy has the configuration {'a' * 16} in force")
        applied.expect("c")
        assert applied.trouble == ""


async def test_what_the_proxy_refused_is_passed_on(proxy: FakeProxy) -> None:
    clock = Clock()
    told = {"document_hash": None, "last_error": {"problems": ["heim.yaml: no", "x"]}}
    proxy.body = json.dumps(told).encode()
    async with running(proxy.url, [], clock) as applied:
        applied.expect("b")
        await until(lambda: proxy.asked > 1)
        clock.time += Times.grace
        assert applied.trouble.endswith("it refused one: heim.yaml: no")


async def test_trouble_is_told_although_the_proxy_says_the_same(proxy: FakeProxy) -> None:
    changes: list[str] = []
    clock = Clock()
    async with running(proxy.url, changes, clock) as applied:
        applied.expect("b")
        await until(lambda: len(changes) == 1)
        clock.time += Times.grace
        await until(lambda: len(changes) == 2)


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        pytest.param(503, None, "status 503", id="an error"),
        pytest.param(302, None, "status 302", id="elsewhere"),
        pytest.param(200, b"{", "Expecting", id="no JSON"),
        pytest.param(200, b" " * (MAX_ANSWER + 1), "more than a page", id="without an end"),
    ],
)
async def test_an_answer_that_is_none_is_a_problem(
    proxy: FakeProxy, status: int, body: bytes | None, problem: str
) -> None:
    clock = Clock()
    proxy.status, proxy.body = status, body
    async with running(proxy.url, [], clock) as applied:
        await until(lambda: problem in applied.problem)
        applied.expect("b")
        clock.time += Times.grace
        assert "does not answer" in applied.trouble


async def test_a_list_is_no_status(proxy: FakeProxy) -> None:
    proxy.body = b"[]"
    async with running(proxy.url, []) as applied:
        await until(lambda: proxy.asked > 0)
        assert (applied.digest, applied.problem) == ("", "")


async def test_nobody_there_is_a_problem() -> None:
    async with running("http://127.0.0.1:1/status", []) as applied:
        await until(lambda: bool(applied.problem))
        assert "127.0.0.1" in applied.problem


async def test_without_an_address_nobody_is_asked_and_nothing_is_trouble() -> None:
    clock = Clock()
    applied = Applied("", changed=lambda: None, clock=clock)
    await applied.run()
    applied.expect("b")
    clock.time += Times.grace
    assert applied.trouble == ""
