"""`forward`: which backend is meant, who may connect, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heim_tunnel import forward
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.entrance import Entrance
from heim_tunnel.invocation import Invocation
from heim_tunnel.listener import listen
from heim_tunnel.local import Local
from tests.fakes.login_host import LoginHost, browser_script
from tests.fakes.tunnel_cli import write_login
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer
from tests.unit.tunnel.conftest import Run
from tests.unit.tunnel.test_passage import echo


@asynccontextmanager
async def forwarding(
    server: TunnelServer, home: Path, local: Local | None = None
) -> AsyncIterator[tuple[str | tuple[str, int], asyncio.Task[int]]]:
    """A forward in this process: where it listens, and the task that serves."""
    write_login(home / "heim")
    way = Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))
    one = forward.Forward(Entrance(Invocation(TARGET, way, environ={})))
    sock, where = listen(local or Local())
    task = asyncio.get_running_loop().create_task(one.run(sock))
    await asyncio.sleep(0)
    yield where.path or (where.address, where.port), task
    if not task.done():
        os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await task


async def ask(where: str | tuple[str, int], data: bytes) -> bytes:
    if isinstance(where, str):
        reader, writer = await asyncio.open_unix_connection(where)
    else:
        reader, writer = await asyncio.open_connection(*where)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(8):
            return await reader.read()
    finally:
        writer.close()


async def test_every_connection_has_its_own_tunnel(home: Path) -> None:
    with TunnelServer(echo) as server:
        async with forwarding(server, home) as (where, _):
            sent = [b"%d" % n * 1000 for n in range(6)]
            assert await asyncio.gather(*(ask(where, data) for data in sent)) == sent
        assert len(server.peers) == 6


async def test_a_unix_socket_leads_there_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    with TunnelServer(echo) as server:
        async with forwarding(server, home, Local(path="s.sock")) as (where, _):
            assert await ask(where, b"x") == b"x"


async def test_one_refused_connection_does_not_end_the_others(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def script(peer: Peer) -> None:
        if len(server.peers) == 1:
            peer.request()
            peer.problem(503, "busy", "too many streams", retry_after=5)
        else:
            echo(peer)

    with TunnelServer(script) as server:
        async with forwarding(server, home) as (where, _):
            with pytest.raises(ConnectionError):
                await ask(where, b"x")
            assert await ask(where, b"x") == b"x"
    assert f"heim-tunnel: {TARGET}: too many streams; retry in 5 s\n" in capfd.readouterr().err


async def test_there_is_a_limit(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(forward, "MAX_CONNECTIONS", 1)
    with TunnelServer(echo) as server:
        async with forwarding(server, home) as (where, _):
            assert isinstance(where, tuple)
            reader, writer = await asyncio.open_connection(*where)
            writer.write(b"first")
            assert await reader.readexactly(5) == b"first"
            with pytest.raises(ConnectionError):
                await ask(where, b"second")
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    assert "refused a connection: 1 are open already" in capfd.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_it_with_its_connections(number: signal.Signals, home: Path) -> None:
    with TunnelServer(echo) as server:
        async with forwarding(server, home) as (where, task):
            assert isinstance(where, tuple)
            reader, writer = await asyncio.open_connection(*where)
            writer.write(b"x")
            await reader.readexactly(1)
            os.kill(os.getpid(), number)
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()
            async with asyncio.timeout(5):
                assert await task == 128 + number
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*where)


@pytest.fixture
def signed_in(host: LoginHost, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> LoginHost:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    host.backends = [
        {"name": "db", "kind": "tcp", "host": "db.localhost", "url": ""},
        {"name": "db", "kind": "http", "host": "db.localhost", "url": "https://db.localhost/"},
        {"name": "many", "kind": "tcp", "host": "*.many.localhost", "url": ""},
        {"name": "wiki", "kind": "http", "host": "w.localhost", "url": "https://w.localhost/"},
    ]
    assert run("login", host.name).status == 0
    return host


@pytest.mark.parametrize(
    ("backend", "status", "text"),
    [
        ("nope", 68, "may reach no backend called nope; there is db, many"),
        ("many", 2, "many is *.many.localhost: give one of its hosts, as in NAME.many.localhost"),
        ("wiki", 77, "wiki is for the browser: https://w.localhost/"),
        ("5432:\x1bdb", 68, "may reach no backend called ?db"),
        ("a:b:c:d:e", 2, "is not [LOCAL:]BACKEND"),
    ],
)
def test_a_backend_that_cannot_be_forwarded_is_told_at_once(
    backend: str, status: int, text: str, signed_in: LoginHost, run: Run
) -> None:
    done = run("forward", backend)
    assert (done.status, done.out) == (status, "")
    assert text.replace("?", "") in done.err.replace("?", "")


def test_a_port_that_is_taken_is_told(signed_in: LoginHost, run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("forward", f"{taken.getsockname()[1]}:db.localhost")
    assert done.status == 1
    assert "another program listens there; choose another port" in done.err


@pytest.mark.parametrize("words", [["db"], ["unix:s.sock:db"], ["0.0.0.0:0:db.localhost"]], ids=str)
def test_programs_learn_where_it_listens(
    words: list[str], signed_in: LoginHost, home: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "heim_tunnel", "forward", *words],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if line.startswith("unix:"):
            assert (home / "s.sock").exists()
        else:
            assert int(line.rpartition(":")[2]) > 0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=5)
    assert process.returncode == 130
    assert out == ""
    assert f"listening on {line}; Ctrl-C ends it" in err
    assert ("everybody who reaches" in err) is line.startswith("0.0.0.0")
    assert not (home / "s.sock").exists()
    assert "Traceback" not in err
