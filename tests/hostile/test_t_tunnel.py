"""T: the tunnel's door and what comes through it; N1, I14, I15, O1-O3, O11, R1 for streams.

The credentials are a bearer token and nothing else; before 101 nothing is dialled that policy did
not allow; after 101 the client is as untrusted as before.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from heim_proxy.edge.admission import Limits
from heim_proxy.edge.limits import DIAL_BUFFER_BYTES, HEAD_S
from heim_proxy.tunnel.streams import TunnelStream
from heim_wire.errors import Code
from heim_wire.frames import CRITICAL, HEAD, MAX_DATA, Type, plain_frame
from tests.fakes.heim import DOMAIN, Answer, Wire
from tests.fakes.tunnel import (
    PATH,
    Login,
    TcpServer,
    TunnelClient,
    cli_login,
    refused,
    tcp_backend,
    tunnel_head,
    tunnel_role,
)
from tests.hostile.world import ALICE, ALL, BOB, LOGIN_HOST, World, host, roles, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

SSH: Final = host("ssh")
HELLO: Final = plain_frame(Type.HELLO, 0, b'{"v":[1]}')
# Seconds from a frame that breaks the protocol to the end of its connection.
SOON_S: Final = 2.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh() -> AsyncIterator[TcpServer]:
    """What is behind the backends `ssh` (alice's) and `vault` (nobody's)."""
    server = await TcpServer().start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(
    tmp_path_factory: pytest.TempPathFactory, ssh: TcpServer
) -> AsyncIterator[World]:
    """As everywhere, with streams to an echo, and one that nobody may have."""
    directory: Path = tmp_path_factory.mktemp("tunnel")
    world = await World.start(directory)
    both = tcp_backend("both", ssh.address)
    both |= {"http": [{"path": "/", "upstream": world.upstream.url}], "permissions": [ALL]}
    streams = [tcp_backend("ssh", ssh.address), tcp_backend("vault", ssh.address)]
    world.heim.document["backends"] += [*streams, both]
    await world.change(roles=[*roles("both"), tunnel_role("connects", "ssh")])
    yield world
    await world.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def alice(world: World, ssh: TcpServer) -> Login:
    """Alice's login; nothing has been dialled yet."""
    ssh.total = 0
    ssh.received.clear()
    ssh.ended = ""
    return await cli_login(world.heim, ALICE)


async def stream_of(world: World, alice: Login, **keys: Any) -> TunnelClient:
    return await TunnelClient.connect(world.heim, alice.token(), host=SSH, **keys)


