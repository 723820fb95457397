"""F19-F24: an upstream cannot confuse the proxy either, least of all about whose answer it is."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import pytest

from tests.fakes.heim import Wire
from tests.fakes.upstream import Received, Script, answer, read_body
from tests.hostile.world import ALICE, SWITCHING, World, host, websocket_head, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST: Final = f"Host: {host('open')}\r\n"
GET: Final = f"GET /first HTTP/1.1\r\n{HOST}\r\n".encode()
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
FIVE: Final = b"Content-Length: 5\r\n"


def ok(headers: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + headers + b"\r\n" + body


NONSENSE: Final = {
    "F19": SWITCHING,
    "F19-h2c": SWITCHING.replace(b"websocket", b"h2c"),
    "F19-no-upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "F20": ok(b"Content-Length: 5\r\n" + CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
    "F20-te-first": ok(CHUNKED + b"Content-Length: 5\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    "F20-two-cl": ok(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello!"),
    "F20-two-same-cl": ok(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
    "F20-cl-list": ok(b"Content-Length: 5, 5\r\n", b"hello"),
    "F20-cl-plus": ok(b"Content-Length: +5\r\n", b"hello"),
    "F20-cl-huge": ok(b"Content-Length: 99999999999999999999\r\n", b"hello"),
    "F20-cl-space": ok(b"Content-Length : 5\r\n", b"hello"),
    "F20-cl-empty": ok(b"Content-Length:\r\n", b"hello"),
    "F20-te-two": ok(b"Transfer-Encoding: gzip\r\n" + CHUNKED, b"0\r\n\r\n"),
    "F20-te-gzip": ok(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "F20-te-identity": ok(b"Transfer-Encoding: identity\r\n", b"hello"),
    "F20-te-word": ok(b"Transfer-Encoding: xchunked\r\n", b"hello"),
    "F20-storm": b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + answer(),
    "F20-storm-103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100 + answer(),
    "F20-204": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
    "F20-204-chunked": b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "F20-09": b"<html>hello</html>\r\n\r\n",
    "F20-http09": b"HTTP/0.9 200 OK\r\n\r\n",
    "F20-http2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "F20-icy": b"ICY 200 OK\r\n\r\n",
    "F20-rtsp": b"RTSP/1.0 200 OK\r\n\r\n",
    "F20-lead": b"\r\n" + answer(),
    "F20-space": b"HTTP/1.1  200 OK\r\n\r\n",
    "F20-status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "F20-status-600": b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
    "F20-status-099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "F20-status-word": b"HTTP/1.1 abc OK\r\n\r\n",
    "F20-lf": ok(b"X-A: b\nContent-Length: 5\r\n", b"hello"),
    "F20-cr": ok(b"X-A: b\rContent-Length: 5\r\n", b"hello"),
    "F20-nul": ok(b"X-A: b\0c\r\n"),
    "F20-fold": ok(b"X-A: b\r\n Content-Length: 5\r\n", b"hello"),
    "F20-name": ok(b"X A: b\r\n"),
    "F20-no-colon": ok(b"X-A\r\n"),
    "F20-endless": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000,
    "F20-endless-line": b"HTTP/1.1 200 OK\r\nX-A: " + b"b" * 100_000,
    "F20-head-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    "F20-nothing": b"",
    "F20-half": b"HTTP/1.1 200 OK\r\nContent-Le",
    "F20-request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


def closing(reply: bytes) -> Script:
    """Answer the first request with these bytes and close, the others properly."""

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if received.path != "/first":
            return answer()
        writer.write(reply)
        await writer.drain()
        return None

    return script


def holding(reply: bytes) -> Script:
    """Answer the first request with these bytes and keep the connection."""

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        received.body = await read_body(received, reader)
        return reply if received.path == "/first" else answer(received.path.encode())

    return script


# An unfinished answer on a connection that stays open is a matter of time: see S8.
UNFINISHED: Final = ("F20-nothing", "F20-half")


@pytest.mark.parametrize(
    ("case", "keep"),
    [
        pytest.param(case, keep, id=f"{case}-{'open' if keep else 'closed'}")
        for case in NONSENSE
        for keep in (True, False)
        if not (keep and case in UNFINISHED)
    ],
)
async def test_nonsense_becomes_502_and_its_connection_is_not_used_again(
    world: World, case: str, keep: bool
) -> None:
    world.upstream.script = (holding if keep else closing)(NONSENSE[case])
    wire = await world.wire("open", plain=True)
    wire.send(GET)
    found = await within(wire.answer())
    while found.status in (100, 103):
        found = await within(wire.answer())
    assert found.status == 502
    assert b"127.0.0.1" not in found.body
    # The client's own connection is in step and goes on, on another upstream connection.
    wire.send(GET.replace(b"first", b"second"))
    assert (await within(wire.answer())).status == 200
    assert world.sent[0].connection != world.sent[-1].connection


@pytest.mark.parametrize(
    ("reply", "status", "body"),
    [
        pytest.param(ok(FIVE, b"hello" + answer(b"evil")), 200, b"hello", id="F20-extra"),
        pytest.param(ok(CHUNKED, b"0\r\n\r\n" + answer(b"evil")), 200, b"", id="F20-extra-chunked"),
        pytest.param(b"HTTP/1.1 204 No\r\n\r\n" + answer(b"evil"), 204, b"", id="F20-extra-204"),
        pytest.param(b"HTTP/1.1 304 Not\r\n\r\n" + answer(b"evil"), 304, b"", id="F20-extra-304"),
        pytest.param(
            b"HTTP/1.1 304 Not\r\n" + FIVE + b"\r\n" + answer(b"evil"), 304, b"", id="F20-304-cl"
        ),
    ],
)  # fmt: skip
async def test_bytes_after_an_answer_are_nobodys_answer(
    world: World, reply: bytes, status: int, body: bytes
) -> None:
    world.upstream.script = holding(reply)
    wire = await world.wire("open", plain=True)
    wire.send(GET)
    found = await within(wire.answer())
    assert (found.status, found.body) == (status, body)
    for _ in range(3):
        wire.send(GET.replace(b"first", b"second"))
        assert (await within(wire.answer())).body == b"/second"
    assert world.sent[0].connection != world.sent[1].connection


async def test_F20_bytes_that_nobody_asked_for_end_an_idle_connection(world: World) -> None:
    """An answer that is sent ahead must not meet the next person's request."""
    held: list[asyncio.StreamWriter] = []

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        held.append(writer)
        return answer(received.path.encode())

    world.upstream.script = script
    await world.get("/one", at="open", plain=True)
    opened = world.upstream.open
    held[0].write(answer(b"poison"))
    await world.heim.until(lambda: world.upstream.open < opened)
    found = await world.get("/two", at="open", plain=True)
    assert found.body == b"/two"


