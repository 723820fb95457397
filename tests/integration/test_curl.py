"""Clients we did not write: curl for requests, the websockets library for frames."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets
from websockets import Subprotocol
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.extensions.permessage_deflate import PerMessageDeflate

from tests.fakes.heim import LOGIN_HOST, Heim, user
from tests.fakes.upstream import Received, Upstream, answer, read_body
from tests.integration.curl import curl
from tests.integration.setup import (
    APP,
    OPEN,
    alice_only,
    app_backend,
    public_backend,
    websocket,
)


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body."""
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        content += rest[:length]
        body = rest[length + 2 :] if length else b""
    return content


async def reflect(
    received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bytes:
    """Answers what was sent: method, path, headers, and the body's digest."""
    if received.get("expect") is not None:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = await read_body(received, reader)
    if received.get("transfer-encoding") == "chunked":
        body = unchunked(body)
    facts = {
        "line": received.line,
        "headers": received.fields,
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return answer(json.dumps(facts).encode(), headers="Content-Type: application/json\r\n")


# -- curl ---------------------------------------------------------------------------------------


@pytest.fixture
async def heim(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Heim]:
    upstream.script = reflect
    started = await Heim.start(
        tmp_path,
        backends=[app_backend(upstream.url), public_backend(upstream.url)],
        roles=alice_only(),
    )
    yield started
    await started.stop()


@pytest.fixture
async def cookie(heim: Heim) -> str:
    return await heim.signed_in(user("alice"), APP)


@pytest.mark.real
class TestCurl:
    @pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
    async def test_every_version_curl_offers_gets_an_answer(
        self, version: str, heim: Heim, cookie: str
    ) -> None:
        found = await curl(heim, "/x?y", version, cookie=cookie)
        assert (found.exit, found.status) == (0, 200)
        # What goes upstream is ours, whatever the client speaks.
        assert json.loads(found.body)["line"] == "GET /x?y HTTP/1.1"

    async def test_an_upload_that_expects_100_gets_it_before_the_body(
        self, heim: Heim, cookie: str, tmp_path: Path
    ) -> None:
        (tmp_path / "up").write_bytes(body := os.urandom(300_000))
        # Longer than any wait for the answer: without a 100 this would not end in time.
        wait = ("--expect100-timeout", "50", "--max-time", "10")
        found = await curl(
            heim,
            "/up",
            "--upload-file",
            tmp_path / "up",
            "--header",
            "Expect: 100-continue",
            *wait,
            cookie=cookie,
        )
        assert (found.exit, found.status) == (0, 200)
        assert "HTTP/1.1 100" in found.head
        assert json.loads(found.body)["sha256"] == hashlib.sha256(body).hexdigest()

    async def test_an_upload_nobody_may_make_is_refused_before_its_body(
        self, heim: Heim, upstream: Upstream, tmp_path: Path
    ) -> None:
        (tmp_path / "up").write_bytes(bytes(300_000))
        found = await curl(
            heim,
            "/up",
            "--upload-file",
            tmp_path / "up",
            "--header",
            "Expect: 100-continue",
            "--expect100-timeout",
            "50",
            "--max-time",
            "10",
        )
        assert (found.exit, found.status) == (0, 401)
        assert "HTTP/1.1 100" not in found.head
        assert upstream.requests == []

    async def test_a_chunked_upload_from_a_pipe_arrives_whole(
        self, heim: Heim, cookie: str
    ) -> None:
        body = os.urandom(1_000_000)
        found = await curl(heim, "/up", "--upload-file", "-", cookie=cookie, stdin=body)
        facts = json.loads(found.body)
        assert (facts["length"], facts["sha256"]) == (
            len(body),
            hashlib.sha256(body).hexdigest(),
        )
        assert ["Transfer-Encoding", "chunked"] in facts["headers"]

    async def test_an_old_client_uploads_with_a_length(self, heim: Heim, cookie: str) -> None:
        found = await curl(
            heim, "/up", "--http1.0", "--data-binary", "@-", cookie=cookie, stdin=b"x" * 5000
        )
        assert (found.exit, found.status, json.loads(found.body)["length"]) == (0, 200, 5000)

    async def test_a_form_and_a_json_document_are_posted(self, heim: Heim, cookie: str) -> None:
        form = json.loads((await curl(heim, "/f", "--form", "a=b", cookie=cookie)).body)
        assert form["line"] == "POST /f HTTP/1.1"
        assert any(value.startswith("multipart/form-data") for _, value in form["headers"])
        found = json.loads((await curl(heim, "/j", "--json", '{"a": 1}', cookie=cookie)).body)
        assert (found["length"], ["Content-Type", "application/json"] in found["headers"]) == (
            8,
            True,
        )

    async def test_two_urls_share_one_connection(self, heim: Heim, cookie: str) -> None:
        port = heim.https_port
        found = await curl(
            heim,
            "/second",
            "--write-out",
            "%{num_connects}",
            f"https://{APP}:{port}/first",
            cookie=cookie,
        )
        assert found.exit == 0
        # num_connects counts new connections: one for the first, none for the second.
        assert found.body.count(b"}1") == 1
        assert found.body.count(b"}0") == 1

    async def test_identity_headers_of_a_client_never_arrive(self, heim: Heim, cookie: str) -> None:
        forged = (
            "X-Auth-Id: root",
            "x_auth_token: x",
            "X-Forwarded-User: root",
            "X-Heim-Session: 1",
        )
        args = [part for line in forged for part in ("--header", line)]
        headers = json.loads((await curl(heim, "/", *args, cookie=cookie)).body)["headers"]
        assert [value for name, value in headers if name.lower() == "x-auth-id"] == [
            "alice@example.com"
        ]
        assert "root" not in json.dumps(headers)
        public = json.loads((await curl(heim, "/", *args, host=OPEN)).body)["headers"]
        assert "root" not in json.dumps(public)

    async def test_a_program_without_a_session_is_told_where_to_sign_in(self, heim: Heim) -> None:
        found = await curl(heim, "/api")
        problem = json.loads(found.body)
        assert found.status == 401
        assert found.all("content-type") == ["application/problem+json"]
        assert problem["code"] == "sign_in_required"
        assert problem["login_url"] == f"https://{APP}/.heim/login?rd=/"
        assert problem["request_id"] == found.all("x-request-id")[0]
        assert found.all("www-authenticate") == ['Heim realm="app"']

    async def test_a_page_without_a_session_leads_to_the_login_host(self, heim: Heim) -> None:
        found = await curl(heim, "/page?q=1", "--header", "Accept: text/html")
        assert found.status == 303
        (location,) = found.all("location")
        assert location.startswith(f"https://{LOGIN_HOST}/.heim/login?host={APP}&rd=/page%3Fq%3D1&")

    async def test_plain_http_moves_to_https(self, heim: Heim) -> None:
        found = await curl(
            heim,
            "/",
            f"http://{APP}:{heim.http_port}/deep?q=1",
            "--resolve",
            f"{APP}:{heim.http_port}:127.0.0.1",
            host=OPEN,
        )
        assert "HTTP/1.1 308" in found.head
        assert found.all("location") == [f"https://{APP}/deep?q=1"]


# -- WebSockets ---------------------------------------------------------------------------------


class Peer:
    """The application's side of a WebSocket, for a test to speak through."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def serve(self, connection: ServerConnection) -> None:
        await self.accepted.put(connection)
        await connection.wait_closed()


@pytest.fixture
async def peer() -> AsyncIterator[tuple[Peer, Server]]:
    found = Peer()
    async with serve(
        found.serve,
        "127.0.0.1",
        0,
        max_size=None,
        select_subprotocol=lambda _, offered: Subprotocol("chat") if "chat" in offered else None,
    ) as server:
        yield found, server


@pytest.fixture
async def ends(tmp_path: Path, peer: tuple[Peer, Server]) -> AsyncIterator[tuple[Heim, str, Peer]]:
    port = peer[1].sockets[0].getsockname()[1]
    heim = await Heim.start(
        tmp_path, backends=[app_backend(f"http://127.0.0.1:{port}")], roles=alice_only()
    )
    yield heim, await heim.signed_in(user("alice"), APP), peer[0]
    await heim.stop()


Ends = tuple[Heim, str, Peer]


@pytest.mark.parametrize("compression", ["deflate", None], ids=["deflate", "plain"])
async def test_ten_megabytes_pass_in_one_message_both_ways(
    compression: str | None, ends: Ends
) -> None:
    heim, cookie, peer = ends
    big = os.urandom(5_000_000) * 2
    async with websocket(heim, cookie, max_size=None, compression=compression) as client:
        server = await peer.accepted.get()
        await asyncio.gather(client.send(big), server.send(big))
        at_server, at_client = await asyncio.gather(server.recv(), client.recv())
        assert at_server == big
        assert at_client == big


async def test_small_messages_keep_their_order_and_kind_in_both_directions(ends: Ends) -> None:
    heim, cookie, peer = ends
    sent: list[str | bytes] = [
        (f"text {number} äöü" if number % 2 else os.urandom(number)) for number in range(1000)
    ]

    async def say(connection: ClientConnection | ServerConnection) -> None:
        for message in sent:
            await connection.send(message)

    async def hear(connection: ClientConnection | ServerConnection) -> list[str | bytes]:
        return [await connection.recv() for _ in sent]

    async with websocket(heim, cookie) as client:
        server = await peer.accepted.get()
        _, _, at_client, at_server = await asyncio.gather(
            say(client), say(server), hear(client), hear(server)
        )
        assert at_client == sent
        assert at_server == sent


async def test_pings_are_answered_by_the_other_end(ends: Ends) -> None:
    heim, cookie, peer = ends
    async with websocket(heim, cookie, ping_interval=None) as client:
        server = await peer.accepted.get()
        assert await (await client.ping(b"from the client")) >= 0
        assert await (await server.ping(b"from the server")) >= 0


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (4123, "schön war's"), (1011, "oops")])
@pytest.mark.parametrize("closer", ["client", "server"])
async def test_close_codes_and_reasons_reach_the_other_end(
    closer: str, code: int, reason: str, ends: Ends
) -> None:
    heim, cookie, peer = ends
    async with websocket(heim, cookie) as client:
        server = await peer.accepted.get()
        sides: dict[str, ClientConnection | ServerConnection] = {
            "client": client,
            "server": server,
        }
        other = sides["server" if closer == "client" else "client"]
        await sides[closer].close(code, reason)
        with pytest.raises(websockets.ConnectionClosed):
            await other.recv()
        assert (other.close_code, other.close_reason) == (code, reason)


async def test_an_end_that_vanishes_takes_the_other_with_it(ends: Ends) -> None:
    heim, cookie, peer = ends
    async with websocket(heim, cookie) as client:
        server = await peer.accepted.get()
        client.transport.abort()
        async with asyncio.timeout(3):
            await server.wait_closed()
        assert server.close_code == 1006


async def test_the_application_chooses_the_subprotocol(ends: Ends) -> None:
    heim, cookie, peer = ends
    async with websocket(heim, cookie, subprotocols=["unknown", "chat"]) as client:
        server = await peer.accepted.get()
        assert (client.subprotocol, server.subprotocol) == ("chat", "chat")


async def test_compression_is_agreed_between_the_ends(ends: Ends) -> None:
    heim, cookie, peer = ends
    async with websocket(heim, cookie) as client:
        server = await peer.accepted.get()
        for side in (client, server):
            assert any(isinstance(one, PerMessageDeflate) for one in side.protocol.extensions)
        await client.send("squeeze me " * 10_000)
        assert await server.recv() == "squeeze me " * 10_000
    async with websocket(heim, cookie, compression=None) as client:
        server = await peer.accepted.get()
        assert (client.protocol.extensions, server.protocol.extensions) == ([], [])


async def test_the_application_knows_who_is_at_the_other_end(ends: Ends) -> None:
    heim, cookie, peer = ends
    async with websocket(heim, cookie, "/room?id=1", additional_headers={"X-Auth-Id": "root"}):
        server = await peer.accepted.get()
        assert server.request is not None
        assert server.request.path == "/room?id=1"
        assert server.request.headers.get_all("X-Auth-Id") == ["alice@example.com"]
        assert "Cookie" not in server.request.headers


@pytest.mark.parametrize(
    ("origin", "status"), [("https://evil.example", 403), (f"https://{OPEN}", 403), (None, 403)]
)
async def test_a_handshake_from_elsewhere_is_refused_before_the_application(
    origin: str | None, status: int, ends: Ends
) -> None:
    heim, cookie, peer = ends
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websocket(heim, cookie, origin=origin):
            pass
    assert refused.value.response.status_code == status
    assert peer.accepted.empty()


async def test_a_handshake_without_a_session_is_401(ends: Ends) -> None:
    heim, _, peer = ends
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websocket(heim, "none=1"):
            pass
    assert refused.value.response.status_code == 401
    assert peer.accepted.empty()