def refusal_of(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


# -- whose credentials count --------------------------------------------------------------------


@pytest.mark.parametrize("origin", [None, f"https://{SSH}", "https://evil.test", "null"])
async def test_T1_a_cookie_opens_no_stream(
    world: World, alice: Login, ssh: TcpServer, origin: str | None
) -> None:
    for at in ("ssh", "app"):
        cookie = await world.cookie(ALICE, at)
        extra = (f"Cookie: {cookie}", *([f"Origin: {origin}"] if origin else []))
        head = tunnel_head(None, host=host(at), extra=extra)
        answer, problem = await refused(world.heim, head, sni=host(at))
        assert (answer.status, problem["code"]) == (401, "unauthenticated")
        assert not answer.all("set-cookie")
    assert ssh.total == 0


@pytest.mark.parametrize("origin", ["https://evil.test", "null", f"https://{SSH}"])
async def test_N1_an_origin_neither_helps_nor_hurts_a_bearer_token(
    world: World, alice: Login, origin: str
) -> None:
    client = await stream_of(world, alice, extra=(f"Origin: {origin}", "Cookie: a=b"))
    client.send(b"ping")
    assert await client.read(4) == b"ping"
    client.abort()


@pytest.mark.parametrize("name", ["token", "access_token", "authorization"])
async def test_T2_a_token_in_the_query_is_refused_and_not_written_down(
    world: World, alice: Login, ssh: TcpServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = alice.token()
    for given in (None, token):
        head = tunnel_head(given, host=SSH, path=f"{PATH}?{name}={token}")
        answer, problem = await refused(world.heim, head, sni=SSH)
        assert (answer.status, problem["code"]) == (400, "protocol")
        assert token not in answer.body.decode()
        await world.heim.until(lambda: problem["request_id"] in world.heim.log.read_text())  # noqa: B023
    assert token not in world.heim.log.read_text()
    assert not [one for one in caplog.records if token in str(vars(one))]
    assert ssh.total == 0


@pytest.mark.parametrize("header", ["Proxy-Authorization", "X-Auth-Token", "X_Authorization"])
async def test_T3_a_token_under_another_name_is_none(
    world: World, alice: Login, header: str
) -> None:
    head = tunnel_head(None, host=SSH, extra=(f"{header}: Bearer {alice.token()}",))
    answer, _ = await refused(world.heim, head, sni=SSH)
    assert answer.status == 401


async def test_I14_what_upstreams_are_told_is_no_token(world: World, alice: Login) -> None:
    await world.as_alice("/", at="app")
    assertion = world.only().get("x-auth-token")
    assert assertion is not None
    answer, problem = await refused(world.heim, tunnel_head(assertion, host=SSH), sni=SSH)
    assert (answer.status, problem["code"]) == (401, "unauthenticated")
    assert assertion not in answer.body.decode()


async def test_I15_a_tunnels_token_is_none_for_pages(world: World, alice: Login) -> None:
    token = alice.token()
    answer = await world.get("/", at="app", headers=(("Authorization", f"Bearer {token}"),))
    assert answer.status == 401
    answer = await world.get("/", at="app", cookie=f"__Host-heim={token}")
    assert answer.status == 401
    world.untouched()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: token[:-2] + ("AA" if token[-2:] != "AA" else "BB"),
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.rpartition(".")[0],
        lambda token: "eyJhbGciOiJub25lIn0." + token.split(".")[1] + ".",
        lambda token: token + ".",
        lambda token: "." * 3000,
        lambda token: "heim_st_x_y",
        lambda token: "heim_rt_x_y_z",
    ],
    ids=["bit", "no signature", "two parts", "none", "more", "dots", "service", "refresh"],
)
async def test_T4_a_spoilt_token_is_401(world: World, alice: Login, spoil: Any) -> None:
    answer, problem = await refused(
        world.heim, tunnel_head(spoil(alice.token()), host=SSH), sni=SSH
    )
    assert (answer.status, problem["code"]) == (401, "unauthenticated")
    assert problem.get("login_url") in (None, f"https://{LOGIN_HOST}")


async def test_T5_a_revoked_login_opens_nothing_with_a_token_that_is_still_young(
    world: World, alice: Login, ssh: TcpServer
) -> None:
    from heim_proxy.live import EndReason

    token = alice.token()
    sessions = world.heim.proxy._sessions
    assert sessions is not None
    await sessions.end(alice.session.sid, EndReason.REVOKED, alice.heim.proxy._clock.now())
    answer, _ = await refused(world.heim, tunnel_head(token, host=SSH), sni=SSH)
    assert answer.status == 401
    assert ssh.total == 0


