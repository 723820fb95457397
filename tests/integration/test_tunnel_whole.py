"""`heim-tunnel proxy` as a process, through a whole proxy, with alice's login on disk."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from heim_proxy.identity.refresh_tokens import begin
from heim_proxy.identity.session import Session
from heim_proxy.live import EndReason
from heim_proxy.portal.forms import csrf_token
from tests.fakes.heim import DOMAIN, LOGIN_HOST, authority, user
from tests.fakes.tunnel import TcpServer, TunnelSite, rst, tcp_backend, tunnel_role, tunnel_site
from tests.fakes.tunnel_cli import environment, write_login

MIB = 1024 * 1024
HOST = f"web1.{DOMAIN}"


@dataclass
class Person:
    """Somebody's directory of logins, and their `heim-tunnel`."""

    site: TunnelSite
    home: Path
    session: Session

    @classmethod
    async def at(cls, site: TunnelSite, home: Path, name: str = "alice") -> Person:
        """Somebody whose login has run out of its access token, as after lunch."""
        sessions = site.heim.proxy._sessions
        assert sessions is not None
        browser = await site.heim.session(user(name))
        row, refresh = begin(site.clock.now())
        session = await sessions.create_cli(
            browser, label="test", refresh=row, now=site.clock.now()
        )
        write_login(home, domains=[DOMAIN], access_expires=1.0, refresh_token=refresh.reveal())
        authority().cert_pem.write_to_path(home / "ca.pem")
        return cls(site, home, session)

    @asynccontextmanager
    async def tunnel(
        self, host: str = HOST, *options: str, **env: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "heim_tunnel",
            "proxy",
            "--ca-file",
            str(self.home / "ca.pem"),
            "--connect-to",
            f"127.0.0.1:{self.site.heim.https_port}",
            *options,
            host,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(self.home) | env,
            limit=MIB,
        )
        try:
            async with asyncio.timeout(15):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def run(
        self, host: str = HOST, *options: str, stdin: bytes = b"", **env: str
    ) -> tuple[int | None, bytes, str]:
        async with self.tunnel(host, *options, **env) as process:
            out, err = await process.communicate(stdin)
        return process.returncode, out, err.decode()

    def stored(self) -> dict[str, Any]:
        path = self.home / "logins" / f"{LOGIN_HOST}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[TunnelSite]:
    dark = tcp_backend("dark", "127.0.0.1:1")
    async with tunnel_site(
        tmp_path, backends=[dark], roles=[tunnel_role("ops", "web1", "dark")]
    ) as started:
        yield started


@pytest.fixture
async def alice(site: TunnelSite, tmp_path: Path) -> Person:
    return await Person.at(site, tmp_path)


async def test_an_ended_token_is_renewed_at_the_login_host_on_the_way(alice: Person) -> None:
    before = alice.stored()
    assert await alice.run(stdin=b"hello") == (0, b"hello", "")
    after = alice.stored()
    assert after["refresh_token"] != before["refresh_token"]
    assert after["access_expires"] > time.time() + 60
    assert after["user"] == "alice@example.com"
    assert after["login_url"] == f"https://{LOGIN_HOST}"
    # And the new one is used as it is.
    assert await alice.run(stdin=b"again") == (0, b"again", "")
    assert alice.stored() == after


async def test_five_at_once_renew_once_and_all_get_through(alice: Person) -> None:
    done = await asyncio.gather(*(alice.run(stdin=b"%d" % number) for number in range(5)))
    assert [(status, err) for status, _, err in done] == [(0, "")] * 5
    assert sorted(out for _, out, _ in done) == [b"0", b"1", b"2", b"3", b"4"]


async def test_by_the_login_host_a_backend_is_reached_by_its_name(alice: Person) -> None:
    done = await alice.run("web1", stdin=b"hello", HEIM_PROXY=LOGIN_HOST)
    assert done == (0, b"hello", "")
    assert (await alice.run(HOST, stdin=b"x", HEIM_PROXY=LOGIN_HOST))[0] == 0


async def test_11_64_mib_go_up_and_come_down_unchanged(alice: Person) -> None:
    data = os.urandom(64 * MIB)
    status, out, err = await alice.run(stdin=data)
    assert (status, err) == (0, "")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


async def test_4_a_reset_of_the_upstream_is_no_clean_end(alice: Person, site: TunnelSite) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2)
        rst(writer)

    site.upstream.script = script
    async with alice.tunnel() as process:
        assert process.stdin is not None
        process.stdin.write(b"go")
        assert process.stdout is not None
        assert await process.stdout.read() == b""
        assert process.stderr is not None
        err = (await process.stderr.read()).decode()
        assert await process.wait() == 69
    assert err.startswith(f"heim-tunnel: {HOST}: ")
    assert "(request " in err


async def test_4_what_kills_us_resets_the_upstream(alice: Person, site: TunnelSite) -> None:
    async with alice.tunnel() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"open")
        assert await process.stdout.readexactly(4) == b"open"
        process.kill()
        await site.heim.until(lambda: site.upstream.ended)
    assert site.upstream.ended == "reset"


