"""N: what goes on for long ends when the decision behind it ends, and costs what was agreed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import websockets.asyncio.client
import websockets.asyncio.server
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.heim import Answer, Wire, authority
from tests.fakes.upstream import Received, answer
from tests.hostile.world import (
    ALICE,
    ALL,
    BOB,
    SWITCHING,
    World,
    host,
    roles,
    websocket_head,
    within,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The promise (decision 2): everything ends within this many seconds.
PROMISE_S: Final = 2.0


async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
    try:
        async for message in connection:
            if message == "close":
                await connection.close(4123, "as asked")
            else:
                await connection.send(message)
    except ConnectionClosed:
        return


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """As everywhere, with a WebSocket server of somebody else's and a backend that ages."""
    directory: Path = tmp_path_factory.mktemp("live")
    server = await websockets.asyncio.server.serve(
        echo,
        "127.0.0.1",
        0,
        max_size=None,
        select_subprotocol=lambda _, offered: next((one for one in offered if "v2" in one), None),
    )
    url = f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
    extra = ({"name": "ws", "http": [{"path": "/", "upstream": url}], "permissions": [ALL]},)
    world = await World.start(directory, extra=extra)
    world.heim.document["backends"].append(
        {
            "name": "aged",
            "http": [{"path": "/", "upstream": world.upstream.url}],
            "permissions": [ALL],
            "max_session_age": "1h",
        }
    )
    await world.change(roles=roles("ws", "aged"))
    yield world
    await world.stop()
    server.close()
    await server.wait_closed()


# -- N2: the end of a decision is the end of what it allowed ------------------------------------


async def stays(
    received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes | None:
    """An upstream that never ends anything by itself."""
    kind = received.path
    if kind.startswith("/ws"):
        writer.write(SWITCHING)
        if kind == "/ws-in-frame":
            writer.write(b"\x82\x7e\x03\xe8" + b"x" * 10)
    elif kind == "/sse":
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"
        )
    elif kind == "/download":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
    elif kind == "/until-close":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
    elif kind == "/quick":
        return answer()
    while await reader.read(65536):
        pass
    return None


KINDS: Final = ("/ws", "/ws-in-frame", "/sse", "/download", "/until-close", "/upload", "/waiting")


class Stream:
    """One thing that goes on: opened, watched, and ended with a time."""

    def __init__(self, world: World, kind: str, at: str) -> None:
        self.world = world
        self.kind = kind
        self.at = at
        self.wire: Wire
        self.data = b""
        self.ended = 0.0
        self.since = 0.0
        self.reason = ""
        self._watch: asyncio.Task[None]

    async def open(self, cookie: str) -> Stream:
        self.wire = wire = await self.world.wire(self.at)
        if self.kind.startswith("/ws"):
            wire.send(websocket_head(self.kind, at=self.at, cookie=cookie))
            assert (await within(wire.answer())).status == 101
        else:
            method = "POST" if self.kind == "/upload" else "GET"
            length = "Content-Length: 1000000\r\n" if self.kind == "/upload" else ""
            wire.send(
                f"{method} {self.kind} HTTP/1.1\r\nHost: {host(self.at)}\r\nCookie: {cookie}\r\n"
                f"{length}\r\n".encode()
            )
            if self.kind == "/upload":
                wire.send(b"x" * 1000)
        self._watch = asyncio.ensure_future(self._read())
        return self

    async def _read(self) -> None:
        try:
            while data := await self.wire.reader.read(65536):
                self.data += data
                if b"problem+json" in self.data and self.data.endswith(b"}"):
                    break
        except (ConnectionError, ssl.SSLError):
            pass
        self.ended = time.monotonic()

    @property
    def over(self) -> bool:
        return bool(self.ended)

    def check(self, reason: str) -> None:
        """What the client was told is the reason, or at least that it is not complete."""
        if self.kind == "/ws":
            text = f"heim: {reason}".encode()
            code = (4401).to_bytes(2, "big")
            assert self.data == bytes((0x88, 2 + len(text))) + code + text
        elif self.kind in ("/upload", "/waiting"):
            status = {"policy_changed": 403, "backend_removed": 404}.get(reason, 401)
            assert self.data.startswith(b"HTTP/1.1 %d " % status)
            assert reason.encode() in self.data
        else:
            assert b"\r\n0\r\n\r\n" not in self.data
            assert len(self.data) < 3000