async def test_F20_head_answers_have_no_body_whatever_follows(world: World) -> None:
    world.upstream.script = holding(answer(b"hello"))
    wire = await world.wire("open", plain=True)
    wire.send(GET.replace(b"GET", b"HEAD") + GET.replace(b"first", b"second"))
    found = await within(wire.answer(head_only=True))
    assert (found.status, found.get("content-length")) == (200, "5")
    assert (await within(wire.answer())).body == b"/second"


@pytest.mark.parametrize(
    "value",
    [b"a\r\nSet-Cookie: __Host-heim=evil", b"a\r\n\r\n<html>", b"a\nX-Injected: 1", b"a\rX: 1"],
)
async def test_F21_a_header_value_cannot_split_the_answer(world: World, value: bytes) -> None:
    world.upstream.script = closing(ok(b"X-A: " + value + b"\r\nContent-Length: 0\r\n"))
    found = await world.get("/first", at="open", plain=True)
    assert found.get("x-injected") is None
    assert b"__Host-heim" not in found.raw
    assert found.status in (200, 502)


async def test_F21_a_reason_phrase_is_ours(world: World) -> None:
    world.upstream.script = holding(
        b"HTTP/1.1 200 <script>\x0b\xff\r\nContent-Length: 0\r\nServer: x\r\n\r\n"
    )
    found = await world.get("/first", at="open", plain=True)
    assert found.raw.startswith(b"HTTP/1.1 200 OK\r\n") or found.status == 502


CHUNKS: Final = {
    "size": b"xyz\r\n",
    "overflow": b"ffffffffffffffff\r\n",
    "lf": b"5\nhello\r\n",
    "long": b"5\r\nhello!\r\n",
    "trailer": b"0\r\n" + b"X: y\r\n" * 5000,
}


