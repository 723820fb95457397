"""One forwarded connection: bytes, ends, resets and tokens, with a scripted proxy behind."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.entrance import Entrance
from heim_tunnel.invocation import Invocation
from heim_tunnel.passage import Passage
from heim_wire import events
from heim_wire.errors import Code
from tests.fakes.tunnel_cli import write_login
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer

Script = Callable[[Peer], None]


class Local:
    """The local program, and the lines that its person sees."""

    def __init__(self, sock: socket.socket, task: asyncio.Task[None], said: list[str]) -> None:
        self.sock = sock
        self.task = task
        self.said = said
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def read(self) -> bytes:
        received = b""
        async with asyncio.timeout(8):
            while data := await self.loop.sock_recv(self.sock, 262_144):
                received += data
        return received

    async def over(self) -> None:
        async with asyncio.timeout(8):
            await self.task


@asynccontextmanager
async def passage(
    server: TunnelServer, home: Path, *, token_file: Path | None = None, **login: object
) -> AsyncIterator[Local]:
    """A TCP connection that goes through a passage to the scripted proxy."""
    way = Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))
    if token_file is None:
        write_login(home / "heim", **login)
    file = str(token_file) if token_file is not None else None
    loop = asyncio.get_running_loop()
    invocation = Invocation(TARGET, way, token_file=file, environ={})
    entrance = await loop.run_in_executor(None, Entrance, invocation)
    said: list[str] = []
    one = Passage(entrance, said.append)
    listener = socket.create_server(("127.0.0.1", 0))
    serving = await loop.create_server(lambda: one, sock=listener)
    task = loop.create_task(one.run())
    with socket.create_connection(listener.getsockname()) as sock:
        sock.setblocking(False)
        yield Local(sock, task, said)
        if not task.done():
            one.stop()
        async with asyncio.timeout(5):
            await task
    serving.close()


def echo(peer: Peer) -> None:
    """Echoes, and ends when the client has ended."""
    peer.request()
    peer.upgrade()
    done = 0
    while not peer.saw(events.Ended):
        peer.step()
        if peer.saw(events.Reset):
            peer.until(lambda: peer.websocket.closed is not None)
            return
        if len(peer.received) > done:
            peer.stream.send(bytes(peer.received[done:]))
            done = len(peer.received)
            peer.until(lambda: peer.stream.queued < 65536)
    # What came together with the end.
    peer.stream.send(bytes(peer.received[done:]))
    peer.goodbye()


@pytest.mark.parametrize("size", [0, 1, 16_368, 65_537, 3_000_000])
async def test_bytes_come_back_as_they_went(size: int, home: Path) -> None:
    data = os.urandom(size)
    with TunnelServer(echo) as server:
        async with passage(server, home) as local:

            async def send() -> None:
                await local.send(data)
                local.sock.shutdown(socket.SHUT_WR)

            got, _ = await asyncio.gather(local.read(), send())
            assert hashlib.sha256(got).digest() == hashlib.sha256(data).digest()
            await local.over()
            assert local.said == []


async def test_a_half_closed_connection_still_gets_its_answer(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.until(lambda: peer.saw(events.Ended))
        peer.stream.send(b"the answer")
        peer.goodbye()

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            await local.send(b"question")
            local.sock.shutdown(socket.SHUT_WR)
            assert await local.read() == b"the answer"
            await local.over()
    assert bytes(server.peers[0].received) == b"question"


async def test_the_backends_end_comes_before_the_programs(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.stream.send(b"bye")
        peer.goodbye()

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            assert await local.read() == b"bye"
            await local.send(b"last words")
            local.sock.shutdown(socket.SHUT_WR)
            await local.over()
    assert bytes(server.peers[0].received) == b"last words"


async def test_a_banner_right_behind_the_101_is_not_lost(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        answer: list[bytes] = []
        sock, peer.sock = peer.sock, Gathered(answer)  # type: ignore[assignment]
        peer.upgrade()
        peer.stream.send(b"SSH-2.0-banner\r\n" * 1000)
        peer.flush()
        peer.sock = sock
        sock.sendall(b"".join(answer))
        peer.goodbye()

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            local.sock.shutdown(socket.SHUT_WR)
            assert await local.read() == b"SSH-2.0-banner\r\n" * 1000
            await local.over()


class Gathered:
    """Writes that leave together."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)