# -- where it may lead ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "named", "status"),
    [
        pytest.param(host("vault"), None, 403, id="not hers"),
        pytest.param(LOGIN_HOST, "vault", 403, id="not hers, by name"),
        pytest.param(host("both"), None, 403, id="hers over http only"),
        pytest.param(SSH, "vault", 400, id="host and name differ"),
        pytest.param(LOGIN_HOST, "127.0.0.1:22", 404, id="an address"),
        pytest.param(LOGIN_HOST, "169.254.169.254", 404, id="the metadata service"),
        pytest.param(LOGIN_HOST, "[::1]:22", 404, id="an IPv6 address"),
        pytest.param(LOGIN_HOST, "unix:/run/docker.sock", 404, id="a socket"),
        pytest.param(LOGIN_HOST, "ssh/../vault", 404, id="a path"),
        pytest.param(LOGIN_HOST, "ssh, vault", 404, id="a list"),
        pytest.param(LOGIN_HOST, "ssh\tvault", 404, id="a tab"),
        pytest.param(LOGIN_HOST, "SSH", 404, id="another case"),
        pytest.param(LOGIN_HOST, "x" * 8000, 404, id="very long"),
        pytest.param(host("app"), None, 404, id="http only"),
        pytest.param(host("app"), "ssh", 400, id="an http host names a tcp backend"),
        pytest.param(f"nobody.{DOMAIN}", "ssh", 404, id="a host of nobody's"),
    ],
)
async def test_O1_only_what_is_configured_and_allowed_is_dialled(
    world: World, alice: Login, ssh: TcpServer, at: str, named: str | None, status: int
) -> None:
    head = tunnel_head(alice.token(), host=at, backend=named)
    answer, _ = await refused(world.heim, head, sni=at)
    assert answer.status == status
    assert answer.body.decode().isprintable()
    assert len(answer.body) < 2048
    assert ssh.total == 0
    world.untouched()


async def test_O11_nobodys_streams_are_not_bobs(world: World, ssh: TcpServer) -> None:
    ssh.total = 0
    bob = await cli_login(world.heim, BOB)
    for at in ("ssh", "vault", "both"):
        answer, problem = await refused(
            world.heim, tunnel_head(bob.token(), host=host(at)), sni=host(at)
        )
        assert (answer.status, problem["code"]) == (403, "forbidden")
        assert "alice" not in answer.body.decode()
    answer, problem = await refused(
        world.heim, tunnel_head(bob.token(), host=LOGIN_HOST, backend="sssh"), sni=LOGIN_HOST
    )
    assert "did you mean" not in problem["detail"]
    assert ssh.total == 0


async def test_O1_http_permissions_open_no_streams_and_streams_no_pages(
    world: World, alice: Login
) -> None:
    answer = await world.as_alice("/", at="ssh")
    assert answer.status == 404
    answer = await world.as_alice("/", at="both")
    assert answer.status == 200


# -- before 101 -----------------------------------------------------------------------------------


async def test_T6_what_hides_behind_a_refused_request_is_not_served(
    world: World, alice: Login
) -> None:
    hidden = f"GET /hidden HTTP/1.1\r\nHost: {host('open')}\r\n\r\n".encode()
    for token in (None, "spoilt"):
        wire = await world.wire("ssh")
        wire.send(tunnel_head(token, host=SSH) + hidden)
        assert (await within(wire.answer())).status == 401
        assert await wire.closed() == b""
    world.untouched()
    assert "hidden" not in world.heim.log.read_text()


async def test_T7_what_comes_before_101_is_the_streams_and_bounded(
    world: World, alice: Login, ssh: TcpServer
) -> None:
    hidden = f"GET /hidden HTTP/1.1\r\nHost: {host('open')}\r\n\r\n".encode()
    wire = await world.wire("ssh")
    wire.send(tunnel_head(alice.token(), host=SSH) + hidden)
    answer = await within(wire.answer())
    assert answer.status == 101
    # It is no frame of a client's: the stream ends, and nothing of it reached anybody.
    await world.heim.until(lambda: world.live == 0)
    assert not ssh.received
    world.untouched()


