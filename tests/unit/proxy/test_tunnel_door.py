from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.edge.door import TUNNEL_PATH
from heim_proxy.live import EndReason
from heim_proxy.tunnel.door import Tunnel
from tests.fakes.sessions import Exchange
from tests.fakes.tunnel import TunnelSite, refused, tunnel_head, tunnel_site
from tests.unit.proxy.test_app import admin


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[TunnelSite]:
    async with tunnel_site(tmp_path) as built:
        yield built


def door_of(site: TunnelSite) -> Tunnel:
    edge = site.heim.proxy._edge
    assert edge is not None
    door = edge.door.at(TUNNEL_PATH)
    assert isinstance(door, Tunnel)
    return door


async def metrics(site: TunnelSite) -> dict[str, float]:
    _, body = await admin(site.heim, "/metrics")
    lines = body.decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("heim_tunnel_"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


async def test_streams_and_their_bytes_are_counted_while_they_run_and_after(
    site: TunnelSite,
) -> None:
    client = await site.connect()
    client.send(b"12345")
    await client.read(5)
    running = await metrics(site)
    assert running["heim_tunnel_streams"] == 1
    assert running["heim_tunnel_streams_opened_total"] == 1
    assert running['heim_tunnel_bytes_total{direction="up"}'] == 5
    assert running['heim_tunnel_bytes_total{direction="down"}'] == 5
    client.abort()
    await site.heim.until(lambda: site.live == 0)
    after = await metrics(site)
    assert after == {**running, "heim_tunnel_streams": 0}


async def test_refusals_are_counted_by_code(site: TunnelSite) -> None:
    await refused(site.heim, tunnel_head(None, host="web1.example.test"), sni="web1.example.test")
    found = await metrics(site)
    assert found['heim_tunnel_refused_total{code="unauthenticated"}'] == 1


async def test_what_ended_a_stream_is_counted(site: TunnelSite) -> None:
    await site.connect()
    site.heim.proxy._live.end_session(site.login.session, EndReason.REVOKED)
    await site.heim.until(lambda: site.live == 0)
    _, body = await admin(site.heim, "/metrics")
    assert b'heim_exchanges_ended_total{reason="revoked"} 1' in body


async def test_what_is_not_a_stream_is_not_judged_here(site: TunnelSite) -> None:
    other = Exchange(site.login.session)
    assert door_of(site).review(other) is None


async def test_a_stream_that_cannot_be_looked_after_harms_no_other(
    site: TunnelSite, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = await site.connect(), await site.connect()
    door = door_of(site)
    for stream in door._streams:
        if stream._passage.request_id == broken.readies[0]["request_id"]:
            stream._terms._target = None  # type: ignore[assignment]
        stream.due = float("-inf")
    door.tick(site.clock.now())
    failures = [one.message for one in caplog.records if one.levelname == "ERROR"]
    assert failures == ["tunnel.tick_failed"]
    await site.heim.until(lambda: len(door) == 1)
    fine.send(b"ping")
    assert await fine.read(4) == b"ping"


async def test_only_streams_that_have_something_to_do_are_looked_at(site: TunnelSite) -> None:
    await site.connect()
    door = door_of(site)
    door.tick(site.clock.now())
    (stream,) = door._streams
    assert stream.due > site.clock.now() + 3600