async def test_a_reset_is_no_clean_end(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.until(lambda: peer.received)
        peer.stream.reset(Code.CONNECTION_RESET, "the backend cut the connection")
        peer.until(lambda: peer.websocket.closed is not None)

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            await local.send(b"x")
            with pytest.raises(ConnectionResetError):
                await local.read()
            await local.over()
            assert local.said == ["a connection was cut: the backend cut the connection"]


async def test_a_program_that_is_killed_is_nothing_to_complain_about(home: Path) -> None:
    seen: list[events.Reset] = []

    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.until(lambda: peer.saw(events.Reset))
        seen.extend(one for one in peer.events if isinstance(one, events.Reset))
        peer.until(lambda: peer.websocket.closed is not None or peer.ended)

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            await local.send(b"x")
            await asyncio.sleep(0)
            local.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            local.sock.close()
            await local.over()
            assert local.said == []
    assert seen[0].code == Code.CONNECTION_RESET


async def test_a_refusal_is_told_once_and_cuts_the_program_off(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.problem(403, "forbidden", "alice may not use ssh")

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            with pytest.raises(ConnectionResetError):
                await local.read()
            await local.over()
            assert local.said == ["alice may not use ssh"]


async def test_a_connection_that_breaks_is_told(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.until(lambda: peer.received)

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            await local.send(b"x")
            with pytest.raises(ConnectionResetError):
                await local.read()
            await local.over()
            (line,) = local.said
            assert line.startswith("a connection was cut: ")


async def test_notices_reach_the_person_clean(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.session.notice("your session ends at 17:00")
        peer.session.goaway(Code.GOING_AWAY, "the proxy is restarting", drain=60)
        peer.goodbye()

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            local.sock.shutdown(socket.SHUT_WR)
            await local.read()
            await local.over()
            assert local.said == [
                "your session ends at 17:00",
                "the proxy is restarting; this connection may go on for 60 s",
            ]


async def test_tokens_are_renewed_in_band(home: Path) -> None:
    """One that lives for a second is replaced after two thirds of it, and that one again."""
    # The first is for finding the login, the second opens the tunnel.
    names = iter(["token-two", "token-three", "token-four", "token-five"])

    def script(peer: Peer) -> None:
        if peer.request().startswith("POST /.heim/cli/token"):
            peer.token_answer(next(names), expires_in=1)
            return
        assert peer.fields["authorization"] == "Bearer token-three"
        peer.upgrade()
        peer.until(lambda: len(offered(peer)) == 2)
        peer.goodbye()

    with TunnelServer(script) as server:
        async with passage(server, home, access_expires=1) as local:
            local.sock.shutdown(socket.SHUT_WR)
            await local.read()
            await local.over()
            assert local.said == []
    (carriage,) = (one for one in server.peers if hasattr(one, "session"))
    assert offered(carriage) == ["token-four", "token-five"]


def offered(peer: Peer) -> list[object]:
    return [one.message["token"] for one in peer.events if isinstance(one, events.Auth)]


async def test_a_token_that_cannot_be_renewed_is_told_with_the_time(home: Path) -> None:
    refused: list[bytes] = []

    def script(peer: Peer) -> None:
        if peer.request().startswith("POST /.heim/cli/token"):
            if len(server.peers) < 3:
                peer.token_answer("token-two", expires_in=1)
            else:
                refused.append(peer.body)
                peer.json({"error": "invalid_grant"}, "400 Bad Request")
            return
        peer.upgrade()
        peer.until(lambda: refused)
        peer.until(lambda: peer.saw(events.Ended))
        peer.goodbye()

    with TunnelServer(script) as server:
        async with passage(server, home, access_expires=1) as local:
            async with asyncio.timeout(5):
                while not local.said:
                    await asyncio.sleep(0.01)
            local.sock.shutdown(socket.SHUT_WR)
            await local.read()
            await local.over()
            (line,) = local.said
            assert "run: heim-tunnel login" in line
            assert "may end at" in line
    assert len(refused) == 1


async def test_a_service_token_is_not_renewed(home: Path) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@example.test")
    token.chmod(0o600)
    with TunnelServer(echo) as server:
        async with passage(server, home, token_file=token) as local:
            local.sock.shutdown(socket.SHUT_WR)
            assert await local.read() == b""
            await local.over()
            assert local.said == []
        assert len(server.peers) == 1


async def test_stopping_cuts_both_sides_quietly(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.upgrade()
        peer.until(lambda: peer.saw(events.Reset))
        peer.until(lambda: peer.websocket.closed is not None or peer.ended)

    with TunnelServer(script) as server:
        async with passage(server, home) as local:
            await local.send(b"x")
            async with asyncio.timeout(5):
                while not server.peers or not hasattr(server.peers[-1], "session"):
                    await asyncio.sleep(0.01)
                while not server.peers[-1].received:
                    await asyncio.sleep(0.01)
        assert local.said == []