async def open_all(world: World, session: Session, at: str) -> list[Stream]:
    world.upstream.script = stays
    cookie = world.heim.cookie(session, host(at))
    streams = [await Stream(world, kind, at).open(cookie) for kind in KINDS]
    await world.heim.until(lambda: len(session.live) == len(KINDS))
    await world.heim.until(lambda: len({one.path for one in world.sent}) >= len(KINDS))
    return streams


@contextlib.asynccontextmanager
async def changed(world: World, **keys: Any) -> AsyncIterator[None]:
    """Another configuration for a while."""
    before = {key: world.heim.document[key] for key in keys}
    await world.heim.change(**keys)
    try:
        yield
    finally:
        await world.change(**before)


async def bystander(world: World) -> Wire:
    """Somebody whom all this does not concern."""
    world.upstream.script = stays
    cookie = await world.cookie(BOB, "plain")
    wire = await world.wire("plain")
    wire.send(websocket_head("/ws", at="plain", cookie=cookie))
    assert (await within(wire.answer())).status == 101
    return wire


def still_open(wire: Wire) -> bool:
    return not wire.reader.at_eof() and not wire.writer.transport.is_closing()


async def revoke_elsewhere(world: World, session: Session) -> str:
    """What `heim-proxy session revoke` does, in another process."""
    store = SqliteStore(world.heim.directory / "state" / "state.db")
    await store.open()
    assert await store.end_session(session.sid, reason="revoked", now=time.time())
    await store.close()
    return "revoked"


async def log_out(world: World, session: Session) -> str:
    sessions = world.heim.proxy._sessions
    assert sessions is not None
    await sessions.end(session.sid, EndReason.LOGOUT, time.time())
    return "logout"


async def expire(world: World, session: Session) -> str:
    session.limit(time.time() - session.created)
    return "expired"


async def fall_idle(world: World, session: Session) -> str:
    session.last_seen -= 9 * 3600
    return "idle"


CAUSES: Final[dict[str, Callable[[World, Session], Awaitable[str]]]] = {
    "revoked-by-another-process": revoke_elsewhere,
    "logout": log_out,
    "expiry": expire,
    "idle": fall_idle,
}


async def test_N2_everything_of_a_session_ends_with_it(world: World) -> None:
    """Every way to end a session, at the same time, each for a session of its own."""
    other = await bystander(world)
    sessions = {cause: await world.heim.session(ALICE) for cause in CAUSES}
    streams = {cause: await open_all(world, one, "app") for cause, one in sessions.items()}
    for cause, end in CAUSES.items():
        since = time.monotonic()
        reason = await end(world, sessions[cause])
        for stream in streams[cause]:
            stream.since, stream.reason = since, reason
    every = [stream for group in streams.values() for stream in group]
    await world.heim.until(lambda: all(stream.over for stream in every), PROMISE_S + 2)
    for stream in every:
        assert stream.ended - stream.since <= PROMISE_S, (stream.kind, stream.reason)
        stream.check(stream.reason)
    # The upstreams were told, too: only the bystander is left.
    await world.heim.until(lambda: world.live == 1)
    await world.heim.until(lambda: world.upstream.open == 1)
    assert still_open(other)
    for session in sessions.values():
        found = await world.get("/quick", cookie=world.heim.cookie(session, host("app")))
        assert found.status == 401


async def test_N2_a_session_that_is_too_old_for_a_backend_ends_there_only(world: World) -> None:
    session = await world.heim.session(ALICE, auth_time=time.time() - 3600 + 0.9)
    streams = await open_all(world, session, "aged")
    elsewhere = await Stream(world, "/ws", "app").open(world.heim.cookie(session, host("app")))
    since = time.monotonic() + (session.auth_time + 3600 - time.time())
    await world.heim.until(lambda: all(stream.over for stream in streams), PROMISE_S + 3)
    for stream in streams:
        assert stream.ended - since <= PROMISE_S, stream.kind
        stream.check("session_too_old")
    assert not elsewhere.over
    cookie = world.heim.cookie(session, host("aged"))
    assert (await world.get("/quick", at="aged", cookie=cookie)).status == 401


async def test_N2_a_policy_that_no_longer_allows_ends_what_it_allowed(world: World) -> None:
    session = await world.heim.session(ALICE)
    streams = await open_all(world, session, "app")
    other = await bystander(world)
    without = [
        {**role, "members": []} if role["name"] == "staff" else role
        for role in world.heim.document["roles"]
    ]
    since = time.monotonic()
    async with changed(world, roles=without):
        await world.heim.until(lambda: all(stream.over for stream in streams), PROMISE_S + 2)
        for stream in streams:
            assert stream.ended - since <= PROMISE_S, stream.kind
            stream.check("policy_changed")
        assert still_open(other)
    # The session itself is untouched.
    cookie = world.heim.cookie(session, host("app"))
    assert (await world.get("/quick", cookie=cookie)).status == 200


