"""The tunnel over time: reapers, sleeping machines, networks that lose everything, gibibytes.

Everything here waits as long as people would. Numbers in names are those of tunnel.md, section 6.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.fakes.middlebox import stuck
from tests.fakes.waiting import until
from tests.integration.network import PROXY_ADDRESS
from tests.integration.test_tunnel_middleboxes import FRONT_ENDS, echo_site
from tests.integration.test_tunnel_network import apart
from tests.integration.tunnel import Stream, stream

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

MIB = 1024 * 1024
# DEAD_AFTER of heim_wire.liveness, its busy-loop grace, and a loaded machine.
NOTICED_S = 35.0


@pytest.mark.parametrize("name", FRONT_ENDS)
async def test_25_an_idle_stream_outlives_a_60_s_idle_reaper(tmp_path: Path, name: str) -> None:
    async with (
        echo_site(tmp_path) as site,
        FRONT_ENDS[name](tmp_path / "front", site.port, idle_s=60) as front,
    ):
        way = ("--connect-to", f"127.0.0.1:{front.port}", "--ca-file", str(front.ca_file))
        with stream(site, "echo", *way) as opened:
            await echoed(opened, b"before")
            await asyncio.sleep(150)
            await echoed(opened, b"after")
            assert opened.process.stdin is not None
            opened.process.stdin.close()
            assert await asyncio.to_thread(opened.process.wait, 10) == 0


async def echoed(opened: Stream, data: bytes) -> None:
    await opened.send(data)
    assert await opened.read(len(data)) == data


async def test_22_and_24_a_network_that_loses_everything_is_noticed_at_both_ends(
    tmp_path: Path,
) -> None:
    """As a NAT that forgot us, or a cable: no FIN, no RST; one stream is silent, one is writing."""
    async with apart(tmp_path) as place:
        way = {"within": place.network.within("client")}
        options = ("--connect-to", f"{PROXY_ADDRESS}:443")
        with (
            stream(place.site, "web1", *options, **way) as idle,
            stream(place.site, "web1", *options, **way) as busy,
        ):
            for opened in (idle, busy):
                await echoed(opened, b"open")
            assert place.echo.open == 2
            writing = asyncio.ensure_future(write_on(busy))
            await asyncio.sleep(0.5)
            await place.network.lose_everything()
            began = time.monotonic()
            took = await asyncio.gather(*(over(opened, began) for opened in (idle, busy)))
            writing.cancel()
            assert max(took) <= NOTICED_S, took
            for opened in (idle, busy):
                assert opened.process.returncode == 69
                said = opened.said()
                assert "the connection to the proxy was lost" in said
                assert said.count("\n") == 1
            await until(lambda: place.echo.open == 0, began + NOTICED_S + 5 - time.monotonic())
            log = place.site.heim.log
            await until(lambda: len(log.read_text().splitlines()) == 2)
            ends = [json.loads(line)["end"] for line in log.read_text().splitlines()]
            # By silence, or by the kernel that waited for an acknowledgement.
            assert set(ends) <= {"peer_lost", "client_gone"}


async def write_on(opened: Stream) -> None:
    """Upload without end; what comes back is read."""
    with suppress(OSError, AssertionError, TimeoutError):
        while True:
            await asyncio.gather(opened.send(bytes(65_536)), opened.read(65_536, NOTICED_S + 5))


async def over(opened: Stream, began: float) -> float:
    """How long after `began` it ended."""
    await until(lambda: opened.process.poll() is not None, NOTICED_S + 10)
    return time.monotonic() - began


async def test_22_a_way_that_takes_nothing_any_more_is_left(tmp_path: Path) -> None:
    """Half open: TCP is alive and acknowledges, its window is shut, nothing comes back."""
    async with echo_site(tmp_path) as site, stuck(site.port) as way:
        with stream(site, "echo", "--connect-to", f"127.0.0.1:{way.port}") as opened:
            await echoed(opened, b"open")
            way.freeze()
            writing = asyncio.ensure_future(opened.send(bytes(64 * MIB)))
            took = await over(opened, time.monotonic())
            with suppress(BrokenPipeError):
                await writing
            assert opened.process.returncode == 69
            assert took <= NOTICED_S
            assert "the connection to the proxy was lost" in opened.said()


async def test_23_a_machine_that_slept(tmp_path: Path) -> None:
    """A stopped process is what a sleeping machine looks like to its peer.

    For a moment: it goes on. For longer than the proxy waits, or while the way broke: one line.
    """
    async with echo_site(tmp_path) as site, stuck(site.port) as way:
        at_way = ("--connect-to", f"127.0.0.1:{way.port}")
        with (
            stream(site, "echo") as short,
            stream(site, "echo") as long,
            stream(site, "echo", *at_way) as cut,
        ):
            for opened in (short, long, cut):
                await echoed(opened, b"open")
                opened.process.send_signal(signal.SIGSTOP)
            way.freeze()
            await asyncio.sleep(12)
            short.process.send_signal(signal.SIGCONT)
            await echoed(short, b"still there")
            cut.process.send_signal(signal.SIGCONT)
            # Its own clock went on, so it knows how long nothing came.
            assert await over(cut, time.monotonic()) <= NOTICED_S - 12
            assert cut.process.returncode == 69
            await asyncio.sleep(28)
            long.process.send_signal(signal.SIGCONT)
            assert await over(long, time.monotonic()) <= 5
            assert long.process.returncode == 69
            for opened in (long, cut):
                said = opened.said()
                assert "the connection to the proxy was lost" in said
                assert said.count("\n") == 1
            await echoed(short, b"and still")


async def test_11_a_gibibyte_each_way_in_chunks_of_any_size(tmp_path: Path) -> None:
    size = 1024 * MIB
    sent, heard = hashlib.sha256(), hashlib.sha256()
    source = random.Random(11)

    async def send(opened: Stream) -> None:
        left = size
        while left:
            data = os.urandom(min(left, source.choice((1, 17, 16_367, 65_537, 1_000_003))))
            sent.update(data)
            left -= len(data)
            await opened.send(data)

    async def hear(opened: Stream) -> None:
        left = size
        while left:
            data = await opened.read(min(left, source.randint(1, 200_000)), 60)
            heard.update(data)
            left -= len(data)

    async with echo_site(tmp_path) as site:
        with stream(site, "echo") as opened:
            async with asyncio.timeout(240):
                await asyncio.gather(send(opened), hear(opened))
            assert opened.process.stdin is not None
            opened.process.stdin.close()
            assert await asyncio.to_thread(opened.process.wait, 10) == 0
    assert heard.digest() == sent.digest()
