"""A person signs a command line in with a real browser, and uses TCP as who they are."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.e2e.browser import Person, chromium
from tests.e2e.demo import Demo
from tests.e2e.demo import demo as running_demo
from tests.integration.tunnel import HEIM_TUNNEL, Run, run

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

LOGIN_S = 20.0
CODE = r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b"


@dataclass(frozen=True)
class Terminal:
    """Somebody's terminal: a home for logins, and programs run in it."""

    demo: Demo
    home: Path

    @property
    def env(self) -> dict[str, str]:
        return {"HEIM_TUNNEL_HOME": str(self.home), "BROWSER": "/bin/false"}

    def at(self, host: str) -> str:
        return f"{host}.localhost:{self.demo.auth.rpartition(':')[2]}"

    async def run(self, *args: str, stdin: bytes = b"") -> Run:
        return await run(HEIM_TUNNEL, *args, stdin=stdin, env=self.env)

    @asynccontextmanager
    async def login(self, *options: str, until: str = r"https://\S+") -> AsyncIterator[str]:
        """Start `heim-tunnel login`; gives what it said to do, once that holds `until`."""
        process = await asyncio.create_subprocess_exec(
            HEIM_TUNNEL, "login", *options, "--ca-file", str(self.demo.directory / "ca.pem"),
            self.at("auth"),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env={**os.environ, **self.env},
        )  # fmt: skip
        assert process.stderr is not None
        said = ""
        try:
            async with asyncio.timeout(LOGIN_S):
                while not re.search(until, said):
                    line = await process.stderr.readline()
                    assert line, said
                    said += line.decode()
                yield said
                out, err = await process.communicate()
            assert (process.returncode, out) == (0, b""), said + err.decode()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Demo]:
    async with running_demo(tmp_path_factory.mktemp("demo")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(demo: Demo) -> AsyncIterator[Browser]:
    async with chromium(demo.directory / "tls" / "server.crt") as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def person(browser: Browser) -> AsyncIterator[Person]:
    async with Person.at(browser) as somebody:
        yield somebody


@pytest.fixture
def terminal(demo: Demo, tmp_path: Path) -> Terminal:
    return Terminal(demo, tmp_path / "home")


async def signed_in_with_a_browser(terminal: Terminal, person: Person, name: str) -> Page:
    page = await terminal.demo.sign_in(person, name)
    async with terminal.login("--no-browser") as said:
        url = re.search(r"https://\S+", said)
        assert url is not None
        await page.goto(url[0])
        await page.click("button[type=submit] >> nth=0")
        await page.wait_for_url("http://127.0.0.1:*/**")
    return page


async def test_alice_signs_in_and_speaks_tcp(terminal: Terminal, person: Person) -> None:
    page = await signed_in_with_a_browser(terminal, person, "alice")
    assert "close this" in await page.inner_text("body")
    done = await terminal.run("proxy", terminal.at("tcp"), stdin=b"hello\n")
    assert (done.status, done.out) == (0, b"hello\n"), done.err
    listed = await terminal.run("list")
    assert b"tcp.localhost" in listed.out
    status = await terminal.run("status")
    assert b"alice@example.com" in status.out
    assert person.complaints == []


async def test_mallory_reads_in_one_line_why_not_within_two_seconds(
    terminal: Terminal, person: Person
) -> None:
    await signed_in_with_a_browser(terminal, person, "mallory")
    began = time.monotonic()
    done = await terminal.run("proxy", terminal.at("tcp"))
    took = time.monotonic() - began
    assert (done.status, done.out) == (77, b"")
    assert re.fullmatch(r"heim-tunnel: tcp\.localhost.*mallory@example\.com.*\n", done.err)
    assert took < 2


async def test_a_code_typed_in_a_browser_signs_a_headless_machine_in(
    terminal: Terminal, person: Person
) -> None:
    page = await terminal.demo.sign_in(person, "bob")
    async with terminal.login("--device", until=CODE) as said:
        url, code = re.search(r"https://\S+", said), re.search(CODE, said)
        assert url is not None
        assert code is not None
        await page.goto(url[0])
        await page.fill("input[type=text]", code[0])
        await page.press("input[type=text]", "Enter")
        await page.click("button[value=approve]")
    done = await terminal.run("proxy", terminal.at("tcp"), stdin=b"from a box")
    assert (done.status, done.out) == (0, b"from a box"), done.err


async def test_logout_ends_the_login_and_its_streams(terminal: Terminal, person: Person) -> None:
    await signed_in_with_a_browser(terminal, person, "alice")
    stream = await asyncio.create_subprocess_exec(
        HEIM_TUNNEL, "proxy", terminal.at("tcp"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env={**os.environ, **terminal.env},
    )  # fmt: skip
    assert stream.stdin is not None
    assert stream.stdout is not None
    stream.stdin.write(b"open")
    assert await stream.stdout.readexactly(4) == b"open"
    assert (await terminal.run("logout")).status == 0
    async with asyncio.timeout(2.5):
        _, err = await stream.communicate()
    assert stream.returncode == 77
    assert b"heim-tunnel: tcp.localhost" in err
    # The authority was remembered with the login, and is forgotten with it.
    ca_file = str(terminal.demo.directory / "ca.pem")
    again = await terminal.run("proxy", "--ca-file", ca_file, terminal.at("tcp"))
    assert again.status == 77
    assert "heim-tunnel login" in again.err
