from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from heim_proxy.edge.connection import Front
from heim_proxy.edge.dial import EndpointDialer
from heim_proxy.edge.limits import GOODBYE_S, KEEP_ALIVE_S, POOL_IDLE_S, SWEEP_S, WRITE_STALL_S
from heim_proxy.edge.pool import Pool
from tests.fakes.snapshots import app, configured, role, snapshot
from tests.unit.edge.wires import OK, Theatre, theatre, turns


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as built:
        yield built


class TestTrust:
    @pytest.mark.parametrize(
        ("address", "trusted"),
        [
            ("10.0.0.1", True),
            ("11.0.0.1", False),
            ("fd00::1", True),
            ("fe80::1", False),
            ("", False),
            ("unix", False),
        ],
    )
    async def test_only_configured_networks_are(
        self, tmp_path: Path, address: str, trusted: bool
    ) -> None:
        async with theatre(tmp_path, trusted_proxies=["10.0.0.0/8", "fd00::/8"]) as stage:
            assert stage.edge.trusts(address) is trusted
            assert stage.edge.trusts(address) is trusted

    async def test_nobody_is_by_default(self, stage: Theatre) -> None:
        assert not stage.edge.trusts("127.0.0.1")

    async def test_it_follows_the_configuration(self, stage: Theatre) -> None:
        assert not stage.edge.trusts("10.0.0.1")
        config = configured([app()], trusted_proxies=["10.0.0.0/8"])
        stage.edge.swap(snapshot(config, generation=2))
        assert stage.edge.trusts("10.0.0.1")

    async def test_remembered_addresses_are_bounded(self, stage: Theatre) -> None:
        for index in range(25_000):
            stage.edge.trusts(f"10.{index >> 16}.{index >> 8 & 255}.{index & 255}")
        assert len(stage.edge._trust) <= 10_000


