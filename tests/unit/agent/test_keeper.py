from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from heim_agent.clock import ProxyClock
from heim_agent.dialling import Way
from heim_agent.endings import Kind
from heim_agent.keeper import Keeper
from heim_agent.lane import Terms
from heim_agent.proof import Program
from heim_runtime.clock import SystemClock
from heim_runtime.tasks import cancel, spawn
from heim_wire.errors import Code
from heim_wire.events import Accepted
from heim_wire.window import WindowBudget
from tests.fakes.lane_host import (
    LOGIN_HOST,
    LaneHost,
    Peer,
    Script,
    Streams,
    answering,
    honest,
    lane_host,
    refusing,
)
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until

loops = pytest.mark.parametrize("loop", LOOPS)


class Time(SystemClock):
    """This machine's clock, in a machine that can be suspended."""

    slept = 0.0

    def now(self) -> float:  # type: ignore[override]
        return time.time() + self.slept


@asynccontextmanager
async def kept(
    host: LaneHost, *, jitter: float = 0.0, clock: Time | None = None, life_s: float = 86_400.0,
    begins: float = -300.0,
) -> AsyncIterator[Keeper]:  # fmt: skip
    """A keeper that runs; with `jitter` 0 every delay is 0."""
    way = Way(LOGIN_HOST, 443, str(host.ca_file), ("127.0.0.1", host.port))
    identity = host.identity(begins=begins, life_s=life_s)
    terms = Terms(identity, Streams(), Program("1.2", "den"), ProxyClock(), way, WindowBudget())
    keeper = Keeper(terms, 0, lambda: None, clock=clock, environ={}, fraction=lambda: jitter)
    task = spawn("keeper", keeper.run())
    try:
        yield keeper
    finally:
        await cancel((task,))
        for lane in (*keeper.drained, *([keeper.lane] if keeper.lane else [])):
            lane.abort()
        await until(lambda: not keeper.drained)


@loops
def test_a_lane_that_is_lost_is_opened_again(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host, kept(host) as keeper:
            for count in (1, 2, 3):
                await until(lambda count=count: len(host.peers) == count and keeper.lane)
                assert (keeper.state, keeper.ending, keeper.attempts) == ("connected", None, 0)
                host.peers[-1].writer.transport.abort()

    run_on(loop, scenario())


@loops
def test_21_a_proxy_that_was_killed_is_found_again_when_it_listens(
    loop: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host, kept(host, jitter=0.05) as keeper:
            await until(lambda: keeper.lane)
            await host.vanish()
            await until(lambda: keeper.ending and keeper.attempts > 2)
            assert keeper.ending is not None
            assert "connection refused" in keeper.ending.text
            await host.listen()
            began = time.monotonic()
            await until(lambda: keeper.lane)
            assert time.monotonic() - began < 2.0

    run_on(loop, scenario())


def test_how_it_ended_is_logged_with_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        script = refusing(Code.REVOKED)
        async with lane_host(tmp_path, script) as host, kept(host, jitter=0.9) as keeper:
            await until(lambda: keeper.ending)
            assert keeper.state == "waiting"
            assert keeper.retry_at > time.time()

    with caplog.at_level(logging.INFO):
        run_on("asyncio", scenario())
    [record] = [record for record in caplog.records if record.message == "lane.refused"]
    fields = vars(record)
    assert record.levelno == logging.ERROR
    assert fields["reason"] == "this agent was revoked"
    assert fields["code"] == "revoked"
    assert "heim-agent join" in fields["hint"]
    assert 4.0 < fields["retry_in_s"] < 5.0


@pytest.mark.parametrize(
    ("script", "event"),
    [
        (answering("404 Not Found"), "lane.failed"),
        (refusing(Code.GOING_AWAY), "lane.away"),
        (refusing(Code.UNAUTHENTICATED), "lane.refused"),
    ],
    ids=["404", "going away", "unauthenticated"],
)
def test_each_end_has_its_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, script: Script, event: str
) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path, script) as host, kept(host, jitter=0.9) as keeper:
            await until(lambda: keeper.ending)

    with caplog.at_level(logging.INFO):
        run_on("asyncio", scenario())
    assert event in [record.message for record in caplog.records]


def test_a_connection_that_came_and_broke_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()

    async def scenario() -> None:
        async with lane_host(tmp_path, script) as host, kept(host, jitter=0.9) as keeper:
            await until(lambda: keeper.ending)

    with caplog.at_level(logging.INFO):
        run_on("asyncio", scenario())
    assert [r.message for r in caplog.records if r.name == "heim_agent.keeper"] == [
        "lane.ready", "lane.lost",
    ]  # fmt: skip


