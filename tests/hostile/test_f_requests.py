"""F: a client cannot make the proxy and an upstream disagree about where a request ends."""

from __future__ import annotations

import asyncio
import random
from typing import Final

import httptools
import pytest

from heim_proxy.edge.body import BadChunk, ChunkRelay
from heim_proxy.edge.head import BadRequest, RequestHead, head_end
from heim_proxy.edge.limits import HEADER_BYTES, HEADER_COUNT, PIPELINE_BYTES
from tests.fakes.heim import Wire
from tests.fakes.upstream import Received, answer, read_body
from tests.hostile.world import ALICE, BOB, SWITCHING, World, host, websocket_head, within

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST: Final = f"Host: {host('open')}\r\n"
# What a smuggler hopes that somebody reads as a request of its own.
SMUGGLED: Final = f"GET /smuggled HTTP/1.1\r\n{HOST}\r\n".encode()
CHUNKED: Final = "Transfer-Encoding: chunked\r\n"


def post(headers: str, *, version: str = "1.1") -> bytes:
    return f"POST /first HTTP/{version}\r\n{HOST}{headers}\r\n".encode("latin-1")


REFUSED: Final = {
    "F1": post(f"Content-Length: 6\r\n{CHUNKED}") + b"0\r\n\r\nX",
    "F2": post(f"{CHUNKED}Content-Length: 6\r\n") + b"0\r\n\r\nX",
    "F3": post("Content-Length: 5\r\nContent-Length: 5\r\n") + b"hello",
    "F3-different": post("Content-Length: 5\r\nContent-Length: 50\r\n") + b"hello",
    "F4": post("Content-Length: +5\r\n") + b"hello",
    "F4-minus": post("Content-Length: -5\r\n") + b"hello",
    "F4-hex": post("Content-Length: 0x5\r\n") + b"hello",
    "F4-list": post("Content-Length: 5,5\r\n") + b"hello",
    "F4-words": post("Content-Length: 5 5\r\n") + b"hello",
    "F4-empty": post("Content-Length:\r\n"),
    "F4-huge": post("Content-Length: 99999999999999999999\r\n"),
    "F4-2to62": post("Content-Length: 9223372036854775807\r\n"),
    "F4-tab": post("Content-Length: \x0b5\r\n") + b"hello",
    "F4-name": post("Content_Length: 5\r\nContent-Length : 5\r\n") + b"hello",
    "F5": post("Transfer-Encoding: xchunked\r\n") + b"0\r\n\r\n",
    "F5-identity": post("Transfer-Encoding: chunked, identity\r\n") + b"0\r\n\r\n",
    "F5-only-identity": post("Transfer-Encoding: identity\r\n") + b"0\r\n\r\n",
    "F5-gzip": post("Transfer-Encoding: gzip, chunked\r\n") + b"0\r\n\r\n",
    "F5-twice": post("Transfer-Encoding: chunked, chunked\r\n") + b"0\r\n\r\n",
    "F5-vt": post("Transfer-Encoding: \x0bchunked\r\n") + b"0\r\n\r\n",
    "F5-two": post(f"{CHUNKED}{CHUNKED}") + b"0\r\n\r\n",
    "F5-two-other": post(f"{CHUNKED}Transfer-Encoding: cow\r\n") + b"0\r\n\r\n",
    "F5-two-other-first": post(f"Transfer-Encoding: cow\r\n{CHUNKED}") + b"0\r\n\r\n",
    "F5-space": post("Transfer-Encoding : chunked\r\n") + b"0\r\n\r\n",
    "F5-quoted": post('Transfer-Encoding: "chunked"\r\n') + b"0\r\n\r\n",
    "F5-parameter": post("Transfer-Encoding: chunked;q=1\r\n") + b"0\r\n\r\n",
    "F5-empty": post("Transfer-Encoding:\r\n") + b"0\r\n\r\n",
    "F5-http10": post(CHUNKED, version="1.0") + b"0\r\n\r\n",
    "F5-comma": post("Transfer-Encoding: chunked,\r\n") + b"0\r\n\r\n",
    "F6": post("X-A: b\r\n Content-Length: 5\r\n"),
    "F6-tab": post("X-A: b\r\n\tc: d\r\n"),
    "F6-first": f"GET / HTTP/1.1\r\n {HOST}\r\n".encode(),
    "F6-te": post("Transfer-Encoding:\r\n chunked\r\n") + b"0\r\n\r\n",
    "F7-lf": post("X-A: b\nContent-Length: 5\r\n"),
    "F7-cr": post("X-A: b\rContent-Length: 5\r\n"),
    "F7-line": f"GET / HTTP/1.1\n{HOST}\r\n".encode(),
    "F7-end": f"GET / HTTP/1.1\r\nX: y\n\r\n{HOST}\r\n".encode(),
    "F8-value": post("X-A: b\0c\r\n"),
    "F8-name": post("X\0A: b\r\n"),
    "F8-line": f"GET /\0 HTTP/1.1\r\n{HOST}\r\n".encode(),
    "F9": post("X-A : b\r\n"),
    "F9-tab": post("X-A\t: b\r\n"),
    "F9-name": post(": b\r\n"),
    "F9-no-colon": post("X-A\r\n"),
    "F9-control": post("X-A: \x01\r\n"),
    "F9-del": post("X-A: \x7f\r\n"),
    "F9-latin": post("X-\xe4: b\r\n"),
    "line-spaces": f"GET  /  HTTP/1.1\r\n{HOST}\r\n".encode(),
    "line-lead": f" GET / HTTP/1.1\r\n{HOST}\r\n".encode(),
    "line-tail": f"GET / HTTP/1.1 \r\n{HOST}\r\n".encode(),
    "line-tab": f"GET\t/ HTTP/1.1\r\n{HOST}\r\n".encode(),
    "line-version": f"GET / HTTP/1.2\r\n{HOST}\r\n".encode(),
    "line-rtsp": f"GET / RTSP/1.0\r\n{HOST}\r\n".encode(),
    "line-words": f"GET / evil HTTP/1.1\r\n{HOST}\r\n".encode(),
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "empty-lines": b"\r\n\r\n\r\n",
}

