from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from heim_controller.kube import exchange as module
from heim_controller.kube.errors import Busy, Garbled, Invalid, Unauthorized, Unreachable
from heim_controller.kube.exchange import Deadlines, Exchange, Request
from heim_controller.kube.resources import CONFIG_MAPS
from tests.fakes.kube import FakeKube, Known
from tests.fakes.kube_raw import SHORT, serving

GET = Request("GET", CONFIG_MAPS.path())


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"", b"[1]", b"null", b'{"a":'],
    ids=["page", "nothing", "list", "null", "cut"],
)
async def test_an_answer_that_is_no_object_is_garbled(body: bytes) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(handle) as client:
        with pytest.raises(Garbled):
            await client.exchange.ask(GET)


async def test_an_answer_that_never_comes_has_a_deadline() -> None:
    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with serving(handle) as client:
        async with asyncio.timeout(2):
            with pytest.raises(Unreachable):
                await client.exchange.ask(GET)
            with pytest.raises(Unreachable):
                await client.exchange.follow(GET)
        assert client.exchange.failures == 2


async def test_an_answer_that_drips_has_a_deadline() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)

    async with serving(handle) as client, asyncio.timeout(2):
        with pytest.raises(Unreachable):
            await client.exchange.ask(GET)


async def test_an_answer_has_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER", 1000)

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b'"' + b"x" * 2000 + b'"')

    async with serving(handle) as client:
        with pytest.raises(Garbled, match="longer than 1000"):
            await client.exchange.ask(GET)


async def test_a_complaint_is_read_in_part() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=503, body=b"x" * 10_000_000)

    async with serving(handle) as client:
        with pytest.raises(Busy, match="503"):
            await client.exchange.ask(GET)


async def test_a_redirect_is_not_followed() -> None:
    seen = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        raise web.HTTPFound("/elsewhere")

    async with serving(handle) as client:
        with pytest.raises(Invalid):
            await client.exchange.ask(GET)
    assert seen == [GET.path]


async def test_a_connection_that_is_cut_is_unreachable() -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(handle) as client:
        with pytest.raises(Unreachable):
            await client.exchange.ask(Request("POST", GET.path, body={}))


async def test_nobody_there_is_unreachable() -> None:
    exchange = Exchange(Known("http://127.0.0.1:1", "t"), SHORT)
    try:
        with pytest.raises(Unreachable, match="GET /api/v1/configmaps"):
            await exchange.ask(GET)
    finally:
        await exchange.close()


async def test_a_refused_token_is_read_again_and_tried_once() -> None:
    async with FakeKube() as kube:
        known = Known(kube.url, "old")
        exchange = Exchange(known, Deadlines())
        try:
            await exchange.connected()
            known.token = "secret-token"
            await exchange.ask(GET)
            assert (exchange.reloads, exchange.requests) == (1, 2)
        finally:
            await exchange.close()


async def test_many_refusals_read_the_token_once() -> None:
    async with FakeKube() as kube:
        known = Known(kube.url, "old")
        exchange = Exchange(known, Deadlines())
        try:
            await exchange.connected()
            known.token = "secret-token"
            await asyncio.gather(*(exchange.ask(GET) for _ in range(20)))
            assert exchange.reloads == 1
        finally:
            await exchange.close()


async def test_a_token_that_stays_refused_is_not_read_for_every_request() -> None:
    async with FakeKube() as kube:
        known = Known(kube.url, "old")
        exchange = Exchange(known, Deadlines())
        try:
            for _ in range(10):
                with pytest.raises(Unauthorized):
                    await exchange.ask(GET)
            assert exchange.reloads == 1
            assert exchange.requests == 11
        finally:
            await exchange.close()


async def test_a_closed_exchange_ends_what_is_read() -> None:
    async with FakeKube() as kube:
        kube.faults.slow_s = 60
        exchange = Exchange(Known(kube.url, "secret-token"), Deadlines())
        task = asyncio.ensure_future(exchange.ask(GET))
        async with asyncio.timeout(3):
            while not kube.asked:
                await asyncio.sleep(0.002)
            await exchange.close()
            with pytest.raises(Unreachable):
                await task


def test_a_request_is_escaped() -> None:
    request = Request("GET", "/api", (("labelSelector", "a=b,c in (d&e)"),))
    assert request.url == "/api?labelSelector=a%3Db%2Cc+in+%28d%26e%29"
    assert str(request) == "GET /api"
