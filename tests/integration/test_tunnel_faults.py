"""`heim-tunnel` and the proxy as processes, with what may go wrong between and behind them.

Numbers in names are those of tunnel.md, section 6.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes.middlebox import CUTS, middlebox
from tests.fakes.tunnel import TcpServer, rst
from tests.fakes.waiting import until
from tests.integration.tunnel import Stream, TunnelSite, stream, tcp_backend, tunnel_site

pytestmark = [pytest.mark.timeout(60), pytest.mark.asyncio(loop_scope="module")]

KIB = 1024
MIB = 1024 * KIB


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers() -> AsyncIterator[dict[str, TcpServer]]:
    """What is behind the backends of these names; tests say what it does."""
    started = {name: await TcpServer().start() for name in ("web1", "web2", "echo")}
    yield started
    for server in started.values():
        await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, servers: dict[str, TcpServer]
) -> AsyncIterator[TunnelSite]:
    backends = [tcp_backend(name, server.address) for name, server in servers.items()]
    async with tunnel_site(tmp_path_factory.mktemp("site"), backends) as started:
        yield started


@pytest.fixture
def web1(servers: dict[str, TcpServer]) -> TcpServer:
    server = servers["web1"]
    server.script = None
    server.received.clear()
    return server


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS"))


# -- 6, 7, 8: who does not read -----------------------------------------------------------------

# What a sender may hold of a stream: its queue, and a read.
SENDER = 192 * KIB
# A receiver's window grows to this while the kernel takes everything, as it does for megabytes at
# first. The exact bound is measured by bench/tunnel, and by tests that see the window.
WINDOW = 16 * MIB
# Pages of an allocator that were never touched before.
NOISE = 1 * MIB
WARM = 16 * MIB


async def test_6_an_upstream_that_stalls_costs_neither_side_memory(
    site: TunnelSite, web1: TcpServer
) -> None:
    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = WARM
        while left:
            left -= len(await reader.read(min(left, 65_536)))
        writer.write(b"w")
        await asyncio.Event().wait()

    web1.script = stalls
    with stream(site, "web1") as opened:
        await opened.send(bytes(WARM))
        await opened.read(1)
        proxy, client = Growth(site.heim.process.pid), Growth(opened.process.pid)
        taken = await opened.fill()
        assert proxy.size <= WINDOW + SENDER + NOISE
        assert client.size <= SENDER + NOISE
    # The kernel's buffers of three sockets and a pipe have some; nobody has the rest.
    assert 256 * KIB < taken < 128 * MIB


async def test_7_a_client_that_stalls_costs_neither_side_memory(
    site: TunnelSite, web1: TcpServer
) -> None:
    sent = 0

    async def gives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(bytes(WARM))
        await reader.readexactly(1)
        while sent < 256 * MIB:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    web1.script = gives
    with stream(site, "web1") as opened:
        await opened.read(WARM)
        proxy, client = Growth(site.heim.process.pid), Growth(opened.process.pid)
        await opened.send(b"x")
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.7)
        assert proxy.size <= SENDER + NOISE
        assert client.size <= WINDOW + SENDER + NOISE
    assert 256 * KIB < sent < 128 * MIB


class Growth:
    """By how many bytes of resident memory a process has grown since."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = resident(pid)

    @property
    def size(self) -> int:
        return resident(self._pid) - self._before


async def test_8_streams_that_stall_leave_others_alone(
    site: TunnelSite, servers: dict[str, TcpServer]
) -> None:
    async def gives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    servers["web1"].script, servers["web2"].script = gives, stalls
    with (
        stream(site, "echo") as quick,
        stream(site, "web1") as download,
        stream(site, "web2") as upload,
    ):
        idle = await round_trips(quick)
        await upload.fill()
        await download.read(65_536)
        beside = await round_trips(quick)
    # The figures are the bench's; here nobody may wait for somebody else's reader.
    assert beside <= 2 * idle + 0.05


async def round_trips(opened: Stream) -> float:
    """p95 of a few key presses, in seconds."""
    took = []
    for _ in range(60):
        began = time.monotonic()
        await opened.send(b"k")
        await opened.read(1, 5.0)
        took.append(time.monotonic() - began)
    return statistics.quantiles(took, n=20)[-1]


# -- 12: who cuts what passes -------------------------------------------------------------------


@pytest.mark.parametrize("name", CUTS)
async def test_12_a_box_that_cuts_everything_anew_changes_nothing(
    site: TunnelSite, web1: TcpServer, name: str
) -> None:
    """Both ways, and the end of each: the answer comes only behind our EOF."""

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read(-1)
        writer.write(hashlib.sha256(data).digest() + data[::-1])
        await writer.drain()

    web1.script = answers
    sent = random.Random(1).randbytes(10_000 if name == "dribble" else 4 * MIB + 1)
    async with middlebox(site.port, CUTS[name]) as port:
        done = await site.tunnel("web1", sent, "--connect-to", f"127.0.0.1:{port}")
    assert (done.status, done.err) == (0, "")
    assert done.out[:32] == hashlib.sha256(sent).digest()
    assert done.out[32:] == sent[::-1]


