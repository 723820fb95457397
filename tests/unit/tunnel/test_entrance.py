"""Opening a tunnel on asyncio: the token, its second try, and what is said when it fails."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from pathlib import Path

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.entrance import Entrance, in_thread
from heim_tunnel.invocation import Invocation
from heim_wire.aio.channel import Channel
from heim_wire.events import Data, Event
from tests.fakes.tunnel_cli import write_login
from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, Peer, TunnelServer


class Watch:
    """Owner of a channel, which notes what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.received = b""
        self.over = asyncio.Event()
        self.code = -1

    def event(self, channel: Channel, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Data):
            self.received += event.payload

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        self.code = code
        self.over.set()


@pytest.fixture
async def watch() -> Watch:
    return Watch()


def entrance_to(
    server: TunnelServer, *, token_file: Path | None = None, environ: dict[str, str] | None = None
) -> Entrance:
    way = Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))
    file = str(token_file) if token_file is not None else None
    return Entrance(Invocation(TARGET, way, token_file=file, environ=environ or {}))


def greeting(peer: Peer) -> None:
    """A backend that speaks first, and a client that leaves."""
    assert peer.request() == "GET /.heim/tunnel/connect HTTP/1.1"
    peer.upgrade()
    peer.stream.send(b"SSH-2.0-x\r\n")
    peer.goodbye()


async def opened(entrance: Entrance, watch: Watch) -> Channel:
    async with asyncio.timeout(5):
        channel, stream, _ = await entrance.open(watch)
    stream.end()
    channel.wake()
    return channel


async def test_a_tunnel_opens_with_the_stored_token(home: Path, watch: Watch) -> None:
    write_login(home / "heim")
    with TunnelServer(greeting) as server:
        channel = await opened(entrance_to(server), watch)
        async with asyncio.timeout(5):
            while not watch.received.endswith(b"\n"):
                await asyncio.sleep(0.01)
        channel.finish()
        await watch.over.wait()
    fields = server.peers[0].fields
    assert fields["authorization"] == "Bearer token-one"
    assert fields["host"] == TARGET
    assert "heim-backend" not in fields
    assert watch.received == b"SSH-2.0-x\r\n"


async def test_a_detour_names_the_backend(home: Path, watch: Watch) -> None:
    write_login(home / "heim")
    with TunnelServer(greeting) as server:
        entrance = entrance_to(server, environ={"HEIM_PROXY": LOGIN_HOST})
        (await opened(entrance, watch)).finish()
        await watch.over.wait()
    fields = server.peers[0].fields
    assert (fields["host"], fields["heim-backend"]) == (LOGIN_HOST, TARGET)


async def test_a_token_that_is_over_is_replaced_once(home: Path, watch: Watch) -> None:
    write_login(home / "heim")

    def script(peer: Peer) -> None:
        line = peer.request()
        if line.startswith("POST /.heim/cli/token"):
            assert b"heim_rt_one" in peer.body
            peer.token_answer("token-two")
        elif peer.fields["authorization"] == "Bearer token-one":
            peer.problem(401, "unauthenticated", "this login was signed out")
        else:
            peer.upgrade()
            peer.goodbye()

    with TunnelServer(script) as server:
        (await opened(entrance_to(server), watch)).finish()
        await watch.over.wait()
        assert len(server.peers) == 3


@pytest.mark.parametrize(
    ("status", "code", "exit_status"),
    [(403, "forbidden", 77), (404, "no_such_target", 68), (502, "dial_refused", 69),
     (429, "busy", 75), (500, "internal", 70)],
)  # fmt: skip
async def test_a_refusal_is_told_in_the_proxys_words(
    status: int, code: str, exit_status: int, home: Path, watch: Watch
) -> None:
    write_login(home / "heim")

    def script(peer: Peer) -> None:
        peer.request()
        peer.problem(status, code, "the reason", hint="do this", request_id="01JTEST")

    with TunnelServer(script) as server:
        with pytest.raises(Complaint) as caught:
            await entrance_to(server).open(watch)
        assert len(server.peers) == 1
    assert caught.value.text == "the reason; do this (request 01JTEST)"
    assert caught.value.status == exit_status


