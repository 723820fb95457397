"""Requests to providers: bounded in time and size, and never led elsewhere."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from heim_proxy.identity.fetch import MAX_BODY_BYTES, Fetcher
from heim_proxy.identity.login_errors import LoginError, ProviderDown, ProviderFault


class Server:
    """A loopback server whose answers tests choose by path."""

    def __init__(self) -> None:
        self.seen: list[web.BaseRequest] = []
        self.context: ssl.SSLContext | None = None
        self.url = ""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append(request)
        kind = request.path.removeprefix("/")
        if kind == "redirect":
            return web.Response(status=302, headers={"Location": f"{self.url}/ok"})
        if kind == "slow":
            await asyncio.sleep(60)
        if kind == "huge":
            return web.Response(body=b"x" * (MAX_BODY_BYTES + 1))
        if kind == "endless":
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(b"x" * 65536)
            except ConnectionError:
                return response
        if kind.isdigit():
            return web.Response(status=int(kind), body=b"{}")
        return web.Response(body=await request.read() or b"{}", headers={"Set-Cookie": "a=b"})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    made = Fetcher(timeout_s=0.3)
    yield made
    await made.close()


async def test_an_answer_is_read_whole(server: Server, fetcher: Fetcher) -> None:
    answer = await fetcher.get(f"{server.url}/ok", step="test")
    assert (answer.status, answer.body) == (200, b"{}")


async def test_a_form_is_posted_as_it_is(server: Server, fetcher: Fetcher) -> None:
    answer = await fetcher.post_form(f"{server.url}/ok", "a=%2F+", step="test")
    assert answer.body == b"a=%2F+"
    assert server.seen[0].content_type == "application/x-www-form-urlencoded"


async def test_no_cookies_are_kept_and_no_compression_is_asked_for(
    server: Server, fetcher: Fetcher
) -> None:
    for _ in range(2):
        await fetcher.get(f"{server.url}/ok", step="test")
    assert all("Cookie" not in request.headers for request in server.seen)
    assert all(request.headers["Accept-Encoding"] == "identity" for request in server.seen)


async def test_a_redirect_is_not_followed(server: Server, fetcher: Fetcher) -> None:
    with pytest.raises(ProviderFault):
        await fetcher.get(f"{server.url}/redirect", step="test")
    assert [request.path for request in server.seen] == ["/redirect"]


@pytest.mark.parametrize("kind", ["huge", "endless"])
async def test_a_body_over_the_limit_is_a_fault(
    server: Server, fetcher: Fetcher, kind: str
) -> None:
    with pytest.raises(ProviderFault):
        await fetcher.get(f"{server.url}/{kind}", step="test")


@pytest.mark.parametrize("kind", ["slow", "500", "503", "429"])
async def test_slow_and_failing_is_down(server: Server, fetcher: Fetcher, kind: str) -> None:
    with pytest.raises(ProviderDown) as caught:
        await fetcher.get(f"{server.url}/{kind}", step="test")
    assert caught.value.step == "test"


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        pytest.param("http://127.0.0.1:1/a/b?code=canary#canary",
                     "127.0.0.1:1/a/b: connection refused", id="nobody listens"),
        pytest.param("http://canary:canary@127.0.0.1:1/",
                     "127.0.0.1:1/: connection refused", id="user part"),
        pytest.param("https://nosuch.invalid/a?code=canary",
                     "nosuch.invalid/a: name does not resolve", id="no such name"),
        pytest.param("http://127.0.0.1:1/" + "x" * 300,
                     "127.0.0.1:1/" + "x" * 188 + "...: connection refused", id="long path"),
        pytest.param("{server}/slow?code=canary", "{place}/slow: timed out after 0.3s", id="slow"),
        pytest.param("{server}/503?code=canary", "{place}/503: HTTP 503", id="503"),
        pytest.param("{server}/redirect?code=canary", "{place}/redirect: HTTP 302, a redirect",
                     id="redirect"),
        pytest.param("{tls}/ok?code=canary", "{place}/ok: TLS handshake failed", id="no TLS"),
    ],
)  # fmt: skip
async def test_a_failure_names_the_place_and_the_reason_and_no_secret(
    server: Server, url: str, detail: str
) -> None:
    fetcher = Fetcher(timeout_s=0.3 if "slow" in url else 4.0)
    where = server.url.removeprefix("http://")
    try:
        with pytest.raises(LoginError) as caught:
            await fetcher.get(url.format(server=server.url, tls=f"https://{where}"), step="test")
    finally:
        await fetcher.close()
    assert caught.value.detail == detail.format(place=where)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "the answer broke off"),
    ],
    ids=["nothing", "not HTTP", "half"],
)
async def test_a_broken_answer_is_called_that(fetcher: Fetcher, answer: bytes, reason: str) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ProviderDown) as caught:
            await fetcher.get(f"http://127.0.0.1:{port}/x?code=canary", step="test")
    assert caught.value.detail == f"127.0.0.1:{port}/x: {reason}"


async def test_other_answers_are_the_callers_to_judge(server: Server, fetcher: Fetcher) -> None:
    assert (await fetcher.get(f"{server.url}/404", step="test")).status == 404


async def test_only_the_given_authority_is_believed(tmp_path: Path, fetcher: Fetcher) -> None:
    ours, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    runner = web.ServerRunner(web.Server(Server().answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}/ok"
    try:
        for authority, good in ((other, False), (ours, True)):
            # Rewritten between two requests: the next one believes the new authority.
            authority.cert_pem.write_to_path(str(file))
            if good:
                assert (await fetcher.get(url, step="test", ca_file=file)).status == 200
            else:
                with pytest.raises(ProviderDown):
                    await fetcher.get(url, step="test", ca_file=file)
        with pytest.raises(ProviderDown, match="/ok: certificate not trusted: unable to get"):
            await fetcher.get(url, step="test")
        with pytest.raises(ProviderDown, match=r"ca_file .*missing\.pem cannot be read"):
            await fetcher.get(url, step="test", ca_file=tmp_path / "missing.pem")
    finally:
        await runner.cleanup()


async def test_closing_twice_is_harmless(server: Server) -> None:
    made = Fetcher()
    await made.get(f"{server.url}/ok", step="test")
    await made.close()
    await made.close()