CHUNKS: Final = {
    "F10": b"ffffffffffffffff\r\nhi\r\n0\r\n\r\n",
    "F10-16-zeros": b"0000000000000002\r\nhi\r\n0\r\n\r\n",
    "F10-negative": b"-2\r\nhi\r\n0\r\n\r\n",
    "F10-plus": b"+2\r\nhi\r\n0\r\n\r\n",
    "F10-0x": b"0x2\r\nhi\r\n0\r\n\r\n",
    "F10-empty": b"\r\nhi\r\n0\r\n\r\n",
    "F10-extension": b"2;" + b"x" * 10_240 + b"\r\nhi\r\n0\r\n\r\n",
    "F10-lf": b"2\nhi\r\n0\r\n\r\n",
    "F10-extension-lf": b"2;a\nb\r\nhi\r\n0\r\n\r\n",
    "F10-extension-cr": b"2;a\rb\r\nhi\r\n0\r\n\r\n",
    "F10-long-data": b"2\r\nhix\r\n0\r\n\r\n",
    "F10-data-lf": b"2\r\nhi\n0\r\n\r\n",
    "F10-lead": b" 2\r\nhi\r\n0\r\n\r\n",
    "F10-word": b"2 x\r\nhi\r\n0\r\n\r\n",
    "F10-trailer": b"0\r\n" + b"X: " + b"y" * 9000 + b"\r\n\r\n",
    "F10-trailers": b"0\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
    "F10-trailer-lf": b"0\r\nX: y\n\r\n\r\n",
    "F10-under": b"2_0\r\nhi\r\n0\r\n\r\n",
}


async def closes(world: World, wire: Wire, status: int | tuple[int, ...]) -> None:
    found = await within(wire.answer())
    statuses = (status,) if isinstance(status, int) else status
    assert found.status in statuses
    assert found.get("connection") == "close"
    assert found.get("x-request-id")
    assert await world.shut(wire) == b""


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("plain", [True, False], ids=["http", "https"])
async def test_ambiguous_heads_are_refused_and_nothing_is_sent_on(
    world: World, case: str, plain: bool
) -> None:
    wire = await world.wire("open", plain=plain)
    wire.send(REFUSED[case] + SMUGGLED)
    await closes(world, wire, 400)
    world.untouched()


@pytest.mark.parametrize("case", CHUNKS)
async def test_bad_chunks_end_the_request_and_the_connection(world: World, case: str) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(post(CHUNKED) + CHUNKS[case] + SMUGGLED)
    await closes(world, wire, 400)
    world.untouched()


