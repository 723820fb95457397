"""`heim-proxy demo` as a process, and what it printed."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Page, Response

from heim_proxy.demo.loopback import free_port
from tests.e2e.browser import Person
from tests.integration.process import HEIM_PROXY, Finished

__all__ = ["Demo", "demo", "paste"]

START_DEADLINE_S = 15.0
STOP_DEADLINE_S = 5.0
PASTE_DEADLINE_S = 20.0


@dataclass(frozen=True)
class Demo:
    """A running demo."""

    directory: Path
    start: str
    app: str
    status: str
    auth: str
    office: str
    text: str

    async def sign_in(self, person: Person, name: str, path: str = "/") -> Page:
        """As the printed text says: open the link with the secret, choose who to be."""
        page = await person.tab()
        await page.goto(self.start)
        if path != "/":
            await page.goto(f"{self.app}{path}")
        await self.choose(page, name)
        return page

    async def choose(self, page: Page, name: str) -> Response:
        """Press somebody's button on the provider's page; the answer of the page it leads to."""
        async with page.expect_navigation(wait_until="load") as navigation:
            await page.click(f"button[value={name}]")
        answer = await navigation.value
        assert answer is not None
        return answer

    @property
    def to_paste(self) -> list[str]:
        """The commands that the text says to paste, with the ends of lines they have."""
        block = self.text.partition("Or paste")[2].partition("\n")[2]
        return re.findall(r"^    (\S.*(?:(?<=\\)\n.*)*)", block, re.MULTILINE)


@asynccontextmanager
async def demo(directory: Path) -> AsyncIterator[Demo]:
    """Start the demo, read what it prints, and end it as Ctrl-C would."""
    with (directory / "demo.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            HEIM_PROXY,
            "demo",
            "--dir",
            str(directory / "demo"),
            "--port",
            str(free_port(8443)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ},
        )
    assert process.stdout is not None
    try:
        text = ""
        async with asyncio.timeout(START_DEADLINE_S):
            while "Ctrl-C" not in text:
                line = await process.stdout.readline()
                assert line, (directory / "demo.log").read_text()
                text += line.decode()
        yield Demo(
            directory / "demo",
            start=_found(r"http://127\.0\.0\.1:\d+/start/\S+", text),
            app=_found(r"https://app\.localhost:\d+", text),
            status=_found(r"https://status\.localhost:\d+", text),
            auth=_found(r"https://auth\.localhost:\d+", text),
            office=_found(r"https://office\.localhost:\d+", text),
            text=text,
        )
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(STOP_DEADLINE_S):
            await process.communicate()


async def paste(line: str) -> Finished:
    """Run a line in a shell of somebody whose PATH has no heim-proxy."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        line,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
    )
    async with asyncio.timeout(PASTE_DEADLINE_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, text
    return match[0]
