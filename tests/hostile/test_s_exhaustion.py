"""S: nobody can make the proxy hold, wait or compute without bound; G12: nor lose its judgement."""

from __future__ import annotations

import asyncio
import gzip
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from heim_proxy.edge.limits import (
    BODY_IDLE_S,
    HEAD_S,
    KEEP_ALIVE_S,
    PIPELINE_BYTES,
    WRITE_STALL_S,
)
from tests.fakes.heim import Answer, Heim, Wire
from tests.fakes.upstream import Received, answer
from tests.hostile.world import ALICE, ALL, BOB, SWITCHING, World, host, roles, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST: Final = f"Host: {host('open')}\r\n"
GET: Final = f"GET / HTTP/1.1\r\n{HOST}\r\n".encode()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """As everywhere, with short timeouts towards one backend and a dead one."""
    directory: Path = tmp_path_factory.mktemp("exhaustion")
    world = await World.start(directory)
    route = [{"path": "/", "upstream": world.upstream.url}]
    dead = [{"path": "/", "upstream": "http://127.0.0.1:1"}]
    short = {"connect": "300ms", "first_byte": "700ms", "idle": "1s"}
    world.heim.document["backends"] += [
        {"name": "short", "http": route, "permissions": [ALL], "timeouts": short},
        {"name": "dead", "http": dead, "permissions": [ALL]},
    ]
    await world.change(roles=roles("short", "dead"))
    yield world
    await world.stop()


async def answered_or_closed(world: World, wire: Wire) -> Answer | None:
    try:
        return await within(wire.answer(), 3)  # type: ignore[no-any-return]
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n", GET[:-2], b"\r", GET + b"GET"])
async def test_S1_a_head_that_does_not_end_is_408_at_its_deadline(
    world: World, data: bytes
) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(data)
    if data.startswith(GET):
        assert (await within(wire.answer())).status == 200
    await world.heim.until(lambda: any_waiting(world, "head"))
    world.sweep(HEAD_S - 1)
    # A byte now and then does not buy more time: the clock runs from the first one.
    wire.send(b"E" if data == b"G" else b"X")
    await asyncio.sleep(0.02)
    for front in fronts(world):
        front.check(asyncio.get_running_loop().time() + HEAD_S + 1)
    found = await answered_or_closed(world, wire)
    assert found is not None
    assert found.status == 408
    assert await world.shut(wire) == b""


def fronts(world: World) -> list[Any]:
    edge = world.heim.proxy._edge
    assert edge is not None
    return list(edge._fronts)


def any_waiting(world: World, kind: str) -> bool:
    return any(front._deadline_kind == kind for front in fronts(world))


async def test_S1_an_idle_connection_is_closed_without_a_word(world: World) -> None:
    for opening in (b"", GET):
        wire = await world.wire("open", plain=True)
        if opening:
            wire.send(opening)
            assert (await within(wire.answer())).status == 200
        await world.heim.until(lambda: any_waiting(world, "keep_alive"))
        world.sweep(KEEP_ALIVE_S - 1)
        await asyncio.sleep(0.02)
        assert not wire.reader.at_eof()
        world.sweep(KEEP_ALIVE_S + 1)
        assert await wire.closed() == b""


async def test_S1_a_body_that_stops_is_408(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        while data := await reader.read(1024):
            received.body += data
        return None

    world.upstream.script = script
    for framing, part in (
        ("Content-Length: 100", b"he"),
        ("Transfer-Encoding: chunked", b"5\r\nh"),
    ):
        world.forget()
        wire = await world.wire("open", plain=True)
        wire.send(f"POST / HTTP/1.1\r\n{HOST}{framing}\r\n\r\n".encode() + part)
        await world.heim.until(lambda: any_waiting(world, "body") and world.sent)
        await asyncio.sleep(0.02)
        world.sweep(0)  # The first sweep after progress starts the deadline.
        world.sweep(BODY_IDLE_S - 1)
        world.sweep(BODY_IDLE_S + 1)
        found = await answered_or_closed(world, wire)
        assert found is not None
        assert found.status == 408
        await world.heim.until(lambda: world.upstream.open == 0)


async def test_S1_a_client_that_does_not_take_its_answer_is_cut(world: World) -> None:
    size = 64 * 1024 * 1024

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()
        return b""

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    wire.send(GET)
    await world.heim.until(lambda: any(front.write_paused for front in fronts(world)))
    assert world.live == 1
    world.sweep(WRITE_STALL_S + 1)
    await world.heim.until(lambda: world.live == 0)
    await world.heim.until(lambda: world.upstream.open == 0)


async def test_S1_handshakes_that_stall_delay_nobody(world: World) -> None:
    stalled = [
        await asyncio.open_connection("127.0.0.1", world.heim.https_port) for _ in range(100)
    ]
    for index, (_, writer) in enumerate(stalled):
        writer.write(b"\x16\x03\x01\x02\x00"[: index % 6])
    since = time.monotonic()
    assert (await world.as_alice()).status == 200
    assert time.monotonic() - since < 1
    for _, writer in stalled:
        writer.transport.abort()


async def test_S2_idle_connections_cost_little(world: World) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4096

    async def opened() -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.heim.http_port)
        writer.write(GET)
        await reader.readuntil(b"ok")
        return writer

    first = [await opened() for _ in range(50)]
    before = resident()
    more = [await opened() for _ in range(300)]
    # Both ends of 300 connections, the test's own streams included.
    assert (resident() - before) / 300 < 60 * 1024
    assert (await world.as_alice()).status == 200
    for writer in (*first, *more):
        writer.transport.abort()


