"""One served stream; what several of them do is in test_serving.py."""

from __future__ import annotations

import asyncio
import logging
import struct
from pathlib import Path

import pytest

from heim_agent.stream import ServedStream
from heim_wire.errors import Code
from tests.fakes.agent_streams import served, tcp
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.tunnel import TcpServer, rst
from tests.fakes.waiting import until

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)


@ON_BOTH_LOOPS
def test_a_target_that_resets_is_told_to_the_user_as_such(
    loop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def slam(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        rst(writer)

    async def scenario() -> None:
        behind = await TcpServer(script=slam).start()
        try:
            async with served(tmp_path, tcp("ssh", behind.port)) as site:
                asked = site.open()
                await asked.opened()
                asked.send(b"x")
                assert (await asked.refused())[0] == Code.CONNECTION_RESET
                await site.quiet()
        finally:
            await behind.stop()

    run_on(loop, scenario())
    ended = [record for record in caplog.records if record.getMessage() == "stream.ended"]
    assert [vars(record)["end"] for record in ended] == ["connection_reset"]


@ON_BOTH_LOOPS
def test_the_last_bytes_before_a_targets_end_arrive(loop: str, tmp_path: Path) -> None:
    async def farewell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"z" * 300_000)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async def scenario() -> None:
        behind = await TcpServer(script=farewell).start()
        try:
            async with served(tmp_path, tcp("ssh", behind.port)) as site:
                asked = site.open()
                await until(lambda: asked.is_ended)
                assert asked.received == b"z" * 300_000
                # The user's half is open still.
                asked.send(b"thanks")
                asked.end()
                await until(lambda: asked.is_finished)
        finally:
            await behind.stop()

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_lost_lane_resets_its_targets(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        behind = await TcpServer().start()
        try:
            async with served(tmp_path, tcp("ssh", behind.port)) as site:
                await site.open().opened()
                site.far.channel.abort()
                await until(lambda: behind.ended == "reset")
                await site.quiet()
        finally:
            await behind.stop()

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_the_header_goes_first_even_when_bytes_wait_already(loop: str, tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(16)
        await reader.readexactly(struct.unpack_from("!H", head, 14)[0])
        seen.append(await reader.readexactly(60_000))

    async def scenario() -> None:
        behind = await TcpServer(script=script).start()
        try:
            async with served(tmp_path, tcp("ssh", behind.port, proxy_protocol=True)) as site:
                asked = site.open()
                asked.send(b"e" * 60_000)
                await until(lambda: seen)
        finally:
            await behind.stop()

    run_on(loop, scenario())
    assert seen == [b"e" * 60_000]


def test_it_shows_whose_it_is(tmp_path: Path) -> None:
    async def scenario() -> None:
        behind = await TcpServer().start()
        try:
            async with served(tmp_path, tcp("ssh", behind.port)) as site:
                await site.open().opened()
                (stream,) = site.serving._open
                assert isinstance(stream, ServedStream)
                assert repr(stream) == "<ServedStream ssh for 'alice@example.com'>"
        finally:
            await behind.stop()

    run_on("asyncio", scenario())