@pytest.mark.parametrize("case", CHUNKS)
async def test_bad_chunks_that_come_later_are_not_forwarded(world: World, case: str) -> None:
    """The first chunk is on its way upstream when the bad one arrives."""
    world.upstream.script = never_answers
    wire = await world.wire("open", plain=True)
    wire.send(post(CHUNKED) + b"3\r\nabc\r\n")
    await world.heim.until(lambda: world.sent and world.sent[0].body == b"3\r\nabc\r\n")
    wire.send(CHUNKS[case] + SMUGGLED)
    await closes(world, wire, 400)
    await world.heim.until(lambda: world.upstream.open == 0)
    assert [received.path for received in world.sent] == ["/first"]
    assert b"0\r\n\r\n" not in world.sent[0].body
    assert b"smuggled" not in world.sent[0].body


async def never_answers(
    received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes | None:
    while data := await reader.read(65536):
        received.body += data
    return None


@pytest.mark.parametrize("case", [" 5", "5 ", "05", "5\t"])
async def test_F4_white_space_and_zeros_mean_one_number(world: World, case: str) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(post(f"Content-Length:{case}\r\n") + b"hello" + SMUGGLED)
    for path in ("/first", "/smuggled"):
        assert (await within(wire.answer())).status == 200
        assert world.sent[-1].path == path
    assert world.sent[0].all("content-length") == ["5"]


async def test_F11_a_truncated_body_is_not_completed_by_the_next_request(world: World) -> None:
    world.upstream.script = never_answers
    for head, part in (
        (post(CHUNKED), b"a\r\nhello"),
        (post("Content-Length: 10\r\n"), b"hello"),
    ):
        world.forget()
        wire = await world.wire("open", plain=True)
        wire.send(head + part)
        await world.heim.until(lambda part=part: world.sent and world.sent[0].body == part)
        wire.close()
        await world.heim.until(lambda: world.upstream.open == 0)
        # The upstream's connection was cut, never given to somebody else.
        assert len(world.sent) == 1
        assert world.sent[0].body == part


async def test_F11_bytes_of_a_body_are_never_a_request(world: World) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(post(f"Content-Length: {len(SMUGGLED)}\r\n") + SMUGGLED)
    assert (await within(wire.answer())).status == 200
    wire.send(post(CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))
    assert (await within(wire.answer())).status == 200
    assert [received.path for received in world.sent] == ["/first", "/first"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"X-A: " + b"b" * 65_536, 431, id="F12-one"),
        pytest.param(
            b"".join(b"X-%d: %b\r\n" % (n, b"b" * 8192) for n in range(100)), 431, id="F12"
        ),
        pytest.param(b"X-A: b\r\n" * (HEADER_COUNT + 1), 431, id="F12-count"),
        pytest.param(b"A:\r\n" * 2000, 431, id="F12-small"),
        pytest.param(b"X" * (HEADER_BYTES + 1) + b": b", 431, id="F12-name"),
    ],
)
async def test_headers_without_end_are_refused(world: World, data: bytes, status: int) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(f"GET / HTTP/1.1\r\n{HOST}".encode() + data + b"\r\n\r\n")
    await closes(world, wire, status)
    world.untouched()


@pytest.mark.parametrize("target", [b"/" + b"a" * 16_384, b"/?" + b"a" * 16_384, b"a" * 100_000])
async def test_F13_a_long_request_line_is_414(world: World, target: bytes) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(b"GET " + target)
    await closes(world, wire, 414)
    world.untouched()


@pytest.mark.parametrize("at", ["app", "open-unknown"])
async def test_F14_a_denied_body_is_not_asked_for(world: World, at: str) -> None:
    wire = await world.wire("app")
    wire.send(
        f"POST / HTTP/1.1\r\nHost: {host(at)}\r\nContent-Length: 1000\r\n"
        "Expect: 100-continue\r\n\r\n".encode()
    )
    await closes(world, wire, (401, 421))
    world.untouched()


async def test_F14_the_proxy_invites_the_body_once_the_upstream_is_there(world: World) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(post("Content-Length: 5\r\nExpect: 100-continue\r\n"))
    assert (await within(wire.answer())).status == 100
    wire.send(b"hello" + SMUGGLED)
    assert (await within(wire.answer())).status == 200
    assert world.sent[0].body == b"hello"
    # The upstream is never asked: it gets an ordinary request.
    assert world.sent[0].get("expect") is None
    assert (await within(wire.answer())).status == 200


