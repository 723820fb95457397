"""One gibibyte each way through the tunnel by every program that people use, byte for byte."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_nginx import MIB
from tests.integration.transfers import (
    Desktop,
    by_git,
    by_psql,
    by_redis,
    by_rsync,
    by_scp,
    by_sftp,
    by_ssh,
    desktop_site,
)

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(400)]

GIB = 1024 * MIB
PATIENCE_S = 180.0


@pytest.fixture
async def desktop(tmp_path: Path) -> AsyncIterator[Desktop]:
    async with desktop_site(tmp_path, patience_s=PATIENCE_S) as started:
        yield started


@pytest.mark.parametrize("transfer", [by_ssh, by_sftp, by_rsync, by_git])
async def test_a_gibibyte_by_ssh(desktop: Desktop, tmp_path: Path, transfer: Any) -> None:
    await transfer(desktop, tmp_path, GIB)


@pytest.mark.parametrize("flag", ["-O", "-s"], ids=["scp protocol", "sftp protocol"])
async def test_a_gibibyte_by_scp(desktop: Desktop, tmp_path: Path, flag: str) -> None:
    await by_scp(desktop, tmp_path, GIB, flag)


async def test_a_gibibyte_by_psql(tmp_path: Path) -> None:
    await by_psql(tmp_path, GIB, patience_s=PATIENCE_S)


async def test_a_gibibyte_by_redis_cli(tmp_path: Path) -> None:
    await by_redis(tmp_path, GIB)