async def test_S3_nothing_is_decompressed(world: World) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        received.body = await reader.readexactly(int(received.get("content-length") or 0))
        return answer(bomb, headers="Content-Encoding: gzip\r\n")

    world.upstream.script = script
    found = await world.as_alice(
        method="POST",
        body=bomb,
        headers=(("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip;q=0.5, br")),
    )
    assert found.body == bomb
    assert found.get("content-encoding") == "gzip"
    seen = world.only()
    assert seen.body == bomb
    assert seen.all("content-encoding") == ["gzip"]
    assert seen.all("accept-encoding") == ["gzip;q=0.5, br"]


async def test_S6_an_upload_of_64_mib_goes_through_and_is_never_held(world: World) -> None:
    size = 64 * 1024 * 1024
    received_bytes = 0
    peak = 0

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        nonlocal received_bytes
        while received_bytes < size:
            received_bytes += len(await reader.read(1024 * 1024))
        return answer()

    world.upstream.script = script
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    wire.send(
        f"POST / HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n"
        f"Content-Length: {size}\r\n\r\n".encode()
    )
    block = b"x" * 262_144
    for _ in range(size // len(block)):
        wire.send(block)
        await wire.writer.drain()
        peak = max(peak, held_upstream(world))
    assert (await within(wire.answer(), 20)).status == 200
    assert received_bytes == size
    assert peak < 2 * 1024 * 1024


def held_upstream(world: World) -> int:
    exchanges = [front.exchange for front in fronts(world) if front.exchange is not None]
    upstreams = [one._upstream for one in exchanges if one._upstream is not None]
    return sum(one._transport.get_write_buffer_size() for one in upstreams)


async def pushed(wire: Wire, block: bytes, seconds: float) -> int:
    """How many bytes the proxy takes in that time; it must stop taking them before the end."""
    sent = 0
    until = time.monotonic() + seconds
    try:
        async with asyncio.timeout(seconds):
            while time.monotonic() < until:
                wire.send(block)
                await wire.writer.drain()
                sent += len(block)
    except TimeoutError:
        return sent
    raise AssertionError(f"{sent} bytes were taken and there was no end")


async def test_S6_a_slow_upstream_stalls_the_client(world: World) -> None:
    reading = asyncio.Event()

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        await reading.wait()
        while await reader.read(1024 * 1024):
            pass
        return None

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    wire.send(f"POST / HTTP/1.1\r\n{HOST}Content-Length: 1000000000\r\n\r\n".encode())
    sent = await pushed(wire, b"x" * 262_144, 0.7)
    assert sent < 64 * 1024 * 1024
    assert held_upstream(world) < 2 * 1024 * 1024
    # Others are not affected meanwhile, and it goes on when the upstream does.
    world.upstream.script = None
    assert (await world.as_alice()).status == 200
    reading.set()
    await within(wire.writer.drain())


async def test_pipelined_bytes_are_bounded_while_an_answer_is_awaited(world: World) -> None:
    enough = asyncio.Event()

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        await enough.wait()
        return None

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    wire.send(GET)
    await world.heim.until(lambda: world.live == 1)
    assert await pushed(wire, GET * 1000, 0.5) < 64 * 1024 * 1024
    assert all(len(front._buffer) < PIPELINE_BYTES + 512 * 1024 for front in fronts(world))
    # Who vanishes while nobody reads from him is noticed when the next byte goes to him.
    wire.close()
    enough.set()
    await world.heim.until(lambda: world.live == 0)


async def test_S8_an_upstream_that_says_nothing_is_504_and_others_go_on(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if received.path.startswith("/fast"):
            return answer()
        if received.path == "/half":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-")
        if received.path == "/interim":
            writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await reader.read()
        return None

    world.upstream.script = script
    silent = [
        asyncio.ensure_future(world.as_alice(path, at="short"))
        for path in ("/silent", "/half", "/silent2")
    ]
    since = time.monotonic()
    for _ in range(5):
        assert (await world.as_alice("/fast", at="short")).status == 200
        assert (await world.as_alice("/fast")).status == 200
    assert time.monotonic() - since < 1
    for one in silent:
        found = await within(one)
        assert found.status == 504
        assert b"first_byte" in found.body
    assert time.monotonic() - since < 3


async def test_S8_an_answer_that_stops_is_cut(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()
        return None

    world.upstream.script = script
    wire = await world.wire("short")
    cookie = await world.cookie(ALICE, "short")
    wire.send(f"GET / HTTP/1.1\r\nHost: {host('short')}\r\nCookie: {cookie}\r\n\r\n".encode())
    data = await wire.closed(4)
    assert data.endswith(b"half")


async def test_S8_a_dead_upstream_is_502_for_everybody_at_once(world: World) -> None:
    since = time.monotonic()
    for _ in range(20):
        found = await world.as_alice(at="dead")
        assert found.status == 502
        assert b"127.0.0.1" not in found.body
    assert time.monotonic() - since < 2
    assert (await world.as_alice()).status == 200


async def test_a_connection_that_waits_for_its_dial_is_not_cut_as_idle(world: World) -> None:
    """The deadline of the dial replaces that of the head or of the idle connection."""
    backlog = await full_backlog()
    port = backlog[0].getsockname()[1]
    before = world.heim.document["backends"]
    slow = [
        {
            **one,
            "http": [{"path": "/", "upstream": f"http://127.0.0.1:{port}"}],
            "timeouts": {"connect": "100s"},
        }
        if one["name"] == "two"
        else one
        for one in before
    ]
    await world.change(backends=slow)
    try:
        cookie = await world.cookie(ALICE, "two")
        wire = await world.wire("two")
        wire.send(f"GET / HTTP/1.1\r\nHost: {host('two')}\r\nCookie: {cookie}\r\n\r\n".encode())
        await world.heim.until(lambda: world.live == 1)
        world.sweep(90)
        await asyncio.sleep(0.05)
        assert world.live == 1
        assert not wire.reader.at_eof()
        world.sweep(110)
        assert (await within(wire.answer())).status == 504
    finally:
        for sock in backlog:
            sock.close()
        await world.change(backends=before)


async def full_backlog() -> list[Any]:
    """A listening socket whose queue is full, so that connecting to it hangs, and who fills it."""

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    filling = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listening.getsockname())
        filling.append(sock)
    await asyncio.sleep(0.05)
    return [listening, *filling]


async def test_S5_hostile_paths_are_judged_quickly(world: World) -> None:
    cookie = await world.cookie(BOB)
    wire = await world.wire()
    targets = ["/" + "a/" * 3000, "/" + "%2e" * 2000, "/" + "../" * 2500, "/public" + ";a" * 3000]
    since = time.monotonic()
    for target in targets:
        wire.send(
            f"GET {target} HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n\r\n".encode()
        )
        found = await within(wire.answer())
        assert found.status in (200, 400, 403)
    assert time.monotonic() - since < 0.5


async def test_a_storm_of_small_chunks_and_frames_does_not_starve_others(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if received.path == "/ok":
            return answer()
        writer.write(SWITCHING if received.get("upgrade") else b"")
        while await reader.read(1024 * 1024):
            pass
        return None

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    wire.send(f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n".encode())

    async def storm() -> None:
        while True:
            wire.send(b"1\r\na\r\n" * 10_000)
            await wire.writer.drain()

    task = asyncio.ensure_future(storm())
    await asyncio.sleep(0.1)
    # Of the processor, which other programs may have meanwhile; the storm leaves it no idle moment.
    since = time.process_time()
    for _ in range(5):
        assert (await world.as_alice("/ok")).status == 200
    spent = time.process_time() - since
    task.cancel()
    assert spent < 4


# -- G12: the store is gone -----------------------------------------------------------------------


async def test_G12_an_unknown_session_is_503_and_a_known_one_goes_on(tmp_path: Path) -> None:
    world = await World.start(tmp_path)
    alice = await world.heim.session(ALICE)
    bob = await world.heim.session(BOB)
    cookies = {who: world.heim.cookie(one, host("app")) for who, one in (("a", alice), ("b", bob))}
    await world.heim.stop()
    # A restart: nobody is in memory; alice comes before the store breaks, bob after.
    heim = world.heim
    again = await Heim.start(
        tmp_path, backends=heim.document["backends"], roles=heim.document["roles"]
    )
    try:
        known = await again.request("/public/x", cookie=cookies["a"])
        assert known.status == 200
        with closing(sqlite3.connect(tmp_path / "state" / "state.db", isolation_level=None)) as db:
            db.execute("DROP TABLE sessions")
        sent = len(world.upstream.requests)
        unknown = await again.request("/public/x", cookie=cookies["b"])
        assert unknown.status == 503
        assert unknown.get("retry-after")
        assert len(world.upstream.requests) == sent
        # Pipelined behind it, on the same connection, each is judged alone all the same.
        assert (await again.request("/public/x", cookie=cookies["a"])).status == 200
        assert (await again.request("/", host=host("open"))).status == 200
        assert (await again.request("/public/x")).status == 401
    finally:
        await again.stop()
        await world.upstream.stop()