async def test_T7_megabytes_before_101_wait_with_the_client(world: World, alice: Login) -> None:
    edge = world.heim.proxy._edge
    assert edge is not None
    door: Any = edge.door.at(PATH.encode())
    bearers, release = door.bearers, asyncio.Event()

    class Slow:
        async def authenticate(self, token: str, now: float) -> Any:
            await release.wait()
            return await bearers.authenticate(token, now)

    door.bearers = Slow()
    try:
        wire = await world.wire("ssh")
        wire.send(tunnel_head(alice.token(), host=SSH) + bytes(8 * 1024 * 1024))
        await world.heim.until(lambda: any(one.gate.holds for one in edge._fronts))
        await asyncio.sleep(0.1)
        (front,) = edge._fronts
        early: Any = front.exchange
        assert early._early._size <= DIAL_BUFFER_BYTES + 256 * 1024
        assert not front._buffer
    finally:
        release.set()
        door.bearers = bearers
    await world.heim.until(lambda: world.live == 0 and not edge._fronts)


@pytest.mark.parametrize("header", ["Transfer-Encoding: chunked", "Content-Length: 30"])
async def test_T8_a_request_with_a_body_is_no_handshake(
    world: World, alice: Login, ssh: TcpServer, header: str
) -> None:
    wire = await world.wire("ssh")
    wire.send(tunnel_head(alice.token(), host=SSH, extra=(header,)) + b"0\r\n\r\n")
    assert refusal_of(await within(wire.answer())) == (400, "protocol")
    assert await world.shut(wire) == b""
    assert ssh.total == 0


async def test_T9_http_1_0_is_no_handshake(world: World, alice: Login) -> None:
    head = tunnel_head(alice.token(), host=SSH).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n")
    answer, _ = await refused(world.heim, head, sni=SSH)
    assert answer.status == 426


async def test_T10_half_a_request_is_408_and_connections_are_counted_as_any(
    world: World, alice: Login
) -> None:
    proxy = world.heim.proxy
    admission = proxy._listening._listeners[0][1]._admission
    limits, most = admission._limits, admission.connections + 40
    admission._limits = Limits(connections=most, per_client=2000)
    try:
        half = tunnel_head(alice.token(), host=SSH)[:-2]
        wires: list[Wire] = []
        for _ in range(40):
            wire = await world.wire("ssh")
            wire.send(half)
            wires.append(wire)
        with pytest.raises(OSError):
            await world.wire("ssh")
        edge = proxy._edge
        assert edge is not None
        await world.heim.until(
            lambda: sum(one._deadline_kind == "head" for one in edge._fronts) >= 40
        )
        world.sweep(HEAD_S + 1)
        answers = [await within(wire.answer()) for wire in wires]
        assert {answer.status for answer in answers} == {408}
    finally:
        admission._limits = limits


# -- after 101 ------------------------------------------------------------------------------------


def head(kind: int, length: int, stream: int = 0, *, flags: int = 0) -> bytes:
    return HEAD.pack(kind, flags, length, stream)


def masked(first: int, payload: bytes, *, length: bytes | None = None) -> bytes:
    """One WebSocket frame, masked with zeros."""
    size = length if length is not None else bytes((0x80 | len(payload),))
    return bytes((first,)) + size + bytes(4) + payload


WRONG_FRAMES: Final = {
    "not masked": b"\x82\x04" + HELLO[:4],
    "text": masked(0x81, b"hello"),
    "reserved bit": masked(0xC2, b"x"),
    "reserved opcode": masked(0x83, b"x"),
    "reserved control": masked(0x8B, b""),
    "fragmented ping": masked(0x09, b""),
    "long ping": masked(0x89, b"x" * 126, length=b"\xfe\x00\x7e"),
    "continuation of nothing": masked(0x80, b"x"),
    "new message in the middle": masked(0x02, b"x") + masked(0x82, b"y"),
    "length of 2**63": masked(0x82, b"", length=b"\xff" + b"\xff" * 8),
    "close with one byte": masked(0x88, b"x"),
    "close with a reserved code": masked(0x88, (1005).to_bytes(2, "big")),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}