@pytest.mark.parametrize("case", CHUNKS)
async def test_F20_a_body_that_breaks_is_visibly_cut(world: World, case: str) -> None:
    relayed = asyncio.Event()

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        writer.write(ok(CHUNKED, b"5\r\nhello\r\n"))
        await relayed.wait()
        return CHUNKS[case]

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    wire.send(GET + GET.replace(b"first", b"second"))
    await within(wire.reader.readuntil(b"hello\r\n"))
    relayed.set()
    assert b"0\r\n" not in await wire.closed()
    assert len(world.sent) == 1


@pytest.mark.parametrize("case", CHUNKS)
async def test_F20_a_body_that_is_broken_from_the_start_is_502(world: World, case: str) -> None:
    world.upstream.script = holding(ok(CHUNKED, b"5\r\nhello\r\n" + CHUNKS[case]))
    wire = await world.wire("open", plain=True)
    wire.send(GET + GET.replace(b"first", b"second"))
    data = await within(wire.reader.readuntil(b"\r\n"))
    if data.startswith(b"HTTP/1.1 502"):
        assert b"hello" not in await within(wire.reader.readuntil(b"/second"))
    else:
        # The head came in a segment of its own and had been relayed.
        assert b"\r\n0\r\n" not in await wire.closed()


async def test_a_short_body_is_visibly_cut_and_what_was_pipelined_is_not_sent(
    world: World,
) -> None:
    # Idle upstream connections are at hand, so that nothing but the rule stops the second.
    await idle_connections(world, 4)
    world.forget()
    world.upstream.script = closing(ok(b"Content-Length: 100\r\n", b"half"))
    for version in (b"1.1", b"1.0"):
        wire = await world.wire("open", plain=True)
        wire.send(GET.replace(b"1.1", version) + GET.replace(b"first", b"second"))
        data = await wire.closed()
        assert data.count(b"HTTP/1.1") <= 1
    assert {received.path for received in world.sent} == {"/first"}


async def idle_connections(world: World, count: int) -> None:
    together = asyncio.Barrier(count)

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        await together.wait()
        return answer()

    world.upstream.script = script
    asked = (world.get("/warm", at="open", plain=True) for _ in range(count))
    await asyncio.gather(*asked)


async def test_an_answer_without_length_ends_with_its_connection(world: World) -> None:
    world.upstream.script = closing(ok(b"", b"hello"))
    wire = await world.wire("open", plain=True)
    wire.send(GET + GET.replace(b"first", b"second"))
    found = await within(wire.answer())
    assert (found.body, found.get("transfer-encoding")) == (b"hello", "chunked")
    assert (await within(wire.answer())).status == 200


async def test_F22_after_an_aborted_body_nobody_shares_the_connection(world: World) -> None:
    """Alice cuts a download in the middle; what is left of it must not reach bob."""
    rest = asyncio.Event()

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if received.path != "/secret":
            return answer(received.path.encode())
        writer.write(ok(b"Content-Length: 1000\r\n", b"s" * 10))
        await rest.wait()
        return b"s" * 990

    world.upstream.script = script
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    wire.send(f"GET /secret HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n\r\n".encode())
    await within(wire.reader.readuntil(b"ssss"))
    wire.close()
    await world.heim.until(lambda: world.live == 0)
    rest.set()
    for _ in range(5):
        found = await world.get("/public", at="open")
        assert found.body == b"/public"
    assert world.sent[0].connection not in {one.connection for one in world.sent[1:]}


async def test_F23_an_upload_that_is_cut_is_cut_for_the_upstream_too(world: World) -> None:
    seen = asyncio.Event()
    ended: list[bytes] = []

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        received.body = await reader.read(5)
        seen.set()
        try:
            ended.append(await reader.read())
        except ConnectionError:
            ended.append(b"reset")
        return None

    world.upstream.script = script
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    wire.send(
        f"POST / HTTP/1.1\r\nHost: {host('app')}\r\nCookie: {cookie}\r\n"
        "Content-Length: 100\r\n\r\nhello".encode()
    )
    await within(seen.wait())
    wire.close()
    await world.heim.until(lambda: bool(ended))
    assert ended[0] in (b"", b"reset")