async def test_F14_a_body_cannot_become_a_request_of_an_upstream_that_refuses_early(
    world: World,
) -> None:
    """A sloppy upstream answers an expectation at once, keeps the connection, and reads on."""

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        if received.get("expect"):
            return answer(b"no", status="417 Expectation Failed")
        received.body = await read_body(received, reader)
        return answer()

    world.upstream.script = script
    inner = b"GET /admin HTTP/1.1\r\nHost: app\r\nX-Auth-Id: admin\r\n\r\n"
    for expect in ("Expect: 100-continue", "EXPECT: 100-Continue"):
        wire = await world.wire("open", plain=True)
        wire.send(post(f"Content-Length: {len(inner)}\r\n{expect}\r\n") + inner)
        while (await within(wire.answer())).status == 100:
            pass
        assert [one.path for one in world.sent] == ["/first"]
        assert world.sent[0].body == inner
        world.forget()


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param("Expect: 100-continue\r\nExpect: 100-continue\r\n", id="F14-twice"),
        pytest.param("Expect: foo 100-continue\r\n", id="F14-more"),
        pytest.param("Expect: 100-continue, foo\r\n", id="F14-list"),
    ],
)
async def test_F14_odd_expectations_are_417(world: World, lines: str) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(post(f"Content-Length: 5\r\n{lines}") + b"hello" + SMUGGLED)
    await closes(world, wire, 417)
    world.untouched()


async def test_F14_an_unknown_expectation_is_417(world: World) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(post("Content-Length: 5\r\nExpect: magic\r\n") + b"hello" + SMUGGLED)
    await closes(world, wire, 417)
    world.untouched()


async def test_F15_pipelined_requests_are_judged_one_by_one(world: World) -> None:
    bob = await world.cookie(BOB)

    def get(target: str, cookie: str | None) -> bytes:
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        return f"GET {target} HTTP/1.1\r\nHost: {host('app')}\r\n{line}\r\n".encode()

    wire = await world.wire()
    wire.send(
        get("/public/1", bob)
        + get("/admin/2", bob)
        + get("/public/3", None)
        + get("/public/4", bob)
        + f"GET /5 HTTP/1.1\r\n{HOST}\r\n".encode()
    )
    statuses = [(await within(wire.answer())).status for _ in range(5)]
    assert statuses == [200, 403, 401, 200, 200]
    assert [received.path for received in world.sent] == ["/public/1", "/public/4", "/5"]
    identities = [received.get("x-auth-id") for received in world.sent]
    assert identities == ["bob@example.com", "bob@example.com", None]


