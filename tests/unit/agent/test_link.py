from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from heim_agent.differences import Differences, of_status
from heim_agent.link import Link
from heim_runtime.tasks import cancel, running, spawn
from heim_wire.errors import Code
from heim_wire.events import Accepted, GoAway, Reset
from tests.fakes.lane_host import AGENT, LaneHost, Peer, Streams, lane_host, refusing
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until

loops = pytest.mark.parametrize("loop", LOOPS)


class Running:
    """An agent that runs, and how it ended."""

    def __init__(self, host: LaneHost, lanes: int, environ: dict[str, str]) -> None:
        self.streams = Streams()
        self.state = Path(host.directory) / "state"
        self.link = Link(
            host.identity(),
            self.streams,
            lanes=lanes,
            connect_to=("127.0.0.1", host.port),
            environ=environ,
            fraction=lambda: 0.0,
        )
        self.task = spawn("link", self.link.run())

    def status(self) -> dict[str, Any]:
        path = self.state / "status.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found


@asynccontextmanager
async def agent(host: LaneHost, *, lanes: int = 1, **environ: str) -> AsyncIterator[Running]:
    """An agent of the host's, for the length of the block."""
    found = Running(host, lanes, environ)
    try:
        yield found
    finally:
        found.link.stop()
        found.link.stop()
        await asyncio.wait((found.task,), timeout=5)
        await cancel((found.task,))