async def test_N2_a_backend_that_is_removed_takes_its_streams_with_it(world: World) -> None:
    session = await world.heim.session(ALICE)
    streams = await open_all(world, session, "two")
    document = world.heim.document
    backends, roles_ = document["backends"], document["roles"]
    less = [one for one in backends if one["name"] != "two"]
    bound = [
        {**role, "bindings": [one for one in role["bindings"] if one["backend"] != "two"]}
        for role in roles_
    ]
    since = time.monotonic()
    async with changed(world, backends=less, roles=bound):
        await world.heim.until(lambda: all(stream.over for stream in streams), PROMISE_S + 2)
        for stream in streams:
            assert stream.ended - since <= PROMISE_S, stream.kind
            stream.check("backend_removed")
        assert (await world.heim.request("/", host=host("two"))).status == 404


async def test_N4_a_change_that_still_allows_ends_nothing(world: World) -> None:
    session = await world.heim.session(ALICE)
    streams = await open_all(world, session, "app")
    public = await Stream(world, "/sse", "open").open("a=b")
    await world.change(drain="2s")
    await asyncio.sleep(0.7)
    assert not [stream.kind for stream in [*streams, public] if stream.over]
    await log_out(world, session)
    await world.heim.until(lambda: all(stream.over for stream in streams))


async def test_N2_a_client_that_does_not_read_is_closed_all_the_same(world: World) -> None:
    """It gets no second of grace by leaving its receive buffer full."""

    async def floods(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        writer.write(SWITCHING)
        frame = b"\x82\x7e\xff\xff" + b"x" * 65535
        while True:
            writer.write(frame)
            await writer.drain()

    world.upstream.script = floods
    session = await world.heim.session(ALICE)
    wire = await world.wire()
    wire.send(websocket_head("/flood", cookie=world.heim.cookie(session, host("app"))))
    await within(wire.answer())
    await asyncio.sleep(0.3)
    since = time.monotonic()
    await log_out(world, session)
    await world.heim.until(lambda: not session.live, PROMISE_S)
    await world.heim.until(lambda: world.upstream.open <= 1, PROMISE_S)
    assert time.monotonic() - since <= PROMISE_S


async def test_N2_a_shutdown_tells_why(tmp_path: Path) -> None:
    world = await World.start(tmp_path)
    try:
        session = await world.heim.session(ALICE)
        world.upstream.script = stays
        cookie = world.heim.cookie(session, host("app"))
        socket = await Stream(world, "/ws", "app").open(cookie)
        waiting = await Stream(world, "/waiting", "app").open(cookie)
        await world.heim.until(lambda: len(session.live) == 2)
        await within(world.heim.proxy.drain(), 4)
        await world.heim.until(lambda: socket.over and waiting.over)
        assert socket.data[:4] == b"\x88" + bytes((len(socket.data) - 2,)) + (1001).to_bytes(
            2, "big"
        )
        assert waiting.data.startswith(b"HTTP/1.1 503 ")
    finally:
        await world.stop()


# -- handshakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("https://evil.test", 403, id="N1"),
        pytest.param("https://two.example.test", 403, id="N1-sibling"),
        pytest.param("https://app.example.test.evil.test", 403, id="N1-suffix"),
        pytest.param("https://evil-app.example.test", 403, id="N1-prefix"),
        pytest.param("http://app.example.test", 403, id="N1-http"),
        pytest.param("https://app.example.test:8443", 403, id="N1-port"),
        pytest.param("null", 403, id="N1-null"),
        pytest.param(None, 403, id="N1-missing"),
        pytest.param("", 403, id="N1-empty"),
        pytest.param("same", 101, id="N1-own"),
    ],
)
async def test_a_websocket_is_opened_by_our_own_pages_only(
    world: World, origin: str | None, status: int
) -> None:
    world.upstream.script = stays
    wire = await world.wire()
    wire.send(websocket_head("/ws", cookie=await world.cookie(ALICE), origin=origin))
    assert (await within(wire.answer())).status == status
    assert len(world.sent) == (status == 101)