WRONG_SESSIONS: Final = {
    "data before hello": head(Type.DATA, 4, 1) + b"evil",
    "nonsense before hello": b"\xff" * 64,
    "hello twice": HELLO + HELLO,
    "hello without our version": plain_frame(Type.HELLO, 0, b'{"v":[9]}'),
    "hello that is no json": plain_frame(Type.HELLO, 0, b"{[(<"),
    "hello that is a list": plain_frame(Type.HELLO, 0, b"[1]"),
    "hello with a key twice": plain_frame(Type.HELLO, 0, b'{"v":[1],"v":[2]}'),
    "hello nested deeply": plain_frame(Type.HELLO, 0, b'{"v":' + b"[" * 2000 + b"]" * 2000 + b"}"),
    "hello of 65535 bytes": head(Type.HELLO, 65_535),
    "hello on a stream": HEAD.pack(Type.HELLO, 0, 9, 1) + b'{"v":[1]}',
    "unknown and critical": HELLO + head(99, 0, flags=CRITICAL),
    "ready from a client": HELLO + plain_frame(Type.READY, 0, b"{}"),
    "ping of 7 bytes": HELLO + head(Type.PING, 7) + b"1234567",
    "window of 3 bytes": HELLO + head(Type.WINDOW, 3, 1) + b"123",
    "reset of 1 byte": HELLO + head(Type.RESET, 1, 1) + b"1",
    "eof with a payload": HELLO + head(Type.EOF, 1, 1) + b"1",
    "notice of 65535 bytes": HELLO + head(Type.NOTICE, 65_535),
    "auth that is no json": HELLO + plain_frame(Type.AUTH, 0, b"token"),
    "auth of 4097 bytes": HELLO + head(Type.AUTH, 4097),
    "open with the proxy's parity (18)": HELLO + plain_frame(Type.OPEN, 2, b"{}"),
    "open of a number in use (18)": HELLO + plain_frame(Type.OPEN, 1, b"{}"),
    "open of a number again (18)": HELLO + plain_frame(Type.OPEN, 3, b"{}") * 2,
    "open of a smaller number (18)": HELLO
    + plain_frame(Type.OPEN, 7, b"{}")
    + plain_frame(Type.OPEN, 5, b"{}"),
    "open of the session (18)": HELLO + plain_frame(Type.OPEN, 0, b"{}"),
    "a storm of pings": HELLO + plain_frame(Type.PING, 0, b"12345678") * 20_000,
    "a storm of notices": HELLO + plain_frame(Type.NOTICE, 0, b"x") * 20_000,
    "a storm of unknown streams": HELLO + plain_frame(Type.EOF, 3, b"") * 20_000,
}

# These are one stream's mistake, which ends the stream and what is behind it.
WRONG_STREAMS: Final = {
    "eof twice (17)": plain_frame(Type.EOF, 1, b"") * 2,
    "data after eof (17)": plain_frame(Type.EOF, 1, b"") + head(Type.DATA, 4, 1) + b"evil",
    "accept from the client": plain_frame(Type.ACCEPT, 1, b"{}"),
    "more credit than there is (16)": plain_frame(Type.WINDOW, 1, b"\xff" * 4) * 2,
}

# These end the stream, or nothing, but not the session's good order.
HARMLESS_SESSIONS: Final = {
    "unknown and not critical": HELLO + head(99, 4) + b"abcd",
    "data for another stream": HELLO + head(Type.DATA, 4, 3) + b"evil",
    "eof for another stream": HELLO + plain_frame(Type.EOF, 5, b""),
    "reset of another stream": HELLO + plain_frame(Type.RESET, 7, b"\x00\x01"),
    "empty data": HELLO + head(Type.DATA, 0, 1) * 10,
    "another stream": HELLO + plain_frame(Type.OPEN, 3, b'{"target":"127.0.0.1:22"}'),
    "a notice with escapes": HELLO + plain_frame(Type.NOTICE, 0, b"\x1b]0;evil\x07"),
    "goaway": HELLO + plain_frame(Type.GOAWAY, 0, b"\x00\x0c" + bytes(12)),
    "auth with strange members": HELLO + plain_frame(Type.AUTH, 0, b'{"kind":["bearer"]}'),
    "auth without a token": HELLO + plain_frame(Type.AUTH, 0, b'{"kind":"bearer","token":7}'),
    "hello in single bytes": HELLO,
}


