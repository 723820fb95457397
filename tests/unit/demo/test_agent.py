from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest

from heim_proxy.demo.agent import DemoAgent
from heim_proxy.demo.files import DemoFiles
from heim_proxy.demo.programs import Programs

PROXY = """\
print("heim_jt_token")
"""
AGENT = """\
import pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
if sys.argv[1] == "join":
    (here / "joined").write_text(sys.stdin.read().strip() + " " + " ".join(sys.argv[1:]))
    if (here / "refuse").exists():
        sys.exit("heim-agent: the token was used")
else:
    def stop(*_):
        (here / "stopped").touch()
        sys.exit()
    signal.signal(signal.SIGTERM, stop)
    (here / "running").touch()
    while not (here / "die").exists():
        time.sleep(5)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    """Programs that note what they are asked."""
    made = []
    for name, text in (("proxy", PROXY), ("agent", AGENT)):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
        made.append(str(path))
    return Programs(made[0], "heim-tunnel", made[1])


def demo_agent(tmp_path: Path, programs: Programs, out: io.StringIO) -> DemoAgent:
    files = DemoFiles(tmp_path)
    return DemoAgent(files, programs, login_url="https://auth.localhost:8443", out=out)


async def appears(path: Path) -> None:
    async with asyncio.timeout(5):
        while not path.exists():
            await asyncio.sleep(0.01)


async def told(out: io.StringIO) -> str:
    async with asyncio.timeout(5):
        while not out.getvalue():
            await asyncio.sleep(0.01)
    return out.getvalue()


async def test_it_joins_with_a_token_runs_and_ends_with_the_block(
    tmp_path: Path, programs: Programs
) -> None:
    out = io.StringIO()
    async with demo_agent(tmp_path, programs, out):
        await appears(tmp_path / "running")
    joined = (tmp_path / "joined").read_text()
    assert joined.startswith("heim_jt_token join https://auth.localhost:8443 --token-file -")
    assert (tmp_path / "stopped").exists()
    assert out.getvalue() == ""


async def test_why_it_could_not_join_is_printed(tmp_path: Path, programs: Programs) -> None:
    (tmp_path / "refuse").touch()
    out = io.StringIO()
    async with demo_agent(tmp_path, programs, out):
        said = await told(out)
    assert said == "  The agent office could not join: heim-agent: the token was used\n"
    assert not (tmp_path / "running").exists()


async def test_programs_that_are_not_installed_are_printed(tmp_path: Path) -> None:
    out = io.StringIO()
    nowhere = Programs("/nowhere/heim-proxy", "/nowhere/t", "/nowhere/a")
    async with demo_agent(tmp_path, nowhere, out):
        assert "No such file or directory: '/nowhere/heim-proxy'" in await told(out)


async def test_its_own_end_is_printed(tmp_path: Path, programs: Programs) -> None:
    (tmp_path / "die").touch()
    out = io.StringIO()
    async with demo_agent(tmp_path, programs, out):
        assert "ended with status 0; see" in await told(out)