async def test_43_a_session_that_is_revoked_ends_the_tunnel_within_two_seconds(
    alice: Person, site: TunnelSite
) -> None:
    sessions = site.heim.proxy._sessions
    assert sessions is not None
    async with alice.tunnel() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"open")
        assert await process.stdout.readexactly(4) == b"open"
        began = time.monotonic()
        await sessions.end(alice.session.sid, EndReason.REVOKED, site.clock.now())
        _, err = await process.communicate()
        assert time.monotonic() - began < 2
        assert process.returncode == 77
    assert err.startswith(f"heim-tunnel: {HOST}: ".encode())
    assert err.count(b"\n") == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [("role taken away", 77), ("backend removed", 68), ("upstream moved", 75)],
    ids=["role taken away", "backend removed", "upstream moved"],
)
async def test_44_a_policy_that_narrows_ends_the_tunnel_within_two_seconds(
    alice: Person, site: TunnelSite, change: str, status: int
) -> None:
    dark = tcp_backend("dark", "127.0.0.1:1")
    changes: dict[str, dict[str, Any]] = {
        "role taken away": {"roles": [tunnel_role("ops", "dark")]},
        "backend removed": {"backends": [dark], "roles": [tunnel_role("ops", "dark")]},
        "upstream moved": {"backends": [dark, tcp_backend("web1", "127.0.0.1:2")]},
    }
    async with alice.tunnel() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"open")
        assert await process.stdout.readexactly(4) == b"open"
        began = time.monotonic()
        await site.change(**changes[change])
        _, err = await process.communicate()
        assert time.monotonic() - began < 2
    assert process.returncode == status, err
    assert err.startswith(f"heim-tunnel: {HOST}: ".encode())
    assert err.count(b"\n") == 1
    assert site.upstream.ended == "reset"


async def test_42_a_login_that_ends_is_announced_and_then_ends_the_tunnel(tmp_path: Path) -> None:
    """The proxy's clock jumps; `heim-tunnel` believes its token to be young, and renews nothing."""
    async with tunnel_site(tmp_path, session={"lifetime": "10m", "idle": "10m"}) as site:
        alice = await Person.at(site, tmp_path)
        async with alice.tunnel() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(b"open")
            assert await process.stdout.readexactly(4) == b"open"
            await site.later(301)
            warned = (await process.stderr.readline()).decode()
            process.stdin.write(b"on")
            assert await process.stdout.readexactly(2) == b"on"
            await site.later(300)
            _, err = await process.communicate()
        assert process.returncode == 77
    assert warned.startswith(f"heim-tunnel: {HOST}: your login ends at ")
    assert err.count(b"\n") == 1
    assert b"run: heim-tunnel login" in err


async def test_21_what_its_owner_signs_out_on_the_page_ends_within_two_seconds(
    alice: Person, site: TunnelSite
) -> None:
    browser = await site.heim.session(user("alice"))
    cookie = site.heim.cookie(browser, LOGIN_HOST)
    form = {"csrf": csrf_token(cookie.partition("=")[2], "devices"), "sid": alice.session.sid}
    async with alice.tunnel() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"open")
        assert await process.stdout.readexactly(4) == b"open"
        began = time.monotonic()
        answer = await site.heim.request(
            "/.heim/devices",
            host=LOGIN_HOST,
            method="POST",
            cookie=cookie,
            headers=(
                ("Origin", f"https://{LOGIN_HOST}"),
                ("Content-Type", "application/x-www-form-urlencoded"),
            ),
            body=urlencode(form).encode(),
        )
        assert answer.status == 303
        _, err = await process.communicate()
        assert time.monotonic() - began < 2
        assert process.returncode == 77
    assert err.startswith(f"heim-tunnel: {HOST}: ".encode())


@pytest.mark.parametrize(
    ("host", "status", "text"),
    [
        (f"nobody.{DOMAIN}", 68, "nothing is served here"),
        (f"dark.{DOMAIN}", 69, "the upstream of dark cannot be reached: connection refused"),
    ],
    ids=["no such target", "refused upstream"],
)
async def test_what_cannot_be_reached_is_one_line(
    alice: Person, host: str, status: int, text: str
) -> None:
    found, out, err = await alice.run(host)
    assert (found, out) == (status, b""), err
    assert err.startswith(f"heim-tunnel: {host}: ")
    assert text in err
    assert err.count("\n") == 1


async def test_who_may_not_reads_why(site: TunnelSite, tmp_path: Path) -> None:
    (tmp_path / "mallory").mkdir()
    mallory = await Person.at(site, tmp_path / "mallory", "mallory")
    status, out, err = await mallory.run()
    assert (status, out) == (77, b"")
    assert err.startswith(f"heim-tunnel: {HOST}: ")
    assert "mallory@example.com" in err
    assert err.count("\n") == 1


async def test_a_stranger_is_told_where_to_sign_in(alice: Person, tmp_path: Path) -> None:
    """The proxy's own 401 names the login host; without a terminal nothing is opened."""
    (alice.home / "logins" / f"{LOGIN_HOST}.json").unlink()
    async with alice.tunnel() as process:
        _, err = await process.communicate()
    assert process.returncode == 77
    assert b"run: heim-tunnel login" in err


async def test_a_login_that_was_ended_elsewhere_is_signed_in_again(
    alice: Person, site: TunnelSite
) -> None:
    """Its token's time is not over: the proxy's 401 says so, and the refresh is refused, too."""
    sessions = site.heim.proxy._sessions
    assert sessions is not None
    assert (await alice.run(stdin=b"x"))[0] == 0
    await sessions.end(alice.session.sid, EndReason.REVOKED, site.clock.now())
    async with alice.tunnel(BROWSER="true") as process:
        assert process.stderr is not None
        said = b""
        while b"/.heim/cli/authorize?" not in said:
            line = await process.stderr.readline()
            assert line, said
            said += line
        process.terminate()
        await process.wait()
    assert b"the session has ended; signing in at auth.example.test" in said


async def test_a_server_that_talks_first_is_heard_at_once(alice: Person, site: TunnelSite) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-test\r\n")
        await reader.read()

    site.upstream.script = script
    async with alice.tunnel() as process:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"SSH-2.0-test\r\n"
        assert isinstance(site.upstream, TcpServer)
