"""Handshakes over real sockets, on both loops, plain and over TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from heim_wire.aio.channel import Channel
from heim_wire.aio.connection import Connection, serve, upgrade
from heim_wire.errors import Code
from heim_wire.events import Hello
from heim_wire.handshake import Upgrade, answer_upgrade
from heim_wire.problem import Refused
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until
from tests.unit.wire.passages import (
    Watcher,
    client_context,
    server_context,
    sessions,
)

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)
OVER_BOTH = pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])


class Door(asyncio.Protocol):
    """A server's connection until it is upgraded: reads one head, `answer` does the rest."""

    def __init__(self, answer: Callable[[Door, str, bytes], None]) -> None:
        self._answer = answer
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
            self._answer(self, lines["Sec-WebSocket-Key"], rest)


class Meeting:
    """A client's connection to a server that answers with `answer`."""

    def __init__(self) -> None:
        self.watcher, self.server_watcher = Watcher(), Watcher()
        self.session, self.server_session = sessions()
        self.request = Upgrade("localhost", token="t")
        self.server: Channel | None = None
        self.connection = Connection()
        self.answer = self.welcome

    def welcome(self, door: Door, key: str, rest: bytes) -> None:
        """Agree, and take over."""
        door.transport.write(answer_upgrade(key))
        self.server = serve(
            door.transport, self.server_session, self.server_watcher, early=rest, single=True
        )

    async def upgraded(self, timeout_s: float = 2.0) -> Channel:
        return await upgrade(
            self.connection, self.request, self.session, self.watcher, timeout_s=timeout_s
        )


def meet(
    loop: str,
    scenario: Callable[[Meeting], Awaitable[None]],
    answer: Callable[[Door, str, bytes], None] | None = None,
    *,
    tls: bool = False,
) -> None:
    async def staged() -> None:
        meeting = Meeting()
        meeting.answer = answer or meeting.welcome
        running = asyncio.get_running_loop()
        listener = await running.create_server(
            lambda: Door(lambda *told: meeting.answer(*told)), "127.0.0.1", 0,
            ssl=server_context() if tls else None,
        )  # fmt: skip
        await running.create_connection(
            lambda: meeting.connection,
            *listener.sockets[0].getsockname(),
            ssl=client_context() if tls else None,
            server_hostname="localhost" if tls else None,
        )
        try:
            await scenario(meeting)
        finally:
            listener.close()
            if meeting.connection.transport is not None:
                meeting.connection.transport.abort()
            await until(lambda: meeting.connection.transport is None)
            if meeting.server is not None:
                await until(lambda: meeting.server_watcher.ends)

    run_on(loop, staged())


@ON_BOTH_LOOPS
@OVER_BOTH
def test_both_ends_become_channels(loop: str, tls: bool) -> None:
    async def scenario(meeting: Meeting) -> None:
        channel = await meeting.upgraded()
        await until(lambda: meeting.watcher.events and meeting.server_watcher.events)
        assert type(meeting.watcher.events[0]) is type(meeting.server_watcher.events[0]) is Hello
        channel.finish()
        await until(lambda: meeting.watcher.ends and meeting.server_watcher.ends)
        assert meeting.watcher.ends == meeting.server_watcher.ends == [(0, "")]

    meet(loop, scenario, tls=tls)


@ON_BOTH_LOOPS
@OVER_BOTH
def test_what_follows_the_101_at_once_is_not_lost(loop: str, tls: bool) -> None:
    """A proxy writes 101, HELLO, READY and an ssh banner in one piece, and then more."""
    banner = b"SSH-2.0-x\r\n" + bytes(150_000)
    got = bytearray()

    class Sink:
        def data(self, payload: bytes | memoryview) -> None:
            got.extend(payload)

        def reset(self, code: int, reason: str) -> None:
            pass

    async def scenario(meeting: Meeting) -> None:
        def answer(door: Door, key: str, rest: bytes) -> None:
            meeting.server_session.adopt().send(banner)
            meeting.welcome(door, key, rest)

        meeting.answer = answer
        channel = await meeting.upgraded()
        channel.session.adopt().context = Sink()
        await until(lambda: len(got) == len(banner))
        assert bytes(got) == banner

    meet(loop, scenario, tls=tls)


@ON_BOTH_LOOPS
@OVER_BOTH
def test_a_refusal_is_raised_and_the_connection_closed(loop: str, tls: bool) -> None:
    body = b'{"code": "forbidden", "detail": "alice may not"}'

    def answer(door: Door, key: str, rest: bytes) -> None:
        door.transport.write(
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/problem+json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    async def scenario(meeting: Meeting) -> None:
        with pytest.raises(Refused, match="alice may not") as raised:
            await meeting.upgraded()
        assert raised.value.code == "forbidden"
        await until(lambda: meeting.connection.transport is None)

    meet(loop, scenario, answer, tls=tls)


@ON_BOTH_LOOPS
def test_a_refusal_without_a_length_ends_with_the_connection(loop: str) -> None:
    def answer(door: Door, key: str, rest: bytes) -> None:
        door.transport.write(
            b'HTTP/1.1 503 No\r\nContent-Type: application/problem+json\r\n\r\n{"code":"busy"}'
        )
        door.transport.close()

    async def scenario(meeting: Meeting) -> None:
        with pytest.raises(Refused) as raised:
            await meeting.upgraded()
        assert raised.value.code == "busy"

    meet(loop, scenario, answer)


@ON_BOTH_LOOPS
@OVER_BOTH
def test_a_server_that_hangs_up_is_named(loop: str, tls: bool) -> None:
    async def scenario(meeting: Meeting) -> None:
        with pytest.raises(Refused, match="closed the connection without an answer"):
            await meeting.upgraded()

    meet(loop, scenario, lambda door, key, rest: door.transport.abort(), tls=tls)


@ON_BOTH_LOOPS
def test_a_server_that_says_nothing_is_given_up(loop: str) -> None:
    async def scenario(meeting: Meeting) -> None:
        with pytest.raises(TimeoutError):
            await meeting.upgraded(timeout_s=0.02)
        await until(lambda: meeting.connection.transport is None)

    meet(loop, scenario, lambda door, key, rest: None)


@ON_BOTH_LOOPS
def test_a_connection_that_breaks_right_after_the_101_ends_its_channel(loop: str) -> None:
    def answer(door: Door, key: str, rest: bytes) -> None:
        door.transport.write(answer_upgrade(key))
        door.transport.close()

    async def scenario(meeting: Meeting) -> None:
        await meeting.upgraded()
        await until(lambda: meeting.watcher.ends)
        assert meeting.watcher.ends[0][0] == Code.PEER_LOST

    meet(loop, scenario, answer)