async def once_stale(world: World, method: str, body: str = "") -> tuple[int, int]:
    """A request on an idle connection that closes in that moment: (status, times it was sent)."""

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        received.body = await read_body(received, reader)
        if received.path == "/stale" and received.connection == first:
            return None
        return answer()

    world.upstream.script = script
    await world.get("/warm", at="open", plain=True)
    first = world.sent[-1].connection
    world.forget()
    data = f"{method} /stale HTTP/1.1\r\n{HOST}{body}".encode()
    found = await world.heim.raw(data if body else data + b"\r\n", plain=True)
    return found.status, len(world.sent)


async def test_F24_only_what_may_be_repeated_is_sent_again(world: World) -> None:
    assert await once_stale(world, "GET") == (200, 2)
    world.forget()
    assert await once_stale(world, "POST", "Content-Length: 2\r\n\r\nhi") == (502, 1)
    world.forget()
    assert await once_stale(world, "POST", "Content-Length: 0\r\n\r\n") == (502, 1)
    world.forget()
    assert await once_stale(world, "DELETE") == (502, 1)
    world.forget()
    assert await once_stale(world, "GET", "Content-Length: 2\r\n\r\nhi") == (502, 1)


async def test_F24_never_twice_and_never_after_a_byte_of_an_answer(world: World) -> None:
    async def dies(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if received.path == "/half":
            writer.write(b"HTTP/1.1 2")
            await writer.drain()
        return None if received.path != "/warm" else answer()

    world.upstream.script = dies
    await world.get("/warm", at="open", plain=True)
    world.forget()
    assert (await world.get("/half", at="open", plain=True)).status == 502
    assert len(world.sent) == 1
    await world.get("/warm", at="open", plain=True)
    world.forget()
    assert (await world.get("/dead", at="open", plain=True)).status == 502
    assert len(world.sent) == 2


async def test_an_upstream_that_hangs_up_at_once_is_502_and_soon(world: World) -> None:
    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    slammed = await asyncio.start_server(slam, "127.0.0.1", 0)
    port = slammed.sockets[0].getsockname()[1]
    before = world.heim.document["backends"]
    url = f"http://127.0.0.1:{port}"
    changed = [
        {**one, "http": [{"path": "/", "upstream": url}]} if one["name"] == "open" else one
        for one in before
    ]
    await world.change(backends=changed)
    for _ in range(30):
        found = await within(world.get("/x", at="open", plain=True), 2)
        assert found.status == 502
    await world.change(backends=before)
    slammed.close()


async def test_N7_an_extension_that_was_not_offered_is_refused(world: World) -> None:
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        writer.write(SWITCHING[:-2] + extension + b"\r\n")
        await reader.read()
        return None

    world.upstream.script = script
    cookie = await world.cookie(ALICE)
    wire = await world.wire()
    wire.send(websocket_head(cookie=cookie))
    assert (await within(wire.answer())).status == 502
    wire = await world.wire()
    wire.send(websocket_head(cookie=cookie, extra=extension.decode()))
    assert (await within(wire.answer())).status == 101


async def test_F19_a_handshake_is_answered_by_its_own_protocol_only(world: World) -> None:
    world.upstream.script = closing(SWITCHING.replace(b"websocket", b"h2c"))
    wire: Wire = await world.wire()
    wire.send(websocket_head("/first", cookie=await world.cookie(ALICE)))
    assert (await within(wire.answer())).status == 502


@pytest.mark.parametrize("size", [300_000, 500_000, 1_000_000])
async def test_a_slow_reader_does_not_leave_a_paused_connection_behind(
    world: World, size: int
) -> None:
    """The last bytes of an answer wait for its reader; the next person must not."""
    world.upstream.script = holding(answer(b"x" * size))
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", world.heim.http_port))
    slow = Wire(*await asyncio.open_connection(sock=sock, limit=2048))
    world.heim._wires.append(slow)
    await world.heim.until(lambda: len(world.heim.proxy._edge._fronts) >= 1)  # type: ignore[union-attr]
    for front in world.heim.proxy._edge._fronts:  # type: ignore[union-attr]
        # A kernel that takes little, so that the answer's end is still with us when it is complete.
        accepted = front.transport.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    slow.send(GET)
    left = size + len(await within(slow.reader.readuntil(b"\r\n\r\n"))) * 0
    while left:
        left -= len(await within(slow.reader.read(32_768)))
        if world.live == 0:
            found = await within(world.get("/next", at="open", plain=True), 2)
            assert found.body == b"/next"
