"""What `heim-proxy demo` prints to be pasted, pasted into a shell while it runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.demo import Demo, demo, paste
from tests.fakes.real import require

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

# One per line that is printed, in order: its exit status, and what it has to say.
EXPECTED = [
    (0, '"verified": false'),
    (0, "HTTP/1.1 401"),
    (1, "REFUSED"),
    # Nobody yet, unless the agent has joined by then.
    (0, r"nobody is signed in|^\S+\toffice\t"),
    (1, "0 sessions revoked"),
]


async def test_every_line_to_paste_does_what_it_says(tmp_path: Path) -> None:
    require("curl")
    async with demo(tmp_path) as running:
        found = [await paste(line) for line in running.to_paste]
    assert [one.status for one in found] == [status for status, _ in EXPECTED], found
    for one, (_, said) in zip(found, EXPECTED, strict=True):
        assert re.search(said, one.out + one.err)


async def test_what_everybody_sees_ends_where_the_public_routes_end(tmp_path: Path) -> None:
    require("curl")
    async with demo(tmp_path) as running:
        assert await _status(running, "/") == "200"
        assert await _status(running, "/admin") == "404"


async def _status(running: Demo, path: str) -> str:
    authority = running.directory / "ca.pem"
    found = await paste(
        f"curl -sS --cacert {authority} -o /dev/null -w '%{{http_code}}' {running.status}{path}"
    )
    return found.out
