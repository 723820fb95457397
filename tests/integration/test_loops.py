"""The same on plain asyncio and on uvloop: what the edge does to a loop's transports."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from heim_proxy.live import EndReason
from tests.fakes.heim import LOGIN_HOST, Heim, user
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.upstream import Received, Script, Upstream, answer, read_body
from tests.integration.setup import APP, alice_only, app_backend, websocket

pytestmark = pytest.mark.parametrize("loop", list(LOOPS))

MIB = 1024 * 1024


@asynccontextmanager
async def site(directory: Path, url: str) -> AsyncIterator[tuple[Heim, str]]:
    heim = await Heim.start(directory, backends=[app_backend(url)], roles=alice_only())
    try:
        yield heim, await heim.signed_in(user("alice"), APP)
    finally:
        await heim.stop()
        # What a loop still has to close, it closes before the test ends.
        await asyncio.sleep(0)
        gc.collect()


@asynccontextmanager
async def behind(script: Script | None = None) -> AsyncIterator[Upstream]:
    """An upstream; one that is not stopped would keep uvloop from closing."""
    upstream = await Upstream(script=script).start()
    try:
        yield upstream
    finally:
        await upstream.stop()


async def digest(
    received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    body = await read_body(received, reader)
    return answer(hashlib.sha256(body).hexdigest().encode())


def test_requests_share_a_connection_on_both_sides(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            behind() as upstream,
            site(tmp_path, upstream.url) as (heim, cookie),
        ):
            wire = await heim.connect()
            request = f"GET / HTTP/1.1\r\nHost: {APP}\r\nCookie: {cookie}\r\n\r\n".encode()
            for _ in range(20):
                wire.send(request)
                assert (await wire.answer()).body == b"ok"
            wire.send(request * 20)
            for _ in range(20):
                assert (await wire.answer()).body == b"ok"
            assert upstream.connections == 1

    run_on(loop, scenario())


def test_eight_mebibytes_arrive_both_ways(loop: str, tmp_path: Path) -> None:
    big = os.urandom(8 * MIB)

    async def scenario() -> None:
        async with (
            behind(digest) as upstream,
            site(tmp_path, upstream.url) as (heim, cookie),
        ):
            up = await heim.request("/", method="PUT", cookie=cookie, body=big)
            assert up.body.decode() == hashlib.sha256(big).hexdigest()

            async def down(*_: object) -> bytes:
                return answer(big)

            upstream.script = down
            assert (await heim.request("/", cookie=cookie)).body == big

    run_on(loop, scenario())


def test_a_client_that_does_not_read_stops_the_upstream(loop: str, tmp_path: Path) -> None:
    sent = 0

    async def endless(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(bytes(64 * 1024))
            await writer.drain()
            sent += 64 * 1024

    async def scenario() -> None:
        async with (
            behind(endless) as upstream,
            site(tmp_path, upstream.url) as (heim, cookie),
        ):
            wire = await heim.connect()
            cast("asyncio.Transport", wire.writer.transport).pause_reading()
            wire.send(f"GET / HTTP/1.1\r\nHost: {APP}\r\nCookie: {cookie}\r\n\r\n".encode())
            async with asyncio.timeout(5):
                before = -1
                while sent != before or not sent:
                    before = sent
                    await asyncio.sleep(0.3)
            # The kernel's buffers of four sockets hold some MiB; the proxy's own are small.
            assert sent < 32 * MIB
            wire.close()
            await heim.until(lambda: upstream.open == 0)

    run_on(loop, scenario())


def test_a_websocket_passes_messages_and_is_told_of_its_end(loop: str, tmp_path: Path) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async def scenario() -> None:
        async with serve(echo, "127.0.0.1", 0, max_size=None) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with site(tmp_path, url) as (heim, _):
                session = await heim.session(user("alice"))
                big = os.urandom(MIB)
                async with websocket(heim, heim.cookie(session, APP), max_size=None) as socket:
                    await socket.send(big)
                    assert await socket.recv() == big
                    assert heim.proxy._sessions is not None
                    await heim.proxy._sessions.end(session.sid, EndReason.REVOKED, 0.0)
                    with pytest.raises(websockets.ConnectionClosed) as told:
                        await socket.recv()
                assert told.value.rcvd is not None
                assert (told.value.rcvd.code, told.value.rcvd.reason) == (4401, "heim: revoked")

    run_on(loop, scenario())


def test_our_own_pages_answer_through_their_socket_pair(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            behind() as upstream,
            site(tmp_path, upstream.url) as (heim, cookie),
        ):
            keys = await heim.request("/.heim/jwks.json", host=LOGIN_HOST)
            assert (keys.status, b'"kty"' in keys.body) == (200, True)
            me = await heim.request("/.heim/me", cookie=cookie)
            assert b"alice@example.com" in me.body
            assert upstream.requests == []

    run_on(loop, scenario())


def test_an_upstream_that_dies_in_its_answer_is_a_truncated_answer(
    loop: str, tmp_path: Path
) -> None:
    async def half(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    async def scenario() -> None:
        async with (
            behind(half) as upstream,
            site(tmp_path, upstream.url) as (heim, cookie),
        ):
            wire = await heim.connect()
            wire.send(f"GET / HTTP/1.1\r\nHost: {APP}\r\nCookie: {cookie}\r\n\r\n".encode())
            await wire.reader.readuntil(b"\r\n\r\n")
            assert await wire.closed() == b"5\r\nhello\r\n"

    run_on(loop, scenario())


def test_draining_waits_for_what_is_under_way(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        asked, go = asyncio.Event(), asyncio.Event()

        async def slowly(*_: object) -> bytes:
            asked.set()
            await go.wait()
            return answer(b"finished")

        async with (
            behind(slowly) as upstream,
            site(tmp_path, upstream.url) as (heim, cookie),
        ):
            request = asyncio.ensure_future(heim.request(cookie=cookie))
            await asked.wait()
            draining = asyncio.ensure_future(heim.proxy.drain())
            await asyncio.sleep(0)
            go.set()
            assert (await request).body == b"finished"
            await draining

    run_on(loop, scenario())