# -- 2, 4: how it ends --------------------------------------------------------------------------


async def test_2_the_upstreams_end_arrives_before_ours(site: TunnelSite, web1: TcpServer) -> None:
    """And what we send afterwards arrives, although the upstream is slower than our goodbye."""
    go_on = asyncio.Event()
    got, over = bytearray(), asyncio.Event()

    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
        writer.write(b"that is all")
        writer.write_eof()
        await go_on.wait()
        while data := await reader.read(65_536):
            got.extend(data)
        over.set()

    web1.script = ends
    sent = random.Random(4).randbytes(3 * MIB)
    with stream(site, "web1") as opened:
        assert await opened.read(11) == b"that is all"
        await until(lambda: closed(opened.stdout))
        assert opened.process.poll() is None
        sending = asyncio.ensure_future(opened.send(sent))
        await asyncio.sleep(0.5)
        go_on.set()
        await sending
        assert opened.process.stdin is not None
        opened.process.stdin.close()
        await until(lambda: opened.process.poll() is not None)
        assert (opened.process.returncode, opened.said()) == (0, "")
    async with asyncio.timeout(5):
        await over.wait()
    assert hashlib.sha256(got).digest() == hashlib.sha256(sent).digest()
    await until(lambda: ended_with(site, len(sent)))
    assert ended_with(site, len(sent)) == [None]


def ended_with(site: TunnelSite, size: int) -> list[Any]:
    """Why streams ended that brought the upstream so many bytes, as the access log has it."""
    lines = map(json.loads, site.heim.log.read_text().splitlines())
    return [line["end"] for line in lines if line["bytes_in"] == size]


def closed(pipe: int) -> bool:
    try:
        return os.read(pipe, 1) == b""
    except BlockingIOError:
        return False


async def test_4_a_reset_in_the_middle_of_a_download_is_no_end(
    site: TunnelSite, web1: TcpServer
) -> None:
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(64):
            writer.write(bytes(65_536))
            await writer.drain()
        rst(writer)

    web1.script = breaks
    done = await site.tunnel("web1")
    assert done.status == 69
    assert done.err.count("\n") == 1
    assert len(done.out) <= 64 * 65_536


async def test_4_a_client_killed_in_the_middle_of_an_upload_is_no_end(
    site: TunnelSite, web1: TcpServer
) -> None:
    ended: list[str] = []

    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                web1.received += data
            ended.append("eof")
        except ConnectionResetError:
            ended.append("reset")

    web1.script = takes
    with stream(site, "web1") as opened:
        sending = asyncio.ensure_future(opened.fill())
        try:
            await until(lambda: len(web1.received) > MIB)
            opened.process.kill()
            await until(lambda: ended)
        finally:
            sending.cancel()
    assert ended == ["reset"]


# -- 56, 58: other machines ---------------------------------------------------------------------


async def test_56_a_proxy_that_has_only_ipv6_is_reached(
    tmp_path: Path, servers: dict[str, TcpServer]
) -> None:
    """By its address, and by the name `*.localhost`, which has a dead IPv4 address, too."""
    listeners = {
        "https": {"address": "[::1]:0"},
        "http": None,
        "admin": {"address": f"unix:{tmp_path / 'admin.sock'}"},
    }
    backends = [tcp_backend("echo", servers["echo"].address)]
    async with tunnel_site(tmp_path, backends, listeners=listeners) as six:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", six.port), 1)
        for way in (f"[::1]:{six.port}", f"six.localhost:{six.port}"):
            done = await six.tunnel("echo", b"six", "--connect-to", way)
            assert (done.status, done.out, done.err) == (0, b"six", "")


async def test_58_without_uvloop_and_the_c_helper_it_is_the_same(
    tmp_path: Path, servers: dict[str, TcpServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither program finds these modules; more passes than is masked without the helper."""
    hidden = tmp_path / "hidden"
    (hidden / "websockets").mkdir(parents=True)
    (hidden / "websockets" / "__init__.py").write_text("")
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'uvloop' else find(name, *more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    sent = random.Random(2).randbytes(8 * MIB)
    backends = [tcp_backend("echo", servers["echo"].address)]
    async with tunnel_site(tmp_path, backends) as plain:
        done = await plain.tunnel("echo", sent)
        mapped = Path(f"/proc/{plain.heim.process.pid}/maps").read_text()
    assert not [name for name in ("/uvloop/", "/websockets/") if name in mapped]
    assert (done.status, done.err) == (0, "")
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(sent).digest()