async def running(world: World, alice: Login) -> TunnelClient:
    client = await stream_of(world, alice, silent=True)
    await world.heim.until(lambda: world.live == 1)
    return client


async def ended(world: World, client: TunnelClient, ssh: TcpServer) -> None:
    """The connection is over, and nothing that was wrong reached the upstream."""
    await client.over(SOON_S)
    await world.heim.until(lambda: world.live == 0 and ssh.open == 0)
    assert b"evil" not in ssh.received
    assert ssh.ended != "eof"


@pytest.mark.parametrize("data", WRONG_FRAMES.values(), ids=WRONG_FRAMES)
async def test_O2_what_is_no_frame_of_a_clients_ends_the_connection(
    world: World, alice: Login, ssh: TcpServer, data: bytes
) -> None:
    client = await running(world, alice)
    client.wire.send(data)
    await ended(world, client, ssh)


@pytest.mark.parametrize("data", WRONG_SESSIONS.values(), ids=WRONG_SESSIONS)
async def test_O2_what_breaks_the_protocol_ends_the_connection_and_says_so(
    world: World, alice: Login, ssh: TcpServer, data: bytes
) -> None:
    client = await running(world, alice)
    for start in range(0, len(data), 60_000):
        client.frame(data[start : start + 60_000])
    await ended(world, client, ssh)
    assert client.close is not None
    assert client.close.code in (1002, 1008)
    if client.goaway is None:
        # There was no room for it behind the answers to so many.
        assert data == WRONG_SESSIONS["a storm of pings"]
    else:
        assert client.goaway.code in (Code.PROTOCOL, Code.FLOW)


