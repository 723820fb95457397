"""SIGTERM: what is under way finishes, what stays open is told, and the process ends with 0."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from tests.fakes.heim import user
from tests.fakes.upstream import Received, Upstream, answer
from tests.integration.process import HeimProcess, admin, running
from tests.integration.setup import APP, alice_only, app_backend, websocket


async def ended(heim: HeimProcess, within_s: float) -> int:
    async with asyncio.timeout(within_s):
        return await heim.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
async def test_a_request_under_way_finishes_and_the_process_ends_with_0(
    number: signal.Signals, tmp_path: Path, upstream: Upstream
) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def slowly(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        asked.set()
        await go.wait()
        return answer(b"finished")

    upstream.script = slowly
    async with running(
        tmp_path, backends=[app_backend(upstream.url)], roles=alice_only(), drain="20s"
    ) as heim:
        cookie = await heim.signed_in(user("alice"), APP)
        request = asyncio.ensure_future(heim.request(cookie=cookie))
        await asked.wait()
        heim.signal(number)
        await heim.until(lambda: heim.events("proxy.draining"))

        ready = await admin(tmp_path, "/readyz")
        assert (ready.status, "shutting down" in ready.text) == (503, True)
        with pytest.raises(OSError):
            await heim.connect()

        go.set()
        found = await request
        assert (found.status, found.body) == (200, b"finished")
        assert found.get("connection") == "close"
        assert await ended(heim, 5) == 0


async def test_idle_connections_do_not_hold_up_the_end(tmp_path: Path, upstream: Upstream) -> None:
    async with running(
        tmp_path, backends=[app_backend(upstream.url)], roles=alice_only(), drain="20s"
    ) as heim:
        cookie = await heim.signed_in(user("alice"), APP)
        kept = await heim.connect()
        kept.send(f"GET / HTTP/1.1\r\nHost: {APP}\r\nCookie: {cookie}\r\n\r\n".encode())
        assert (await kept.answer()).status == 200
        silent = await heim.connect()

        heim.signal(signal.SIGTERM)
        assert await ended(heim, 5) == 0
        assert await kept.closed() == b""
        assert await silent.closed() == b""


async def test_a_websocket_that_stays_is_closed_with_1001_after_the_drain(tmp_path: Path) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with (
        serve(echo, "127.0.0.1", 0) as server,
        running(
            tmp_path,
            backends=[app_backend(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")],
            roles=alice_only(),
            drain="500ms",
        ) as heim,
    ):
        cookie = await heim.signed_in(user("alice"), APP)
        async with websocket(heim, cookie) as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            heim.signal(signal.SIGTERM)
            began = time.monotonic()
            await heim.until(lambda: heim.events("proxy.draining"))
            await socket.send("during")
            assert await socket.recv() == "during"
            with pytest.raises(websockets.ConnectionClosed) as told:
                await socket.recv()
            assert time.monotonic() - began >= 0.5
            assert told.value.rcvd is not None
            assert (told.value.rcvd.code, told.value.rcvd.reason) == (1001, "heim: shutdown")
        assert await ended(heim, 5) == 0


async def test_a_download_longer_than_the_drain_is_visibly_cut(
    tmp_path: Path, upstream: Upstream
) -> None:
    async def endless(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    upstream.script = endless
    async with running(
        tmp_path, backends=[app_backend(upstream.url)], roles=alice_only(), drain="300ms"
    ) as heim:
        cookie = await heim.signed_in(user("alice"), APP)
        wire = await heim.connect()
        wire.send(f"GET / HTTP/1.1\r\nHost: {APP}\r\nCookie: {cookie}\r\n\r\n".encode())
        await wire.reader.readuntil(b"\r\n\r\n")
        heim.signal(signal.SIGTERM)
        body = await wire.closed(within_s=5)
        assert body.startswith(b"1\r\nx\r\n")
        assert not body.endswith(b"0\r\n\r\n")
        assert await ended(heim, 5) == 0