async def test_a_login_host_that_stops_vouching_gets_nothing_sent(home: Path, watch: Watch) -> None:
    write_login(home / "heim")

    def script(peer: Peer) -> None:
        assert peer.request().startswith("POST /.heim/cli/token")
        peer.token_answer("token-two", domains=["elsewhere.test"])

    with TunnelServer(script) as server:
        entrance = entrance_to(server)
        write_login(home / "heim", access_expires=1)
        with pytest.raises(Complaint, match=f"does not vouch for {TARGET}") as caught:
            await entrance.open(watch)
    assert caught.value.status == 77


async def test_a_service_token_is_not_tried_twice(home: Path, watch: Watch) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@example.test")
    token.chmod(0o600)

    def script(peer: Peer) -> None:
        peer.request()
        assert peer.fields["authorization"] == "Bearer heim_st_1_secret"
        peer.problem(401, "unauthenticated", "this token was revoked")

    with TunnelServer(script) as server:
        with pytest.raises(Complaint, match="this token was revoked"):
            await entrance_to(server, token_file=token).open(watch)
        assert len(server.peers) == 1


async def test_a_service_token_that_is_for_other_hosts_now_is_not_sent(
    home: Path, watch: Watch
) -> None:
    """Whoever mounts it may replace it while we run."""
    token = home / "token"
    token.touch(mode=0o600)
    token.write_text("heim_st_1_secret@example.test")
    with TunnelServer(greeting) as server:
        entrance = entrance_to(server, token_file=token)
        token.write_text("heim_st_2_secret@example.org")
        with pytest.raises(Complaint, match=f"is not for {TARGET}") as caught:
            await entrance.open(watch)
        assert server.peers == []
    assert caught.value.status == 77


async def test_a_certificate_that_is_not_trusted_is_one_line(home: Path, watch: Watch) -> None:
    write_login(home / "heim")
    with TunnelServer(lambda peer: None) as server:
        way = Way(connect_to=Endpoint("127.0.0.1", server.port))
        with pytest.raises(Complaint, match="not trusted by the system"):
            await Entrance(Invocation(TARGET, way, environ={})).open(watch)


async def test_a_server_that_hangs_up_is_one_line(home: Path, watch: Watch) -> None:
    write_login(home / "heim")

    def script(peer: Peer) -> None:
        peer.request()

    with TunnelServer(script) as server:
        with pytest.raises(Complaint) as caught:
            await entrance_to(server).open(watch)
        assert caught.value.text


def test_without_a_token_there_is_no_entrance(home: Path) -> None:
    def script(peer: Peer) -> None:
        peer.request()
        assert "authorization" not in peer.fields
        peer.problem(401, "unauthenticated", "x", login_url=f"https://{LOGIN_HOST}")

    with TunnelServer(script) as server, pytest.raises(Complaint, match="not signed in"):
        entrance_to(server)


async def test_a_thread_gives_its_result_or_its_failure() -> None:
    assert await in_thread(lambda: 7) == 7
    with pytest.raises(Complaint, match="no"):
        await in_thread(refuse)


def refuse() -> int:
    raise Complaint("no")


async def test_nobody_waits_for_a_thread_that_is_not_wanted_any_more() -> None:
    go, made = threading.Event(), threading.Event()
    ours, theirs = socket.socketpair()

    def slow() -> socket.socket:
        made.set()
        go.wait(5)
        return ours

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await in_thread(slow)
    assert time.monotonic() - began < 2
    go.set()
    # The socket that came too late is closed.
    with theirs:
        theirs.settimeout(5)
        assert await asyncio.to_thread(theirs.recv, 1) == b""