async def test_F15_a_thousand_pipelined_requests_come_back_in_order(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return answer(received.path.encode())

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    requests = b"".join(f"GET /{n} HTTP/1.1\r\n{HOST}\r\n".encode() for n in range(1000))
    assert len(requests) < 2 * PIPELINE_BYTES
    wire.send(requests)
    for n in range(1000):
        assert (await within(wire.answer())).body == b"/%d" % n


async def test_F16_a_body_with_get_is_forwarded_with_its_framing(world: World) -> None:
    wire = await world.wire("open", plain=True)
    wire.send(f"GET /first HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello".encode() + SMUGGLED)
    for _ in range(2):
        assert (await within(wire.answer())).status == 200
    assert [(one.path, one.body) for one in world.sent] == [
        ("/first", b"hello"),
        ("/smuggled", b""),
    ]


UPGRADES: Final = {
    "F17": "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
    "F17-case": "upgrade: H2C\r\nconnection: UPGRADE\r\nhttp2-SETTINGS: AAMAAABk\r\n",
    "F17-list": "Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n",
    "F17-two": "Upgrade: h2c\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    "F17-tls": "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    "F17-no-connection": "Upgrade: websocket\r\n",
    "F17-other": "Upgrade: anything\r\nConnection: Upgrade\r\n",
}


@pytest.mark.parametrize("plain", [True, False], ids=["http", "https"])
@pytest.mark.parametrize("case", UPGRADES)
async def test_an_upgrade_that_is_not_served_is_no_upgrade(
    world: World, case: str, plain: bool
) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        received.body = await read_body(received, reader)
        if received.get("upgrade"):
            return SWITCHING.replace(b"websocket", b"h2c")
        return answer()

    world.upstream.script = script
    wire = await world.wire("open", plain=plain)
    wire.send(f"GET /1 HTTP/1.1\r\n{HOST}{UPGRADES[case]}\r\n".encode() + SMUGGLED)
    assert (await within(wire.answer())).status == 200
    assert (await within(wire.answer())).status == 200
    for name in ("upgrade", "http2-settings", "connection"):
        assert world.sent[0].all(name) == []
    world.forget()
    wire.send(post(f"{UPGRADES[case]}Content-Length: 5\r\n") + b"hello" + SMUGGLED)
    assert (await within(wire.answer())).status == 200
    assert (await within(wire.answer())).status == 200
    assert [(one.path, one.body) for one in world.sent] == [
        ("/first", b"hello"),
        ("/smuggled", b""),
    ]


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
async def test_F17_the_portal_cannot_be_upgraded(world: World, protocol: str) -> None:
    """A connection to the portal that believes it was upgraded would answer nobody any more."""
    for body in ("", "Content-Length: 5\r\n", CHUNKED):
        for target in ("/.heim/me", "/.heim/logout"):
            data = (
                f"GET {target} HTTP/1.1\r\nHost: auth.example.test\r\nUpgrade: {protocol}\r\n"
                f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{body}\r\n"
            )
            found = await world.heim.raw(data.encode(), sni="auth.example.test")
            assert found.status != 101
            after = await world.heim.request("/.heim/jwks.json", host="auth.example.test")
            assert after.status == 200


async def test_F18_bytes_after_a_refused_upgrade_are_not_a_tunnel(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return answer(b"not a websocket")

    world.upstream.script = script
    cookie = await world.cookie(ALICE)
    wire = await world.wire()
    smuggled = f"GET /smuggled HTTP/1.1\r\nHost: {host('app')}\r\nX-Auth-Id: root\r\n\r\n"
    wire.send(websocket_head(cookie=cookie) + smuggled.encode())
    found = await within(wire.answer())
    assert (found.status, found.get("connection")) == (200, "close")
    assert await world.shut(wire) == b""
    await asyncio.sleep(0.05)
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param(("GET /", "POST /"), 400, id="N5-post"),
        pytest.param(("Version: 13", "Version: 12"), 426, id="N5-version"),
        pytest.param(("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x"), 400, id="N5-key"),
        pytest.param(("Sec-WebSocket-Key: ", "X-Key: "), 400, id="N5-no-key"),
        pytest.param(("Origin", "Content-Length: 5\r\nOrigin"), 400, id="N5-body"),
        pytest.param(("Origin", "Transfer-Encoding: chunked\r\nOrigin"), 400, id="N5-chunked"),
    ],
)
async def test_a_malformed_handshake_reaches_nobody(
    world: World, change: tuple[str, str], status: int
) -> None:
    head = websocket_head(cookie=await world.cookie(ALICE)).decode()
    wire = await world.wire()
    wire.send(head.replace(*change).encode())
    assert (await within(wire.answer())).status == status
    world.untouched()


async def test_a_chunked_body_arrives_whole_however_it_is_cut(world: World) -> None:
    """Every split of a body over two segments, through the wire and the relay."""
    body = b"1\r\na\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n"
    kept = b"1\r\na\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"
    for cut in range(1, len(body)):
        relay = ChunkRelay(keep=True)
        first, used = relay.feed(body[:cut])
        assert used == cut
        second, rest = relay.feed(body[cut:] + SMUGGLED)
        assert first + second == kept
        assert rest == len(body) - cut
        assert relay.done
    wire = await world.wire("open", plain=True)
    head = post(CHUNKED)
    for cut in range(len(head) - 3, len(head) + len(body), 3):
        world.forget()
        whole = head + body + SMUGGLED
        wire.send(whole[:cut])
        await asyncio.sleep(0.002)
        wire.send(whole[cut:])
        for path in ("/first", "/smuggled"):
            assert (await within(wire.answer())).status == 200
            assert world.sent[-1].path == path
        assert world.sent[0].body == kept