class TestPools:
    async def test_equal_upstreams_of_two_routes_share_connections(self, stage: Theatre) -> None:
        http = [
            {"path": "/a", "upstream": "http://127.0.0.1:3000"},
            {"path": "/b", "upstream": "http://127.0.0.1:3000"},
        ]
        stage.edge.swap(
            snapshot(configured([app(http=http)], [role("r", "app/all")]), generation=2)
        )
        client = stage.client()
        for path in ("/a", "/b"):
            upstream = await stage.asked(client, stage.request(path))
            upstream.feed(OK)
        assert stage.upstream.asked == 1

    async def test_a_new_configuration_keeps_connections_it_still_needs(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        (await stage.asked(client)).feed(OK)
        config = configured([app()], [role("r", "app/all")])
        stage.edge.swap(snapshot(config, generation=2))
        await stage.asked(client)
        assert stage.upstream.asked == 1

    async def test_and_closes_those_it_does_not(self, stage: Theatre) -> None:
        client, busy = stage.client(), stage.client()
        (await stage.asked(client)).feed(OK)
        idle = stage.upstream.last
        await client.send(stage.request())
        second = stage.upstream.last
        assert second is idle
        await stage.asked(busy)
        working = stage.upstream.last
        idle.feed(OK)
        http = [{"path": "/", "upstream": "http://127.0.0.1:4000"}]
        config = configured([app(http=http)], [role("r", "app/all")])
        stage.edge.swap(snapshot(config, generation=2))
        await turns()
        assert idle.lost
        # What is under way finishes on its old connection, which is not kept.
        assert not working.lost
        working.feed(OK)
        await turns()
        assert working.lost
        assert busy.wire.taken().startswith(b"HTTP/1.1 200 ")

    async def test_tls_upstreams_are_verified_by_the_newest_authorities(
        self, stage: Theatre
    ) -> None:
        """The CA file may have the same name and hold another authority."""
        http = [{"path": "/", "upstream": "https://127.0.0.1:4000"}]
        for generation in (2, 3):
            new = snapshot(configured([app(http=http)]), generation=generation)
            stage.edge.swap(new)
            ((endpoint, context),) = new.endpoints.items()
            dialer = stage.edge._pool(endpoint)._dialer
            assert isinstance(dialer, EndpointDialer)
            assert context is not None
            assert dialer._context is context


class Unwell:
    """A connection whose deadlines cannot be checked."""

    aborted = False

    def check(self, now: float) -> None:
        raise RuntimeError("a bug")

    def abort(self) -> None:
        self.aborted = True


class TestSweep:
    async def test_one_that_cannot_be_checked_is_closed_and_the_others_are_checked(
        self, stage: Theatre
    ) -> None:
        unwell = Unwell()
        stage.edge._fronts.add(cast("Front", unwell))
        late = stage.client()
        late.front.check(stage.edge.loop.time())
        late.front._deadline -= KEEP_ALIVE_S + 1
        sweep = asyncio.ensure_future(stage.edge.sweep())
        try:
            async with asyncio.timeout(SWEEP_S * 4):
                while not (unwell.aborted and late.over):
                    await asyncio.sleep(0.01)
            assert not sweep.done()
        finally:
            sweep.cancel()
            stage.edge._fronts.discard(cast("Front", unwell))

    async def test_one_that_waits_for_nothing_is_passed_over_until_it_does(
        self, stage: Theatre
    ) -> None:
        """Ten thousand agents do nothing; when one is to go, that has to be soon."""
        client, now = stage.client(), stage.edge.loop.time()
        client.front.expect(math.inf, "lane")
        stage.edge._check_fronts(now)
        assert stage.edge._parked == {client.front}
        client.front.expect(GOODBYE_S, "flush")
        assert not stage.edge._parked
        stage.edge._check_fronts(now + SWEEP_S)
        stage.edge._check_fronts(now + SWEEP_S * 2)
        assert client.wire.aborted

    async def test_one_that_is_passed_over_may_stall_no_longer_than_others(
        self, stage: Theatre
    ) -> None:
        client, now = stage.client(), stage.edge.loop.time()
        client.front.expect(math.inf, "lane")
        stage.edge._check_fronts(now)
        client.front.pause_writing()
        stage.edge._check_fronts(now + WRITE_STALL_S - 2)
        assert not client.wire.aborted
        stage.edge._check_fronts(now + WRITE_STALL_S + 12)
        assert client.wire.aborted

    async def test_one_that_is_passed_over_can_go(self, stage: Theatre) -> None:
        client = stage.client()
        client.front.expect(math.inf, "lane")
        stage.edge._check_fronts(stage.edge.loop.time())
        client.front.connection_lost(None)
        assert not stage.edge._parked
        assert not stage.edge._fronts

    async def test_it_checks_connections_pools_and_decisions(self, stage: Theatre) -> None:
        idle, busy = stage.client(), stage.client()
        (await stage.asked(idle)).feed(OK)
        pooled = stage.upstream.last
        (pool,) = stage.edge._pools.values()
        pool._idle[0].idle_since -= POOL_IDLE_S + 1
        idle.front.check(stage.edge.loop.time())
        idle.front._deadline -= KEEP_ALIVE_S + 1
        await busy.send(stage.request())
        sweep = asyncio.ensure_future(stage.edge.sweep())
        stage.stage.clock.time = stage.alice.expires
        try:
            async with asyncio.timeout(SWEEP_S * 4):
                while not (idle.over and busy.wire.written):
                    await asyncio.sleep(0.01)
        finally:
            sweep.cancel()
        assert busy.wire.taken().startswith(b"HTTP/1.1 401 ")
        assert pooled.is_closing() or pooled.lost


class TestDrain:
    async def test_without_connections_it_is_over_at_once(self, stage: Theatre) -> None:
        async with asyncio.timeout(1):
            await stage.edge.drain(30.0)
        assert stage.edge.draining

    async def test_it_waits_for_answers_and_not_a_moment_longer(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        draining = asyncio.ensure_future(stage.edge.drain(30.0))
        await turns()
        assert not draining.done()
        upstream.feed(OK)
        async with asyncio.timeout(1):
            await draining
        assert b"Connection: close" in client.wire.taken()

    async def test_what_is_left_when_time_is_up_is_told_why(self, stage: Theatre) -> None:
        client = stage.client()
        await stage.asked(client)
        async with asyncio.timeout(3):
            await stage.edge.drain(0.05)
        assert client.wire.taken().startswith(b"HTTP/1.1 503 ")
        await turns()
        assert client.over
        assert len(stage.stage.live) == 0

    async def test_a_client_that_does_not_leave_is_dropped(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 200 OK\r\n\r\ndata")

        def stuck() -> None:
            """A socket that never empties."""

        client.wire.close = stuck  # type: ignore[method-assign]
        async with asyncio.timeout(3):
            await stage.edge.drain(0.05)
        assert client.wire.aborted

    async def test_pools_are_closed(self, stage: Theatre) -> None:
        client = stage.client()
        (await stage.asked(client)).feed(OK)
        await stage.edge.drain(0.05)
        await turns()
        assert stage.upstream.last.lost
        assert all(isinstance(pool, Pool) and not len(pool) for pool in stage.edge._pools.values())


async def test_a_dial_that_comes_too_late_serves_the_next_exchange(stage: Theatre) -> None:
    stage.upstream.hold = asyncio.Event()
    gone, next_one = stage.client(), stage.client()
    await gone.send(stage.request("/gone"))
    gone.wire.hang_up()
    stage.upstream.hold.set()
    await turns()
    wire = stage.upstream.last
    assert wire.taken() == b""
    await next_one.send(stage.request("/next"))
    assert wire.taken().startswith(b"GET /next ")


async def test_a_connection_that_waited_unused_may_go_stale_like_any(stage: Theatre) -> None:
    stage.upstream.hold = asyncio.Event()
    gone, next_one = stage.client(), stage.client()
    await gone.send(stage.request("/gone"))
    gone.wire.hang_up()
    stage.upstream.hold.set()
    await turns()
    await next_one.send(stage.request("/next"))
    stage.upstream.last.hang_up()
    await turns()
    assert next_one.wire.taken() == b""
    assert stage.upstream.last.taken().startswith(b"GET /next ")


async def test_dialling_has_a_deadline_and_the_reason_is_told(tmp_path: Path) -> None:
    async with theatre(tmp_path, timeouts={"connect": "100ms"}) as stage:
        stage.upstream.hold = asyncio.Event()
        client = stage.client()
        await client.send(stage.request())
        async with asyncio.timeout(2):
            while not client.wire.written:
                await asyncio.sleep(0.01)
        told = client.wire.taken()
        assert told.startswith(b"HTTP/1.1 504 ")
        assert b"0.1s" in told