async def test_N1_a_second_origin_does_not_excuse_the_first(world: World) -> None:
    wire = await world.wire()
    own = f"Origin: https://{host('app')}\r\n"
    cookie = await world.cookie(ALICE)
    wire.send(websocket_head("/ws", cookie=cookie, origin="https://evil.test", extra=own))
    assert (await within(wire.answer())).status == 403
    wire = await world.wire()
    head = websocket_head("/ws", cookie=cookie, origin="https://evil.test")
    wire.send(head.replace(b"Connection: Upgrade", b"Connection: Upgrade, Origin"))
    assert (await within(wire.answer())).status == 403
    world.untouched()


async def test_N6_an_upgrade_without_a_session_is_401_and_not_a_redirect(world: World) -> None:
    for extra in ("", "Accept: text/html\r\n", "Sec-Fetch-Mode: navigate\r\n"):
        wire = await world.wire()
        wire.send(websocket_head("/ws", extra=extra))
        found: Answer = await within(wire.answer())
        assert (found.status, found.get("location")) == (401, None)
        assert found.all("set-cookie") == []
    world.untouched()


# -- N3: a WebSocket is a WebSocket -------------------------------------------------------------


async def connect(world: World, **more: Any) -> websockets.asyncio.client.ClientConnection:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return await websockets.asyncio.client.connect(
        f"wss://{host('ws')}/chat",
        host="127.0.0.1",
        port=world.heim.https_port,
        ssl=context,
        origin=f"https://{host('ws')}",  # type: ignore[arg-type]
        additional_headers={"Cookie": await world.cookie(ALICE, "ws")},
        max_size=None,
        **more,
    )


async def test_N3_messages_of_every_kind_and_size_pass(world: World) -> None:
    socket = await connect(world, subprotocols=["chat.v1", "chat.v2"])
    assert socket.subprotocol == "chat.v2"
    for message in ("", "text äöü", b"", b"\x00\xff" * 100, "x" * 70_000):
        await socket.send(message)
        assert await within(socket.recv()) == message
    big = b"0123456789" * 1_000_000
    await socket.send(big)
    assert await within(socket.recv(), 20) == big
    await within(await socket.ping())
    await socket.send([b"in ", b"pieces"])
    assert await within(socket.recv()) == b"in pieces"
    await socket.close()


async def test_N3_close_codes_pass_in_both_directions(world: World) -> None:
    socket = await connect(world)
    await socket.send("close")
    with pytest.raises(ConnectionClosed) as closed:
        await within(socket.recv())
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4123, "as asked")
    socket = await connect(world)
    await within(socket.close(4001, "mine"))
    assert socket.close_code == 4001


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_N7_compression_is_between_the_two_ends(
    world: World, compression: str | None
) -> None:
    socket = await connect(world, compression=compression)
    names = [extension.name for extension in socket.protocol.extensions]
    assert names == (["permessage-deflate"] if compression else [])
    await socket.send("x" * 10_000)
    assert await within(socket.recv()) == "x" * 10_000
    await socket.close()


async def test_N2_a_real_client_sees_4401_and_the_reason(world: World) -> None:
    session = await world.heim.session(ALICE)
    context = ssl.create_default_context()
    authority().configure_trust(context)
    socket = await websockets.asyncio.client.connect(
        f"wss://{host('ws')}/",
        host="127.0.0.1",
        port=world.heim.https_port,
        ssl=context,
        origin=f"https://{host('ws')}",  # type: ignore[arg-type]
        additional_headers={"Cookie": world.heim.cookie(session, host("ws"))},
    )
    await socket.send("hello")
    await within(socket.recv())
    await revoke_elsewhere(world, session)
    with pytest.raises(ConnectionClosed) as closed:
        await within(socket.recv(), PROMISE_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4401, "heim: revoked")
    assert socket.state is State.CLOSED


# -- N8, S6: nobody makes us hold what he does not take -------------------------------------------


async def test_N8_a_slow_reader_stalls_the_upstream(world: World) -> None:
    taken = 0

    async def floods(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        nonlocal taken
        size = 256 * 1024 * 1024
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        while taken < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            taken += 65536
        return b""

    world.upstream.script = floods
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    wire.send(f"GET / HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n\r\n".encode())
    await within(wire.reader.readuntil(b"\r\n\r\n"))
    await asyncio.sleep(0.4)
    stalled = taken
    await asyncio.sleep(0.3)
    # Kernel buffers of both connections and ours: some megabytes, and no more of them.
    assert taken - stalled <= 1024 * 1024
    assert taken < 32 * 1024 * 1024
    for front in world.heim.proxy._edge._fronts:  # type: ignore[union-attr]
        assert front.transport.get_write_buffer_size() < 1024 * 1024