async def test_the_relay_accepts_what_strict_readers_accept_and_nothing_else() -> None:
    """Differential: what the relay forwards, llhttp reads to the same end."""
    rng = random.Random(10)
    bits = (
        b"0",
        b"1",
        b"a",
        b"\r\n",
        b"\n",
        b"\r",
        b";x",
        b" ",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"x",
    )
    agreed = 0
    for _ in range(20_000):
        body = b"".join(rng.choices(bits, k=rng.randint(1, 7)))
        relay = ChunkRelay(keep=True)
        try:
            out, _used = relay.feed(body)
        except BadChunk:
            continue
        if not relay.done:
            continue
        seen: list[bytes] = []
        ended: list[bool] = []

        class Reader:
            def on_body(self, data: bytes, seen: list[bytes] = seen) -> None:
                seen.append(data)

            def on_message_complete(self, ended: list[bool] = ended) -> None:
                ended.append(True)

        parser = httptools.HttpRequestParser(Reader())
        parser.feed_data(post(CHUNKED) + out)
        assert ended == [True], out
        agreed += 1
    assert agreed > 100


async def test_no_head_makes_the_parser_raise_anything_but_a_refusal() -> None:
    """Mutations of good heads: every one is understood or refused, and refused with a status."""
    rng = random.Random(20)
    statuses = set()
    seeds = [post("Content-Length: 5\r\n"), post(CHUNKED), websocket_head(), SMUGGLED]
    tokens = (b"\r\n", b"\0", b" ", b":", b"\t", b"\xff", b"/", b"HTTP/1.1", b"chunked", b"%", b"")
    for _ in range(20_000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randint(0, 3)] = rng.choice(tokens)
        head = RequestHead()
        try:
            end = head_end(bytes(data))
            if end:
                head.parse(bytes(data[:end]))
        except BadRequest as error:
            statuses.add(error.status)
    assert statuses <= {400, 405, 414, 417, 431}


async def test_an_http10_client_gets_no_chunks(world: World) -> None:
    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        return (
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;x=y\r\nhello\r\n0\r\nT: x\r\n\r\n"
        )

    world.upstream.script = script
    wire = await world.wire("open", plain=True)
    wire.send(f"GET / HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n".encode() + SMUGGLED)
    found = await within(wire.answer())
    assert (found.status, found.get("transfer-encoding")) == (200, None)
    assert found.get("connection") == "close"
    assert found.body == b"hello"
    assert len(world.sent) == 1


async def test_a_connection_goes_on_after_refusals_that_leave_it_clear(world: World) -> None:
    wire = await world.wire()
    cookie = await world.cookie(ALICE)
    for target, line, status in (
        ("/a%2fb", f"Cookie: {cookie}\r\n", 400),
        ("/x", "", 401),
        ("/x", f"Cookie: {cookie}\r\n", 200),
        ("/.heim/nothing", "", 404),
        ("/y", f"Cookie: {cookie}\r\n", 200),
    ):
        wire.send(f"GET {target} HTTP/1.1\r\nHost: {host('app')}\r\n{line}\r\n".encode())
        assert (await within(wire.answer())).status == status
    assert [received.path for received in world.sent] == ["/x", "/y"]


async def test_clients_that_vanish_at_any_moment_leave_nothing_behind(world: World) -> None:
    """F23 and every other moment: in the head, while dialling, in the body, in the answer."""

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        if received.path == "/slow":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")
        if received.path != "/quick":
            await reader.read()
            return None
        return answer()

    world.upstream.script = script
    beginnings = [
        b"",
        b"GET /",
        f"GET /quick HTTP/1.1\r\n{HOST}".encode(),
        f"GET /quick HTTP/1.1\r\n{HOST}\r\n".encode(),
        f"GET /slow HTTP/1.1\r\n{HOST}\r\n".encode(),
        f"GET /silent HTTP/1.1\r\n{HOST}\r\n".encode(),
        post("Content-Length: 100\r\n") + b"hello",
        post(CHUNKED) + b"5\r\nhel",
        post(CHUNKED),
        post("Content-Length: 100\r\nExpect: 100-continue\r\n"),
    ]
    # Over TLS: on plain http a client that only half-closes still gets its answer.
    for pause in (0.0, 0.02):
        for data in beginnings:
            wire = await world.wire("open")
            wire.send(data)
            await asyncio.sleep(pause)
            wire.close()
    await world.heim.until(lambda: world.live == 0)
    # Uploads that were cut are not reused: whoever comes next is on a connection of his own.
    await world.heim.until(lambda: world.upstream.open <= 1)
    world.forget()
    world.upstream.script = None
    assert (await world.as_alice("/next")).status == 200
    assert world.only().path == "/next"
