"""HTTP through an agent beside HTTP over TCP: the same answers to the same requests.

One proxy has the same upstream three times: directly, as the target of an agent, and as an agent's
target over TLS. Every scenario runs on all of them and on both loops; where nothing else is said, a
client cannot tell them apart.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.agents.opening import TLS_CLOSE_S
from heim_wire.stream import State
from tests.fakes.agent import ScriptedAgent, bridging, enrolled
from tests.fakes.certificates import CA_PEM, make_pair
from tests.fakes.heim import DOMAIN, Heim, Wire
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.upstream import Received, Upstream, answer, read_body

MIB = 1024 * 1024
KINDS = ("direct", "agent", "agent-tls")
ON_ALL = pytest.mark.parametrize(
    ("loop", "kind"), [(loop, kind) for loop in LOOPS for kind in KINDS]
)
THROUGH = pytest.mark.parametrize(
    ("loop", "kind"), [(loop, kind) for loop in LOOPS for kind in KINDS[1:]]
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class TlsUpstream(Upstream):
    """The same, as `inner.test` over TLS."""

    name = "inner.test"

    async def start(self) -> Upstream:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            make_pair(self.name).write(Path(folder))
            context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self


@dataclass
class Stage:
    """One kind of the three, and what it leads to."""

    kind: str
    heim: Heim
    upstream: Upstream
    agent: ScriptedAgent

    @property
    def host(self) -> str:
        return f"{self.kind}.{DOMAIN}"

    def head(self, line: str = "GET / HTTP/1.1", *lines: str) -> bytes:
        return "\r\n".join((line, f"Host: {self.host}", *lines, "", "")).encode()

    async def wire(self) -> Wire:
        return await self.heim.connect(self.host)


@asynccontextmanager
async def staged(kind: str) -> AsyncIterator[Stage]:
    plain, secure = await Upstream().start(), await TlsUpstream().start()
    common = {"public": True, "timeouts": {"connect": "2s", "first_byte": "2s"}}
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "ca.pem").write_text(CA_PEM)
        through = {"path": "/", "agent": "desktop", "target": "web"}
        tls = {"ca_file": str(directory / "ca.pem"), "server_name": TlsUpstream.name}
        heim = await Heim.start(
            directory,
            backends=[
                {"name": "direct", "http": [{"path": "/", "upstream": plain.url}], **common},
                {"name": "agent", "http": [through], **common},
                {
                    "name": "agent-tls",
                    "http": [{**through, "target": "tls", "scheme": "https"}],
                    "upstream_tls": tls,
                    **common,
                },
            ],
            agents=[{"name": "desktop", "targets": ["web", "tls"]}],
        )
        targets = {
            "web": bridging("127.0.0.1", plain.port),
            "tls": bridging("127.0.0.1", secure.port),
        }
        agent = await ScriptedAgent.connect(heim, await enrolled(heim, "desktop"), targets=targets)
        try:
            yield Stage(kind, heim, secure if kind == "agent-tls" else plain, agent)
        finally:
            agent.abort()
            await heim.stop()
            await plain.stop()
            await secure.stop()


def play(loop: str, kind: str, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def run() -> None:
        async with staged(kind) as stage:
            await scenario(stage)

    run_on(loop, run())


def pouring(*parts: bytes, end: str = "close") -> Any:
    """A script that writes `parts` and ends the connection."""

    async def script(received: Received, reader: Any, writer: asyncio.StreamWriter) -> None:
        received.body = await read_body(received, reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
        if end == "cut":
            writer.transport.abort()

    return script


@ON_ALL
def test_requests_one_after_another_share_a_connection(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        wire = await stage.wire()
        for number in range(5):
            wire.send(stage.head(f"GET /{number} HTTP/1.1"))
            found = await wire.answer()
            assert (found.status, found.body) == (200, b"ok")
        wire.send(stage.head("GET /a HTTP/1.1") + stage.head("GET /b HTTP/1.1"))
        assert [(await wire.answer()).body for _ in range(2)] == [b"ok", b"ok"]
        assert [one.path for one in stage.upstream.requests] == [
            "/0",
            "/1",
            "/2",
            "/3",
            "/4",
            "/a",
            "/b",
        ]
        assert stage.upstream.connections == 1

    play(loop, kind, scenario)


@ON_ALL
def test_head_has_no_body_and_the_connection_goes_on(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        async def script(received: Received, reader: Any, writer: Any) -> bytes:
            head = received.line.startswith("HEAD")
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + (b"" if head else b"12345")

        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head("HEAD / HTTP/1.1"))
        assert (await wire.answer(head_only=True)).get("content-length") == "5"
        wire.send(stage.head())
        assert (await wire.answer()).body == b"12345"
        assert stage.upstream.connections == 1

    play(loop, kind, scenario)


@ON_ALL
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_eight_mebibytes_come_down_as_they_are(loop: str, kind: str, framing: str) -> None:
    async def scenario(stage: Stage) -> None:
        data = os.urandom(8 * MIB)
        parts = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]
        if framing == "length":
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data)
        elif framing == "chunked":
            head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts] + [b"0\r\n\r\n"]
        else:
            head = b"HTTP/1.1 200 OK\r\n\r\n"
        stage.upstream.script = pouring(head, *parts)
        wire = await stage.wire()
        wire.send(stage.head())
        found = await wire.answer()
        assert hashlib.sha256(found.body).digest() == hashlib.sha256(data).digest()

    play(loop, kind, scenario)


@ON_ALL
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_eight_mebibytes_go_up_as_they_are(loop: str, kind: str, chunked: bool) -> None:
    async def scenario(stage: Stage) -> None:
        data = os.urandom(8 * MIB)
        digests: list[bytes] = []

        async def script(received: Received, reader: asyncio.StreamReader, writer: Any) -> bytes:
            found = hashlib.sha256()
            if chunked:
                while size := int(await reader.readline(), 16):
                    found.update(await reader.readexactly(size))
                    await reader.readline()
                await reader.readline()
            else:
                found.update(await reader.readexactly(len(data)))
            digests.append(found.digest())
            return answer()

        stage.upstream.script = script
        wire = await stage.wire()
        if chunked:
            wire.send(stage.head("POST / HTTP/1.1", "Transfer-Encoding: chunked"))
            for at in range(0, len(data), 70_000):
                part = data[at : at + 70_000]
                wire.send(b"%x\r\n%b\r\n" % (len(part), part))
            wire.send(b"0\r\n\r\n")
        else:
            wire.send(stage.head("POST / HTTP/1.1", f"Content-Length: {len(data)}") + data)
        assert (await wire.answer()).status == 200
        assert digests == [hashlib.sha256(data).digest()]

    play(loop, kind, scenario)


@ON_ALL
def test_a_body_that_waits_for_permission_gets_it(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        wire = await stage.wire()
        wire.send(stage.head("PUT / HTTP/1.1", "Content-Length: 4", "Expect: 100-continue"))
        assert (await wire.answer()).status == 100
        wire.send(b"body")
        assert (await wire.answer()).status == 200
        assert stage.upstream.requests[0].body == b"body"

    play(loop, kind, scenario)


@ON_ALL
def test_events_arrive_as_they_happen(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        go = asyncio.Event()

        async def script(received: Received, reader: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            for number in range(3):
                writer.write(b"data: %d\n\n" % number)
                await writer.drain()
                await go.wait()
                go.clear()

        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head())
        head = await wire.reader.readuntil(b"\r\n\r\n")
        assert b"text/event-stream" in head
        for number in range(3):
            assert await wire.reader.readexactly(14) == b"9\r\ndata: %d\n\n\r\n" % number
            go.set()
        assert await wire.reader.readexactly(5) == b"0\r\n\r\n"

    play(loop, kind, scenario)


@ON_ALL
def test_a_websocket_carries_bytes_both_ways_and_its_end(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        async def script(received: Received, reader: asyncio.StreamReader, writer: Any) -> None:
            writer.write(SWITCH + b"\x81\x05early")
            while data := await reader.read(65_536):
                writer.write(data[:1] + bytes((data[1] & 0x7F,)) + data[6:])

        stage.upstream.script = script
        wire = await stage.wire()
        key = base64.b64encode(os.urandom(16)).decode()
        wire.send(
            stage.head(
                "GET /ws HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket",
                f"Origin: https://{stage.host}",
                "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}",
            )
        )  # fmt: skip
        assert (await wire.answer()).status == 101
        assert await wire.reader.readexactly(7) == b"\x81\x05early"
        for word in (b"hello", b"again"):
            wire.send(b"\x81\x85\0\0\0\0" + word)
            assert await wire.reader.readexactly(7) == b"\x81\x05" + word
        wire.close()
        await stage.heim.until(lambda: stage.upstream.open == 0)

    play(loop, kind, scenario)


@ON_ALL
def test_a_connection_that_went_stale_costs_no_get(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        async def script(received: Received, reader: Any, writer: Any) -> bytes | None:
            stale = received.connection == 1 and received.path == "/2"
            return None if stale else answer()

        stage.upstream.script = script
        wire = await stage.wire()
        for number in (1, 2, 3):
            wire.send(stage.head(f"GET /{number} HTTP/1.1"))
            assert (await wire.answer()).status == 200
        assert [one.path for one in stage.upstream.requests] == ["/1", "/2", "/2", "/3"]

    play(loop, kind, scenario)


@ON_ALL
@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [(b"", 502, b"upstream_closed"), (b"SSH-2.0-x\r\n\r\n", 502, b"upstream_bad_answer")],
    ids=["closes", "speaks something else"],
)
def test_an_upstream_that_does_not_answer_is_told_as_over_tcp(
    loop: str, kind: str, reply: bytes, status: int, code: bytes
) -> None:
    async def scenario(stage: Stage) -> None:
        stage.upstream.script = pouring(reply)
        wire = await stage.wire()
        wire.send(stage.head("POST / HTTP/1.1", "Content-Length: 0"))
        found = await wire.answer()
        assert (found.status, code in found.body) == (status, True)
        named = b"of agent desktop" in found.body
        assert named is (kind != "direct")

    play(loop, kind, scenario)


@ON_ALL
def test_an_answer_that_is_cut_off_is_seen_to_be(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        stage.upstream.script = pouring(part)
        wire = await stage.wire()
        wire.send(stage.head())
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ssl.SSLError)):
            await wire.answer()

    play(loop, kind, scenario)


@THROUGH
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_under_which_the_agent_is_lost_is_seen_to_be_cut(
    loop: str, kind: str, framing: str
) -> None:
    """Also where the end of the connection would be the end of the body, and over TLS."""

    async def scenario(stage: Stage) -> None:
        lines = {
            "length": b"Content-Length: 100\r\n",
            "chunked": b"Transfer-Encoding: chunked\r\n",
            "close": b"",
        }[framing]
        body = b"4\r\nhalf\r\n" if framing == "chunked" else b"half"
        hold = asyncio.Event()

        async def script(received: Received, reader: Any, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n" + lines + b"\r\n" + body)
            await hold.wait()

        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head())
        await wire.reader.readuntil(b"half")
        stage.agent.abort()
        rest = b""
        try:
            async with asyncio.timeout(3):
                rest = await wire.reader.read()
        except (ConnectionError, ssl.SSLError):
            pass
        # The last chunk would say that this was all.
        assert b"0\r\n\r\n" not in rest
        hold.set()

    play(loop, kind, scenario)


@THROUGH
def test_an_agent_that_is_lost_before_the_answer_is_named(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        async def script(received: Received, reader: Any, writer: Any) -> None:
            stage.agent.abort()
            await asyncio.sleep(1)

        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head("POST / HTTP/1.1", "Content-Length: 0"))
        found = await wire.answer()
        assert (found.status, b"agent_lost" in found.body) == (503, True)
        assert b"the connection to agent desktop was lost" in found.body
        assert found.get("retry-after")

    play(loop, kind, scenario)


@THROUGH
def test_a_client_that_does_not_read_stops_the_agent_and_then_gets_everything(
    loop: str, kind: str
) -> None:
    async def scenario(stage: Stage) -> None:
        size = 24 * MIB
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
        stage.upstream.script = pouring(head, *([bytes(MIB)] * 24))
        wire = await stage.wire()
        wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
        wire.send(stage.head())
        await stage.agent.until(lambda: stage.agent.served)
        stream = stage.agent.served[0].stream
        await stage.heim.until(lambda: stream.full)
        wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(8):
            assert len((await wire.answer()).body) == size

    play(loop, kind, scenario)


@THROUGH
def test_a_client_that_leaves_takes_the_agents_stream_along(loop: str, kind: str) -> None:
    async def scenario(stage: Stage) -> None:
        hold = asyncio.Event()

        async def script(received: Received, reader: Any, writer: Any) -> None:
            await hold.wait()

        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head())
        await stage.heim.until(lambda: stage.upstream.requests)
        wire.close()
        served = stage.agent.served[0]
        # TLS ends with an end; the target's TLS answers it with its own.
        await stage.heim.until(lambda: served.stream.state == State.CLOSED)
        assert bool(served.reset) is (kind == "agent")
        hold.set()

    play(loop, kind, scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_body_that_the_upstream_does_not_read_stops_the_client(loop: str) -> None:
    async def scenario(stage: Stage) -> None:
        hold = asyncio.Event()

        async def script(received: Received, reader: asyncio.StreamReader, writer: Any) -> bytes:
            await hold.wait()
            await reader.readexactly(32 * MIB)
            return answer()

        def stalling(agent: ScriptedAgent, served: Any) -> None:
            inner(agent, served)
            served.stalled = True

        inner = stage.agent.targets["web"]
        stage.agent.targets["web"] = stalling
        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head("POST / HTTP/1.1", f"Content-Length: {32 * MIB}"))
        transport = wire.writer.transport
        transport.set_write_buffer_limits(high=64 * 1024)
        sent = 0
        while sent < 32 * MIB:
            wire.send(bytes(256 * 1024))
            sent += 256 * 1024
            try:
                async with asyncio.timeout(0.5):
                    await wire.writer.drain()
            except TimeoutError:
                break
        assert sent < 16 * MIB
        assert len(stage.agent.served[0].received) <= 512 * 1024
        hold.set()

    play(loop, "agent", scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_tls_that_is_not_the_targets_is_refused_in_words(loop: str) -> None:
    async def scenario(stage: Stage) -> None:
        backends = stage.heim.document["backends"]
        backends[2]["upstream_tls"]["server_name"] = "other.test"
        await stage.heim.change(backends=backends)
        wire = await stage.wire()
        wire.send(stage.head())
        found = await wire.answer()
        assert found.status == 502
        assert b"target tls of agent desktop: its certificate is for another name" in found.body
        assert b"inner.test" not in found.body
        await stage.agent.until(lambda: stage.agent.served[0].reset or stage.agent.served[0].closed)

    play(loop, "agent-tls", scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_insecure_takes_any_certificate(loop: str) -> None:
    async def scenario(stage: Stage) -> None:
        backends = stage.heim.document["backends"]
        backends[2]["upstream_tls"] = {"insecure": True}
        await stage.heim.change(backends=backends)
        wire = await stage.wire()
        wire.send(stage.head())
        assert (await wire.answer()).status == 200

    play(loop, "agent-tls", scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_target_that_speaks_no_tls_is_said_to(loop: str) -> None:
    async def scenario(stage: Stage) -> None:
        def plain(agent: ScriptedAgent, served: Any) -> None:
            served.stream.accept({})
            served.on_data = lambda data: served.stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        stage.agent.targets["tls"] = plain
        wire = await stage.wire()
        wire.send(stage.head())
        found = await wire.answer()
        assert found.status == 502
        assert b"target tls of agent desktop: TLS failed" in found.body

    play(loop, "agent-tls", scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_agent_that_dies_in_the_handshake_is_told_as_lost(loop: str) -> None:
    async def scenario(stage: Stage) -> None:
        def dying(agent: ScriptedAgent, served: Any) -> None:
            served.stream.accept({})
            served.on_data = lambda data: agent.abort()

        stage.agent.targets["tls"] = dying
        wire = await stage.wire()
        wire.send(stage.head())
        found = await wire.answer()
        assert (found.status, b"the connection to agent desktop was lost" in found.body) == (
            503,
            True,
        )

    play(loop, "agent-tls", scenario)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_target_that_does_not_end_its_side_after_tls_is_reset(loop: str) -> None:
    async def scenario(stage: Stage) -> None:
        hold = asyncio.Event()

        async def script(received: Received, reader: Any, writer: Any) -> None:
            await hold.wait()

        def deaf(agent: ScriptedAgent, served: Any) -> None:
            inner(agent, served)
            agent.run(_deafen(served))

        inner = stage.agent.targets["tls"]
        stage.agent.targets["tls"] = deaf
        stage.upstream.script = script
        wire = await stage.wire()
        wire.send(stage.head())
        await stage.heim.until(lambda: stage.upstream.requests)
        wire.close()
        served = stage.agent.served[0]
        await stage.agent.until(lambda: served.reset, within_s=TLS_CLOSE_S + 2)
        hold.set()

    play(loop, "agent-tls", scenario)


async def _deafen(served: Any) -> None:
    """The service is not told of the end."""
    while served.on_end.__name__ == "<lambda>":
        await asyncio.sleep(0.001)
    served.on_end = lambda: None
