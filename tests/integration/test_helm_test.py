"""What `helm test` runs in a pod, against the real heim-proxy."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.fakes.heim import LOGIN_HOST
from tests.fakes.upstream import Upstream
from tests.integration.process import running
from tests.integration.setup import public_backend

SCRIPT = Path(__file__).parents[2] / "charts/heim/files/signing_in.py"


async def ran(host: str, http: int, https: int) -> tuple[int, str]:
    told = {"SERVICE": "127.0.0.1", "LOGIN_HOST": host}
    ports = {"HTTP_PORT": str(http), "HTTPS_PORT": str(https)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), env={**os.environ, **told, **ports},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def test_it_passes_where_people_can_sign_in(tmp_path: Path, upstream: Upstream) -> None:
    async with running(tmp_path, backends=[public_backend(upstream.url)]) as heim:
        assert await ran(LOGIN_HOST, heim.http_port, heim.https_port) == (
            0, f"{LOGIN_HOST} answers at 127.0.0.1\n",
        )  # fmt: skip


async def test_it_fails_where_they_cannot(tmp_path: Path, upstream: Upstream) -> None:
    async with running(tmp_path, backends=[public_backend(upstream.url)]) as heim:
        status, told = await ran("other.example.test", heim.http_port, heim.https_port)
    assert status == 1
    assert "http answers 404, not a redirect" in told