def test_23_a_machine_that_wakes_does_not_wait_for_what_was_due(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Time()
        async with (
            lane_host(tmp_path, refusing(Code.BUSY, reconnect_in=300.0)) as host,
            kept(host, clock=clock) as keeper,
        ):
            await until(lambda: keeper.ending)
            assert keeper.ending is not None
            assert keeper.ending.kind is Kind.BUSY
            clock.slept += 600.0
            host.script = honest
            await until(lambda: keeper.lane)

    run_on("asyncio", scenario())


@loops
def test_40_a_restart_of_the_proxy_moves_to_another_lane_and_lets_streams_end(
    loop: str, tmp_path: Path
) -> None:
    async def leaving(peer: Peer) -> None:
        await peer.let_in()
        stream = peer.open()
        await peer.until(lambda: peer.seen(Accepted))
        peer.session.goaway(Code.GOING_AWAY, "restart", reconnect_in=0.01, drain=60.0)
        await peer.until(lambda: len(peer.host.peers) == 2)
        stream.send(b"still here")
        await peer.until(lambda: peer.received.get(stream.id) == b"still here")
        stream.end()
        await peer.until(lambda: not peer.session.streams)
        # The agent closes a lane that has nothing to do.
        await peer.serve()

    async def scenario() -> None:
        async with lane_host(tmp_path, leaving) as host, kept(host) as keeper:
            await until(lambda: keeper.drained)
            host.script = honest
            await until(lambda: keeper.lane)
            await until(lambda: not keeper.drained)
            assert host.peers[0].ended

    run_on(loop, scenario())


def test_a_drain_that_is_over_ends_streams(tmp_path: Path) -> None:
    async def leaving(peer: Peer) -> None:
        await peer.let_in()
        peer.open()
        await peer.until(lambda: peer.seen(Accepted))
        peer.session.goaway(Code.GOING_AWAY, "restart", reconnect_in=0.01, drain=0.2)
        await peer.serve()

    async def scenario() -> None:
        async with lane_host(tmp_path, leaving) as host, kept(host) as keeper:
            await until(lambda: keeper.drained)
            host.script = honest
            await until(lambda: not keeper.drained)
            assert host.peers[0].ended

    run_on("asyncio", scenario())


@loops
def test_45_a_certificate_is_renewed_when_it_is_time(loop: str, tmp_path: Path) -> None:
    async def renewing(peer: Peer) -> None:
        await peer.let_in()
        await peer.renewal()
        fresh = base64.b64encode(peer.host.certificate()).decode()
        peer.session.ready({"certificate": fresh})
        await peer.serve()

    async def scenario() -> None:
        async with (
            lane_host(tmp_path, renewing) as host,
            kept(host, begins=-70_000.0) as keeper,
        ):
            await until(lambda: keeper.lane)
            lane = keeper.lane
            assert lane is not None
            await until(lambda: lane.span.ends > time.time() + 80_000)
            assert not keeper.certificate_problem

    run_on(loop, scenario())


@pytest.mark.parametrize(
    ("begins", "level"),
    [(-60_000.0, logging.INFO), (-80_000.0, logging.ERROR)],
    ids=["in time", "late"],
)
def test_a_certificate_that_is_not_renewed_is_logged_the_louder_the_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begins: float, level: int
) -> None:
    async def refusing_it(peer: Peer) -> None:
        await peer.let_in()
        await peer.renewal()
        peer.session.notice("the authority is away")
        await peer.serve()

    async def scenario() -> None:
        async with lane_host(tmp_path, refusing_it) as host, kept(host, begins=begins) as keeper:
            await until(lambda: keeper.certificate_problem)
            assert keeper.certificate_problem == "the authority is away"

    with caplog.at_level(logging.INFO):
        run_on("asyncio", scenario())
    [record] = [record for record in caplog.records if record.message == "certificate.not_renewed"]
    assert record.levelno == level
    assert vars(record)["retry_in_s"] == 30


def test_46_a_certificate_is_renewed_by_the_proxys_time(tmp_path: Path) -> None:
    """The machine believes that it is ten hours later than it is."""

    async def scenario() -> None:
        async with lane_host(tmp_path) as host:
            host.ahead_s = -10 * 3600.0
            # By our clock it is due since long; by the proxy's it has seven hours to go.
            async with kept(host, begins=-60_000.0 - 10 * 3600.0 + 33_000.0) as keeper:
                await until(lambda: keeper.lane)
                await asyncio.sleep(0.1)
                assert len(host.peers[0].events) == 2

    run_on("asyncio", scenario())
