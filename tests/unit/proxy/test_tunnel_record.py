from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.observe.audit import AUDIT_LOGGER
from tests.fakes.tunnel import TunnelSite, tunnel_site

ONCALL = {
    "name": "oncall",
    "members": [{"user": "alice@example.com"}],
    "bindings": [],
    "break_glass": True,
}


async def events(site: TunnelSite, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the audit log says about one stream that was opened and closed."""
    caplog.set_level(logging.INFO, AUDIT_LOGGER)
    client = await site.connect()
    client.end()
    await client.until(lambda: client.ended)
    client.goodbye()
    await client.over()
    await site.heim.until(lambda: site.live == 0)
    return [vars(one) for one in caplog.records if one.name == AUDIT_LOGGER]


async def test_a_stream_that_finished_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with tunnel_site(tmp_path) as site:
        opened, closed = await events(site, caplog)
    assert (opened["message"], closed["message"]) == ("tunnel.opened", "tunnel.closed")
    assert opened["rule"] == "role ops: web1 tcp"
    assert closed["reason"] == "finished"
    assert 0 < closed["duration"] < 5
    assert opened["request_id"] == closed["request_id"]


async def test_breaking_the_glass_is_told_when_the_stream_opens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with tunnel_site(tmp_path, roles=[ONCALL]) as site:
        told = await events(site, caplog)
    assert [one["message"] for one in told] == [
        "tunnel.opened", "access.break_glass", "tunnel.closed",
    ]  # fmt: skip
    assert told[1]["backend"] == "web1"