@pytest.mark.parametrize("data", WRONG_STREAMS.values(), ids=WRONG_STREAMS)
async def test_O2_a_mistake_about_a_stream_ends_the_stream(
    world: World, alice: Login, ssh: TcpServer, data: bytes
) -> None:
    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The upstream has not said its last word, so half of the stream is still there."""
        ssh.received += await reader.read()
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.01)

    ssh.script = goes_on
    try:
        client = await running(world, alice)
        client.frame(HELLO + data)
        await client.until(lambda: client.reset)
        assert client.reset is not None
        assert client.reset.code in (Code.PROTOCOL, Code.FLOW)
        assert not client.ended
        # At once, and not when the client leaves.
        await world.heim.until(lambda: ssh.ended == "reset" and ssh.open == 0)
    finally:
        ssh.script = None
    client.abort()
    await world.heim.until(lambda: world.live == 0)
    assert b"evil" not in ssh.received


async def test_26_a_storm_of_the_carriages_own_pings_is_answered_sparsely(
    world: World, alice: Login, ssh: TcpServer
) -> None:
    """RFC 6455, 5.5.3: the newest that came is answered; the stream goes on."""
    wire = await world.wire("ssh")
    wire.send(tunnel_head(alice.token(), host=SSH))
    assert (await within(wire.answer())).status == 101
    pings, size = 20_000, 120
    for _ in range(pings // 50):
        wire.send(masked(0x89, b"x" * size) * 50)
        await wire.writer.drain()
    wire.send(masked(0x82, HELLO) + masked(0x82, head(Type.DATA, 4, 1) + b"ping"))
    heard = await within(wire.reader.readuntil(b"ping"))
    assert heard.count(b"x" * size) < pings / 5
    wire.close()


@pytest.mark.parametrize("data", HARMLESS_SESSIONS.values(), ids=HARMLESS_SESSIONS)
async def test_O2_what_means_nothing_changes_nothing(
    world: World, alice: Login, ssh: TcpServer, data: bytes
) -> None:
    client = await running(world, alice)
    for byte in data:
        client.frame(bytes((byte,)))
    client.frame(head(Type.DATA, 4, 1) + b"ping")
    assert await client.read(4) == b"ping"
    assert ssh.received == b"ping"
    client.abort()


async def test_O3_more_than_the_window_allows_ends_the_stream(
    world: World, alice: Login, ssh: TcpServer
) -> None:
    go_on = asyncio.Event()

    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()

    ssh.script = stalled
    try:
        client = await running(world, alice)
        client.frame(HELLO)
        frame = head(Type.DATA, MAX_DATA, 1) + bytes(MAX_DATA)
        # It takes all it can get: the window, and all buffers behind it.
        for _ in range(600):
            client.frame(frame)
        await client.until(lambda: client.reset or client.gone)
        assert client.reset is not None
        assert client.reset.code == Code.FLOW
    finally:
        go_on.set()
        ssh.script = None
    client.abort()
    await world.heim.until(lambda: world.live == 0)


async def test_O2_random_bytes_never_reach_the_loop(
    world: World, alice: Login, ssh: TcpServer
) -> None:
    source = random.Random(20)
    for index in range(40):
        client = await running(world, alice)
        data = bytearray(HELLO + head(Type.DATA, 4, 1) + b"ping" + HELLO)
        for _ in range(source.randint(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        if index % 2:
            client.wire.send(source.randbytes(200))
        else:
            client.frame(bytes(data))
        client.abort()
    await world.heim.until(lambda: world.live == 0 and ssh.open == 0)
    assert not world.errors


async def test_O2_every_byte_alone_is_the_same_stream(
    world: World, alice: Login, ssh: TcpServer
) -> None:
    client = await running(world, alice)
    data = HELLO + head(Type.DATA, 4, 1) + b"ping"
    frame = client.websocket.frame([data], len(data))
    for byte in frame:
        client.wire.send(bytes((byte,)))
        await asyncio.sleep(0)
    assert await client.read(4) == b"ping"
    assert ssh.received == b"ping"
    client.abort()


async def test_T11_a_client_that_says_no_hello_is_cut_after_five_seconds(
    world: World, alice: Login
) -> None:
    client = await running(world, alice)
    (stream,) = world.heim.proxy._live._exchanges
    assert isinstance(stream, TunnelStream)
    liveness: Any = stream._wire._liveness
    for seconds, gone in ((4.5, False), (0.6, True)):
        liveness._began -= seconds
        liveness._heard -= seconds
        stream._channel._alarm()
        await asyncio.sleep(0.02)
        assert client.gone is gone
    await world.heim.until(lambda: world.live == 0)


async def test_R1_a_token_is_in_no_log_answer_or_repr(
    world: World, alice: Login, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = alice.token()
    secret = token.rpartition(".")[2]
    client = await stream_of(world, alice)
    client.auth(token)
    await client.until(lambda: len(client.readies) == 2)
    (stream,) = world.heim.proxy._live._exchanges
    assert isinstance(stream, TunnelStream)
    assert secret not in repr(vars_of(stream)) + repr(stream._passage)
    client.frame(plain_frame(Type.READY, 0, json.dumps({"token": token}).encode()))
    await client.over()
    for given in (token + "x", f"{token},{token}"):
        answer, _ = await refused(world.heim, tunnel_head(given, host=SSH), sni=SSH)
        assert secret not in answer.raw.decode() + answer.body.decode()
    await asyncio.sleep(0.15)
    assert secret not in world.heim.log.read_text()
    assert not [one for one in caplog.records if secret in str(vars(one))]


def vars_of(thing: Any) -> dict[str, Any]:
    return {name: getattr(thing, name, None) for name in type(thing).__slots__}
