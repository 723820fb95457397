from __future__ import annotations

import asyncio

import aiohttp
import pytest

from heim_proxy.demo.echo import MAX_MESSAGE_BYTES, EchoApp
from heim_proxy.demo.loopback import listen
from heim_proxy.demo.proof import AssertionVerifier
from tests.fakes.sessions import ManualClock
from tests.unit.demo.conftest import Serve
from tests.unit.demo.test_proof import ISSUER, Publisher, assertion


@pytest.fixture
async def origin(serve: Serve, clock: ManualClock) -> str:
    verifier = AssertionVerifier(
        Publisher().fetch, issuer=ISSUER, audience="app.localhost", clock=clock
    )
    return await serve(EchoApp(verifier, tick_s=0.001).app(), listen())


async def test_page_shows_who_is_asking(origin: str, http: aiohttp.ClientSession) -> None:
    token = assertion(email="alice@example.com", roles=["admin"], groups=["developers"])
    headers = {"X-Auth-Id": "alice@example.com", "X-Auth-Token": token}
    async with http.get(f"{origin}/", headers=headers) as answer:
        text = await answer.text()
    assert '<strong id="who">alice@example.com</strong>' in text
    assert '<strong id="roles">admin</strong>' in text


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        pytest.param({}, "Nobody is signed in here", id="no identity"),
        pytest.param({"X-Auth-Id": "alice"}, "it is not proven", id="bare name"),
        pytest.param({"X-Auth-Token": "a.b.c"}, "it is not proven", id="garbage"),
        pytest.param(
            {"X-Auth-Id": "alice", "X-Auth-Token": assertion(aud="other.localhost")},
            "it is not proven",
            id="stolen from another application",
        ),
    ],
)
async def test_page_does_not_believe(
    origin: str, http: aiohttp.ClientSession, headers: dict[str, str], shown: str
) -> None:
    async with http.get(f"{origin}/", headers=headers) as answer:
        text = await answer.text()
    assert shown in text
    assert "You are" not in text


async def test_claimed_name_is_escaped(origin: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{origin}/", headers={"X-Auth-Id": "<b>x"}) as answer:
        assert "<b>x" not in await answer.text()


async def test_headers_are_returned_as_received(origin: str, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{origin}/headers.json?a=b", headers={"X-One": "1"}) as answer:
        received = await answer.json()
    assert ["X-One", "1"] in received["headers"]
    assert (received["path"], received["verified"]) == ("/headers.json?a=b", False)


async def test_verified_claims_are_in_the_json(origin: str, http: aiohttp.ClientSession) -> None:
    headers = {"X-Auth-Token": assertion()}
    async with http.get(f"{origin}/headers.json", headers=headers) as answer:
        received = await answer.json()
    assert (received["verified"], received["claims"]["sub"]) == (True, "alice")


async def test_long_value_is_shortened_on_the_page(
    origin: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{origin}/admin", headers={"X-Long": "y" * 500}) as answer:
        text = await answer.text()
    assert "y" * 500 not in text
    assert "(500 characters" in text


async def test_websocket_says_everything_back(origin: str, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect(f"{origin}/ws") as socket:
        await socket.send_str("hello")
        await socket.send_bytes(b"\x00\x01")
        assert [await socket.receive_str(), await socket.receive_bytes()] == ["hello", b"\x00\x01"]


async def test_oversized_message_ends_the_websocket(
    origin: str, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect(f"{origin}/ws") as socket:
        await socket.send_bytes(b"x" * (MAX_MESSAGE_BYTES + 1))
        message = await socket.receive()
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)


async def test_plain_request_to_the_websocket_is_told_to_upgrade(
    origin: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{origin}/ws") as answer:
        assert answer.status == 426


async def test_events_keep_coming(origin: str, http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(3), http.get(f"{origin}/events") as answer:
        assert answer.content_type == "text/event-stream"
        lines = [await answer.content.readline() for _ in range(5)]
    assert lines[::2] == [b"data: tick 1\n", b"data: tick 2\n", b"data: tick 3\n"]


@pytest.mark.parametrize(
    ("query", "status", "lines"),
    [
        pytest.param("?seconds=3", 200, 3, id="as asked"),
        pytest.param("", 200, 5, id="default"),
        pytest.param("?seconds=100000", 200, 60, id="bounded"),
        pytest.param("?seconds=-1", 200, 0, id="negative"),
        pytest.param("?seconds=x", 400, 1, id="not a number"),
    ],
)
async def test_slow_answer_takes_as_many_ticks(
    origin: str, http: aiohttp.ClientSession, query: str, status: int, lines: int
) -> None:
    async with http.get(f"{origin}/slow{query}") as answer:
        text = await answer.text()
    assert (answer.status, text.count("\n")) == (status, lines)


async def test_body_is_echoed(origin: str, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{origin}/echo", data=b"\x00body") as answer:
        assert await answer.read() == b"\x00body"


async def test_live_page_opens_both_kinds_of_connection(
    origin: str, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{origin}/live") as answer:
        text = await answer.text()
    assert "/ws" in text
    assert "/events" in text
