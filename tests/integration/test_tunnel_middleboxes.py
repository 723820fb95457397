"""The tunnel through what companies and clouds put in between: nginx, haproxy, a CONNECT proxy."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.integration.middleboxes import haproxy_in_front, nginx_in_front, tinyproxy
from tests.integration.tunnel import TunnelSite, tcp_backend, tunnel_site

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

MIB = 1024 * 1024
FRONT_ENDS = {"nginx": nginx_in_front, "haproxy": haproxy_in_front}


@asynccontextmanager
async def echo_site(directory: Path) -> AsyncIterator[TunnelSite]:
    """A proxy whose backend `echo` sends everything back and then closes."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with tunnel_site(directory, [tcp_backend("echo", f"127.0.0.1:{port}")]) as site:
            yield site
    finally:
        server.close()


@pytest.mark.parametrize("name", FRONT_ENDS)
async def test_bytes_and_half_close_pass_a_front_end_that_terminates_tls(
    tmp_path: Path, name: str
) -> None:
    """Also what a TLS-intercepting company proxy does: another authority signs what we see."""
    sent = os.urandom(16 * MIB)
    async with (
        echo_site(tmp_path) as site,
        FRONT_ENDS[name](tmp_path / "front", site.port) as front,
    ):
        through = ("--connect-to", f"127.0.0.1:{front.port}", "--ca-file", str(front.ca_file))
        done = await site.tunnel("echo", sent, *through)
        assert done.status == 0, done.err
        assert hashlib.sha256(done.out).digest() == hashlib.sha256(sent).digest()
        refused = await site.tunnel("echo", b"", "--connect-to", f"127.0.0.1:{front.port}")
        assert refused.status == 69, refused.err
        assert "not trusted" in refused.err


async def test_a_company_proxy_that_wants_a_login_is_named_without_its_password(
    tmp_path: Path,
) -> None:
    async with (
        echo_site(tmp_path) as site,
        tinyproxy(tmp_path / "company", login=("alice", "s3cret")) as company,
    ):
        wrong = company.url.replace("//", "//alice:wr0ng@")
        # tinyproxy's answer to a wrong password is 401, whatever RFC 9110 says.
        for given, answered in ((company.url, "407"), (wrong, "401")):
            done = await site.by_name("echo", {"HTTPS_PROXY": given, "NO_PROXY": ""})
            assert done.status == 69
            assert f"{company.url} answered {answered}" in done.err
            assert "wr0ng" not in done.err


async def test_a_dead_company_proxy_is_named(tmp_path: Path) -> None:
    async with echo_site(tmp_path) as site:
        more = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
        done = await site.by_name("echo", more)
        assert done.status == 69
        assert "127.0.0.1:9" in done.err
        assert "refused" in done.err


async def test_no_proxy_keeps_the_company_proxy_out(tmp_path: Path) -> None:
    """Then the name is looked up here, where nobody knows it."""
    async with echo_site(tmp_path) as site:
        more = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "other.example,.example.test"}
        done = await site.by_name("echo", more)
        assert done.status == 68
        assert "127.0.0.1:9" not in done.err
