"""`heim-tunnel` and the proxy as processes, with what may go wrong between and behind them.

Numbers in names are those of tunnel.md, section 6.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fakes.middlebox import CUTS, middlebox
from tests.fakes.tunnel import TcpServer, rst
from tests.integration.tunnel import TunnelSite, tcp_backend, tunnel_site

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
    server.script, server.ended = None, ""
    server.received.clear()
    return server


@contextmanager
def running(site: TunnelSite, name: str = "web1") -> Iterator[Stream]:
    stream = Stream(site, name)
    try:
        yield stream
    finally:
        stream.close()


class Stream:
    """A running `heim-tunnel proxy` whose pipes are read and written by hand, without waiting."""

    def __init__(self, site: TunnelSite, name: str) -> None:
        self.process = subprocess.Popen(
            site.command(name),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **site.env},
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    async def send(self, data: bytes) -> None:
        """Write all of it."""
        view = memoryview(data)
        while view:
            view = view[self._give(view) :]
            await asyncio.sleep(0 if view else 0.001)

    async def read(self, size: int, within_s: float = 15.0) -> bytes:
        found = bytearray()
        async with asyncio.timeout(within_s):
            while len(found) < size:
                try:
                    data = os.read(self.stdout, min(size - len(found), 65_536))
                except BlockingIOError:
                    await asyncio.sleep(0.001)
                    continue
                assert data, self.said()
                found += data
        return bytes(found)

    async def fill(self) -> int:
        """Write until nothing has been taken for a second; how much was."""
        taken, still = 0, time.monotonic()
        while time.monotonic() - still < 1 and taken < 256 * MIB:
            if size := self._give(bytes(65_536)):
                taken, still = taken + size, time.monotonic()
            await asyncio.sleep(0 if size else 0.01)
        return taken

    def _give(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self.stdin, data[:65_536])
        except BlockingIOError:
            return 0

    def said(self) -> str:
        self.process.wait(5)
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS"))


async def until(condition: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


# -- 6, 7, 8: who does not read -----------------------------------------------------------------

# Two windows of 256 KiB, should one have grown, and what a stream's queue and a read may hold.
BOUND = 512 * KIB + 192 * KIB
# Pages of an allocator that were never touched before; a hundredth of what is on its way.
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
    with running(site) as stream:
        await stream.send(bytes(WARM))
        await stream.read(1)
        growth = Growth(site.heim.process.pid, stream.process.pid)
        taken = await stream.fill()
        growth.check()
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
    with running(site) as stream:
        await stream.read(WARM)
        growth = Growth(site.heim.process.pid, stream.process.pid)
        await stream.send(b"x")
        last = -1
        while sent != last:
            last = sent
            await asyncio.sleep(0.7)
        growth.check()
    assert 256 * KIB < sent < 128 * MIB


class Growth:
    """By how much processes grow from now on."""

    def __init__(self, *pids: int) -> None:
        self._before = {pid: resident(pid) for pid in pids}

    def check(self) -> None:
        grown = [resident(pid) - before for pid, before in self._before.items()]
        assert max(grown) <= BOUND + NOISE, grown


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
        running(site, "echo") as quick,
        running(site, "web1") as download,
        running(site, "web2") as upload,
    ):
        idle = await round_trips(quick)
        await upload.fill()
        await download.read(65_536)
        beside = await round_trips(quick)
    # The figures are the bench's; here nobody may wait for somebody else's reader.
    assert beside <= 2 * idle + 0.05


async def round_trips(stream: Stream) -> float:
    """p95 of a few key presses, in seconds."""
    took = []
    for _ in range(60):
        began = time.monotonic()
        await stream.send(b"k")
        await stream.read(1, 5.0)
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
    async def ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        web1.received += await reader.read(-1)

    web1.script = ends
    with running(site) as stream:
        assert await stream.read(11) == b"that is all"
        await until(lambda: closed(stream.stdout))
        assert stream.process.poll() is None
        await stream.send(b"x" * MIB)
        assert stream.process.stdin is not None
        stream.process.stdin.close()
        await until(lambda: stream.process.poll() is not None)
        assert (stream.process.returncode, stream.said()) == (0, "")
    await until(lambda: web1.received)
    assert web1.received == b"x" * MIB


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
    async def takes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            web1.received += data
        web1.ended = "eof"

    web1.script = takes
    with running(site) as stream:
        sending = asyncio.ensure_future(stream.fill())
        try:
            await until(lambda: len(web1.received) > MIB)
            stream.process.kill()
            await until(lambda: web1.ended)
        finally:
            sending.cancel()
    assert web1.ended == "reset"


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
