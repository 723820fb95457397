"""One gibibyte each way through a real proxy process, whose memory does not notice."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.heim import user
from tests.integration.curl import curl
from tests.integration.nginx import Nginx, nginx
from tests.integration.process import HeimProcess, running
from tests.integration.setup import APP, alice_only, app_backend

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

MIB = 1024 * 1024
SIZE = 1024 * MIB

GROWTH = 48 * MIB
"""What the process may grow by while it passes a gibibyte; its buffers are a few MiB."""


@dataclass
class Site:
    """A proxy in front of nginx, and alice's cookie."""

    heim: HeimProcess
    nginx: Nginx
    cookie: str

    def peak(self) -> int:
        """The most memory the proxy has had, in bytes."""
        status = Path(f"/proc/{self.heim.process.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with (
        nginx(tmp_path / "nginx") as upstream,
        running(tmp_path, backends=[app_backend(upstream.url)], roles=alice_only()) as heim,
    ):
        cookie = await heim.signed_in(user("alice"), APP)
        assert (await heim.request("/version", cookie=cookie)).status == 200
        yield Site(heim, upstream, cookie)


def fill(path: Path) -> str:
    """Write SIZE bytes that differ from MiB to MiB; returns their digest."""
    block = bytearray(os.urandom(MIB))
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(SIZE // MIB):
            block[:4] = number.to_bytes(4, "big")
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def test_a_gibibyte_comes_down_at_constant_memory(site: Site, tmp_path: Path) -> None:
    digest = fill(site.nginx.www / "big.bin")
    before = site.peak()
    found = await curl(site.heim, "/big.bin", "--output", tmp_path / "got", cookie=site.cookie)
    assert (found.exit, found.status) == (0, 200)
    assert digest_of(tmp_path / "got") == digest
    assert site.peak() - before < GROWTH
    (tmp_path / "got").unlink()
    (site.nginx.www / "big.bin").unlink()


async def test_a_gibibyte_goes_up_at_constant_memory(site: Site, tmp_path: Path) -> None:
    digest = fill(tmp_path / "big")
    before = site.peak()
    found = await curl(
        site.heim, "/upload/big", "--upload-file", tmp_path / "big", cookie=site.cookie
    )
    assert (found.exit, found.status) == (0, 201)
    assert digest_of(site.nginx.www / "upload" / "big") == digest
    assert site.peak() - before < GROWTH
    (tmp_path / "big").unlink()
    (site.nginx.www / "upload" / "big").unlink()
