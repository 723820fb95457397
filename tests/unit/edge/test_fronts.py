from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.unit.edge.wires import theatre


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_only_tls_is_read_into_a_lent_buffer(tmp_path: Path, secure: bool) -> None:
    async with theatre(tmp_path) as stage:
        front = stage.client(secure=secure).front
        # uvloop takes whatever is an asyncio.Protocol for one that wants bytes.
        assert isinstance(front, asyncio.BufferedProtocol) is secure
        assert isinstance(front, asyncio.Protocol) is not secure
        assert not hasattr(front, "__dict__")


async def test_all_tls_connections_share_one_buffer(tmp_path: Path) -> None:
    async with theatre(tmp_path) as stage:
        fronts = [stage.client().front for _ in range(2)]
        assert all(isinstance(front, asyncio.BufferedProtocol) for front in fronts)
        first, second = (front.get_buffer(100) for front in fronts)  # type: ignore[attr-defined]
        assert first is second
