"""Serving, at the end of a real carriage, with real targets on loopback, on both loops."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from heim_agent.serving import Serving
from heim_agent.targets import Target
from heim_wire.errors import Code
from tests.fakes.agent_streams import Site, served, settings_of, tcp
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.tunnel import Script, TcpServer
from tests.fakes.waiting import until

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)
KIB = 1024


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a listener that answers no more SYNs, as a dead host does."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    waiting = [socket.socket() for _ in range(3)]
    for sock in waiting:
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
    try:
        yield listener.getsockname()[1]
    finally:
        for sock in (listener, *waiting):
            sock.close()


@asynccontextmanager
async def server(
    script: Script | None = None, *, path: str | None = None
) -> AsyncIterator[TcpServer]:
    """What is behind a target; an echo unless told otherwise."""
    started = await TcpServer(script=script).start(path=path)
    try:
        yield started
    finally:
        await started.stop()


def with_echo(
    loop: str, directory: Path, scenario: Callable[[Site, TcpServer], Awaitable[None]]
) -> None:
    """Run `scenario` with an agent that serves an echo as `ssh`."""

    async def staged() -> None:
        async with server() as echo, served(directory, tcp("ssh", echo.port)) as site:
            await scenario(site, echo)

    run_on(loop, staged())


@ON_BOTH_LOOPS
def test_a_stream_reaches_its_target_and_ends_in_good_order(loop: str, tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        asked = site.open()
        assert await asked.opened() == {"peer": f"127.0.0.1:{echo.port}"}
        asked.send(b"hello")
        await asked.got(b"hello")
        asked.end()
        await until(lambda: asked.is_finished)
        await site.quiet()

    with_echo(loop, tmp_path, scenario)


@ON_BOTH_LOOPS
def test_bytes_that_come_before_the_target_is_there_arrive_first(loop: str, tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        asked = site.open()
        asked.send(b"x" * 60 * KIB)
        await asked.opened()
        asked.send(b"y" * 200 * KIB)
        await asked.got(b"x" * 60 * KIB + b"y" * 200 * KIB)

    with_echo(loop, tmp_path, scenario)


@ON_BOTH_LOOPS
def test_a_half_closed_stream_still_delivers(loop: str, tmp_path: Path) -> None:
    async def last_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everything = await reader.read()
        writer.write(b"all of " + everything)
        await writer.drain()

    async def scenario() -> None:
        async with server(last_words) as behind, served(tmp_path, tcp("ssh", behind.port)) as site:
            asked = site.open()
            await asked.opened()
            asked.send(b"it")
            asked.end()
            await asked.got(b"all of it")
            await until(lambda: asked.is_finished)

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_unix_socket_is_a_target_like_any_other(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        path = str(tmp_path / "app.sock")
        target = Target(name="app", path=path)
        async with server(path=path), served(tmp_path, target) as site:
            asked = site.open("app")
            assert await asked.opened() == {"peer": f"unix:{path}"}
            asked.send(b"hello")
            await asked.got(b"hello")

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_target_that_wants_it_is_told_who_it_is_first(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            server() as echo,
            served(tmp_path, tcp("ssh", echo.port, proxy_protocol=True)) as site,
        ):
            asked = site.open()
            asked.send(b"SSH-2.0-x")
            await until(lambda: asked.received.endswith(b"SSH-2.0-x"))
            assert asked.received.startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11")
            assert socket.inet_aton("203.0.113.9") in asked.received
            assert b"\xe0\x00\x11alice@example.com" in asked.received

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_reset_of_the_proxys_resets_the_target(loop: str, tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        asked = site.open()
        await asked.opened()
        asked.cut(Code.REVOKED, "access was withdrawn")
        await until(lambda: echo.ended == "reset")
        await site.quiet()

    with_echo(loop, tmp_path, scenario)


@ON_BOTH_LOOPS
def test_a_target_that_is_down_is_said_to_be(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with served(tmp_path, tcp("ssh", port)) as site:
            assert await site.open().refused() == (Code.DIAL_REFUSED, "connection refused")

    run_on(loop, scenario())


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    ("timeout_s", "deadline_ms"), [(0.2, 60_000), (60.0, 200)], ids=["the target's", "the proxy's"]
)
def test_the_earlier_deadline_of_a_dial_counts(
    loop: str, tmp_path: Path, timeout_s: float, deadline_ms: int
) -> None:
    async def scenario() -> None:
        with black_hole() as port:
            async with served(tmp_path, tcp("ssh", port, connect_timeout_s=timeout_s)) as site:
                found = await site.open(deadline_ms=deadline_ms).refused()
                assert found == (Code.DIAL_TIMEOUT, "no answer within 0.2 s")

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_63_dials_that_hang_do_not_hold_up_another_target(loop: str, tmp_path: Path) -> None:
    """tunnel.md §6, case 34."""

    async def scenario() -> None:
        # A lane has 64 streams that were not answered, this one among them.
        with black_hole() as port:
            dead = tcp("dead", port, connect_timeout_s=30.0)
            async with (
                server() as echo,
                served(tmp_path, dead, tcp("ssh", echo.port)) as site,
            ):
                hanging = [site.open("dead") for _ in range(63)]
                asked = site.open("ssh")
                await asked.opened()
                assert not any(one.answer or one.refusal for one in hanging)

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_dial_that_nobody_wants_any_more_is_given_up(loop: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        with black_hole() as port:
            async with served(tmp_path, tcp("dead", port, connect_timeout_s=30.0)) as site:
                asked = site.open("dead")
                await until(lambda: site.serving.streams)
                asked.cut(Code.GOING_AWAY, "the user has gone")
                await site.quiet()
                await until(lambda: site.serving._dials.unanswered == 0)

    run_on(loop, scenario())


def test_a_target_that_is_taken_out_loses_its_streams(tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        kept, lost = site.open("ssh"), site.open("ssh")
        await kept.opened()
        await lost.opened()
        site.serving.swap(settings_of(tcp("ssh", echo.port, connect_timeout_s=1.0)))
        kept.send(b"still here")
        await kept.got(b"still here")
        site.serving.swap(settings_of(tcp("web", echo.port)))
        code, reason = await lost.refused()
        assert (code, reason) == (Code.FORBIDDEN, "ssh was taken out of the agent's targets")
        assert (await kept.refused())[0] == Code.FORBIDDEN
        await site.open("web").opened()

    with_echo("asyncio", tmp_path, scenario)


def test_a_role_that_is_asked_for_from_now_on_ends_streams_without_it(tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        member = site.open()
        other = site.open(assertion=site.assertion(roles=["dev"]))
        await member.opened()
        await other.opened()
        site.serving.swap(settings_of(tcp("ssh", echo.port, role="prod-ssh")))
        code, reason = await other.refused()
        assert code == Code.FORBIDDEN
        assert reason == "ssh needs the role prod-ssh, by a rule of the agent's own"
        member.send(b"still here")
        await member.got(b"still here")

    with_echo("asyncio", tmp_path, scenario)


@ON_BOTH_LOOPS
def test_finishing_waits_for_streams_and_then_ends_them(loop: str, tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        short, long = site.open(), site.open()
        await short.opened()
        await long.opened()
        finishing = asyncio.ensure_future(site.serving.finish(0.3))
        await asyncio.sleep(0)
        assert (await site.open().refused()) == (Code.GOING_AWAY, "the agent is stopping")
        short.send(b"last words")
        await short.got(b"last words")
        await finishing
        assert await long.refused() == (Code.GOING_AWAY, "the agent is stopping")

    with_echo(loop, tmp_path, scenario)


def test_finishing_is_over_when_the_last_stream_is(tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        asked = site.open()
        await asked.opened()
        finishing = asyncio.ensure_future(site.serving.finish(3600))
        asked.end()
        await finishing
        assert asked.refusal is None

    with_echo("asyncio", tmp_path, scenario)


def test_the_log_says_who_used_what_for_how_long_and_how_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(site: Site, echo: TcpServer) -> None:
        asked = site.open()
        await asked.opened()
        asked.send(b"12345")
        await asked.got(b"12345")
        asked.end()
        await site.quiet()

    with_echo("asyncio", tmp_path, scenario)
    opened, ended = [one for one in caplog.records if one.name == "heim_agent.journal"]
    assert opened.getMessage() == "stream.opened"
    assert ended.getMessage() == "stream.ended"
    for record in (opened, ended):
        facts = vars(record)
        assert facts["agent"] == "desktop"
        assert facts["target"] == "ssh"
        assert facts["user"] == "alice@example.com"
        assert facts["session"] == "00112233445566aa"
        assert facts["request_id"] == "01JREQUEST"
    assert vars(ended)["bytes_in"] == vars(ended)["bytes_out"] == 5
    assert vars(ended)["end"] == "done"
    assert 0 <= vars(ended)["seconds"] < 5


def test_it_shows_what_it_does(tmp_path: Path) -> None:
    async def scenario(site: Site, echo: TcpServer) -> None:
        assert repr(site.serving) == "<Serving 1 targets streams=0>"
        assert isinstance(site.serving, Serving)

    with_echo("asyncio", tmp_path, scenario)