@loops
def test_a_link_comes_up_and_says_so(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host, agent(host) as running:
            await until(lambda: running.link.connected)
            await until(lambda: running.status().get("connected"))
            told = running.status()
            assert (told["agent"], told["login_url"]) == (AGENT, "https://auth.example.test")
            [lane] = told["lanes"]
            assert (lane["state"], lane["replica"]) == ("connected", "replica-1")
            assert lane["targets"] == ["ssh", "web"]
            assert lane["since"] == pytest.approx(time.time(), abs=5)
            assert told["certificate"]["expires"] == pytest.approx(time.time() + 86_100, abs=20)

    run_on(loop, scenario())


def test_the_status_of_one_that_is_not_let_in_says_why_and_when(tmp_path: Path) -> None:
    async def scenario() -> None:
        script = refusing(Code.SUPERSEDED, "another desktop", reconnect_in=60.0)
        async with lane_host(tmp_path, script) as host, agent(host) as running:
            await until(lambda: running.status().get("last_error"))
            told = running.status()
            assert told["connected"] is False
            assert told["last_error"].startswith("another desktop; ")
            [lane] = told["lanes"]
            assert (lane["state"], lane["kind"]) == ("waiting", "superseded")
            assert lane["code"] == "superseded"
            assert lane["retry_at"] == pytest.approx(time.time() + 60, abs=5)

    run_on("asyncio", scenario())


def test_names_that_differ_are_in_the_log_and_the_status_and_compared_anew_when_they_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[tuple[list[str], list[str]]]:
        return [
            (vars(one)["missing"], vars(one)["unasked"])
            for one in caplog.records
            if one.getMessage() == "settings.differ"
        ]

    async def script(peer: Peer) -> None:
        await peer.let_in(targets=["shh", "web"], targets_whole=True)
        await peer.serve()

    async def scenario() -> None:
        async with lane_host(tmp_path, script) as host, agent(host) as running:
            running.link.serve(["web", "ssh"])
            await until(told)
            assert told() == [(["shh"], ["ssh"])]
            await until(lambda: running.status().get("connected"))
            shown = running.status()
            assert shown["serves"] == ["ssh", "web"]
            assert shown["config"] == running.link.identity.places.config
            assert shown["lanes"][0]["targets_whole"] is True
            assert of_status(shown) == Differences(("shh",), ("ssh",))
            running.link.serve(["web", "shh"])
            await until(lambda: running.status()["serves"] == ["shh", "web"])
            running.link.serve(["web"])
            assert told()[1:] == [(["shh"], [])]

    run_on("asyncio", scenario())


def test_a_clock_that_is_off_is_told_and_expiry_is_by_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host:
            host.ahead_s = 600.0
            async with agent(host) as running:
                await until(lambda: running.status().get("connected"))
                told = running.status()
        assert told["clock_off_s"] == pytest.approx(-600, abs=3)
        assert told["certificate"]["expires"] == pytest.approx(time.time() + 85_500, abs=20)

    run_on("asyncio", scenario())


@loops
@pytest.mark.parametrize("lanes", [2, 4])
def test_lanes_are_independent_and_of_one_run(loop: str, tmp_path: Path, lanes: int) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host, agent(host, lanes=lanes) as running:
            await until(lambda: sum(x.lane is not None for x in running.link._keepers) == lanes)
            hellos = [peer.hello for peer in host.peers]
            assert sorted(hello["lane"] for hello in hellos) == list(range(lanes))
            assert len({hello["boot"] for hello in hellos}) == 1
            assert len({hello["nonce"] for hello in hellos}) == lanes
            # One is lost; the others do not notice.
            lost = next(peer for peer in host.peers if peer.hello["lane"] == 0)
            lost.writer.transport.abort()
            await until(lambda: len(host.peers) == lanes + 1 and host.peers[-1].fields)
            assert sum(peer.ended for peer in host.peers) == 1

    run_on(loop, scenario())


def test_one_lane_finds_out_whether_the_agent_is_let_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        script = refusing(Code.REVOKED, reconnect_in=60.0)
        async with lane_host(tmp_path, script) as host, agent(host, lanes=4) as running:
            await until(lambda: running.status().get("last_error"))
            await asyncio.sleep(0.1)
            assert len(host.peers) == 1

    run_on("asyncio", scenario())


def test_a_proxy_that_wants_one_lane_gets_one(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in(lanes=1)
        await peer.serve()

    async def scenario() -> None:
        async with lane_host(tmp_path, script) as host, agent(host, lanes=4) as running:
            await until(lambda: running.link.connected)
            await asyncio.sleep(0.1)
            assert len(host.peers) == 1

    run_on("asyncio", scenario())


@loops
def test_the_number_of_lanes_changes_while_it_runs(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host, agent(host) as running:
            await until(lambda: running.link.connected)
            running.link.resize(3)
            await until(lambda: len(host.peers) == 3 and all(p.fields for p in host.peers))
            await until(lambda: sum(x.lane is not None for x in running.link._keepers) == 3)
            running.link.resize(1)
            await until(lambda: sum(peer.ended for peer in host.peers) == 2)
            assert running.link.connected
            assert host.peers[0].ended is False

    run_on(loop, scenario())


@loops
def test_a_stop_says_goodbye_lets_streams_end_and_leaves_nothing(loop: str, tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        stream = peer.open()
        await peer.until(lambda: peer.seen(Accepted))
        await peer.until(lambda: peer.seen(GoAway))
        stream.send(b"last words")
        await peer.until(lambda: peer.received.get(stream.id) == b"last words")
        stream.end()
        await peer.serve()
        assert not peer.seen(Reset)

    async def scenario() -> None:
        before = set(running())
        async with lane_host(tmp_path, script) as host, agent(host) as found:
            await until(lambda: found.streams.live)
            began = time.monotonic()
            found.link.stop()
            await found.task
            assert time.monotonic() - began < 3.0
            assert found.streams.finished == 10.0
            assert not (found.state / "status.json").exists()
            assert host.peers[0].websocket.closed is not None
        await asyncio.sleep(0)
        assert not set(running()) - before

    run_on(loop, scenario())


def test_a_second_stop_does_not_wait(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        peer.open()
        await peer.serve()

    async def scenario() -> None:
        async with lane_host(tmp_path, script) as host, agent(host) as found:
            await until(lambda: found.streams.live)
            found.link.stop()
            await asyncio.sleep(0.05)
            assert not found.task.done()
            found.link.stop()
            async with asyncio.timeout(2):
                await found.task

    run_on("asyncio", scenario())


@loops
def test_a_stop_while_nothing_is_connected_is_at_once(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host:
            await host.vanish()
            async with agent(host) as found:
                await until(lambda: found.link._keepers and found.link._keepers[0].attempts > 1)
                found.link.stop()
                async with asyncio.timeout(2):
                    await found.task

    run_on(loop, scenario())


def test_a_proxy_that_does_not_answer_goodbye_holds_up_nothing(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.let_in()
        await peer.host.closing.wait()

    async def scenario() -> None:
        async with lane_host(tmp_path, script) as host, agent(host) as found:
            await until(lambda: found.link.connected)
            found.link.stop()
            async with asyncio.timeout(4):
                await found.task
            host.closing.set()

    run_on("asyncio", scenario())


@loops
def test_the_service_manager_is_told_what_happens(loop: str, tmp_path: Path) -> None:
    said: list[str] = []

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(str(tmp_path / "notify"))
            sock.setblocking(False)

            def told(what: str) -> bool:
                try:
                    while True:
                        said.extend(sock.recv(4096).decode().split("\n"))
                except BlockingIOError:
                    return any(what in line for line in said)

            environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
            async with lane_host(tmp_path) as host, agent(host, **environ) as found:
                await until(lambda: told("READY=1"))
                await until(lambda: told("connected to auth.example.test (1 of 1 lanes)"))
                await until(lambda: told("x") or said.count("WATCHDOG=1") > 2)
                host.script = refusing(Code.REVOKED, reconnect_in=60.0)
                host.peers[0].writer.transport.abort()
                await until(lambda: told("not connected to auth.example.test: this agent was"))
                found.link.stop()
                await found.task
                assert told("STOPPING=1")

    run_on(loop, scenario())


@loops
def test_27_a_loop_that_was_blocked_for_three_seconds_loses_nothing(
    loop: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with lane_host(tmp_path) as host, agent(host) as found:
            await until(lambda: found.link.connected)
            time.sleep(3.0)
            stream = host.peers[0].open()
            stream.send(b"alive")
            await until(lambda: host.peers[0].received.get(stream.id) == b"alive")
            assert len(host.peers) == 1

    run_on(loop, scenario())
