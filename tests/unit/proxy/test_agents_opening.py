"""A stream until its answer; what becomes of it afterwards is the dialer's tests' and TLS's here.

TLS to a target, on both loops and with a whole proxy: tests/integration/test_agent_http.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from heim_proxy.agents.opening import Opening, Secured, Unanswered
from heim_proxy.edge.dial import AgentDialError, DialError
from heim_proxy.routing import Endpoint, UpstreamTls
from heim_wire.aio.relay import Relay
from heim_wire.aio.transport import StreamReset
from heim_wire.errors import Code
from heim_wire.events import Opened
from heim_wire.stream import State, Stream
from tests.fakes.waiting import until
from tests.unit.wire.passages import End, carriage, client_context, server_context

WEB = Endpoint("agent", "desktop", 0, UpstreamTls(server_name="localhost"), "web")


class Noted(asyncio.Protocol):
    """`broken` as `edge.upstream.Upstream` has it."""

    def __init__(self) -> None:
        self.broken: Exception | None = None
        self.transport: Any = None
        self.received = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


class Echo(asyncio.Protocol):
    """A service."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


@dataclass
class Site:
    machine: End
    lane: End
    asked: list[Opened] = field(default_factory=list)

    def stream(self) -> Stream:
        stream = self.lane.channel.session.open({"target": "web"})
        self.lane.channel.wake()
        return stream

    def opening(self) -> Opening:
        return Opening(self.lane.channel, self.stream(), WEB, Noted)

    def secured(self) -> Secured:
        return Secured(self.lane.channel, self.stream(), WEB, Noted, client_context())

    async def offered(self) -> Stream:
        await until(lambda: self.asked)
        return self.asked[-1].stream

    async def bridged(self, port: int) -> Stream:
        """The machine connects the stream with a service, as an agent does."""
        stream = await self.offered()
        relay = Relay(lambda *_: None)
        await asyncio.get_running_loop().create_connection(lambda: relay, "127.0.0.1", port)
        relay.join(self.machine.channel, stream)
        return stream


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with carriage(single=False) as (machine, lane):
        built = Site(machine, lane)
        machine.watcher.opened = lambda _, event: built.asked.append(event)
        await until(lambda: lane.channel.session.peer)
        yield built


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", 0, ssl=server_context())
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def test_what_comes_right_behind_the_answer_is_not_lost(site: Site) -> None:
    opening = site.opening()
    stream = await site.offered()
    stream.accept({})
    stream.send(b"banner")
    site.machine.channel.wake()
    protocol = await opening.protocol()
    assert isinstance(protocol, Noted)
    await until(lambda: protocol.received == b"banner")
    protocol.transport.abort()


@pytest.mark.parametrize(
    ("code", "again"), [(Code.DIAL_REFUSED, False), (Code.GOING_AWAY, True), (Code.BUSY, False)]
)
async def test_a_refusal_says_whether_another_lane_may_be_asked(
    site: Site, code: int, again: bool
) -> None:
    opening = site.opening()
    (await site.offered()).reset(code, "why")
    site.machine.channel.wake()
    with pytest.raises(Unanswered) as caught:
        await opening.protocol()
    assert (caught.value.code, caught.value.reason, caught.value.again) == (code, "why", again)


async def test_a_lane_that_ends_is_a_lost_agent_and_another_may_be_asked(site: Site) -> None:
    opening = site.opening()
    await site.offered()
    site.lane.channel.close(Code.REVOKED, "this enrolment was revoked")
    with pytest.raises(Unanswered) as caught:
        await opening.protocol()
    assert (caught.value.code, caught.value.again) == (Code.AGENT_LOST, True)


async def test_giving_up_resets_the_stream_and_a_late_answer_makes_nothing(site: Site) -> None:
    opening = site.opening()
    waiting = asyncio.ensure_future(opening.protocol())
    stream = await site.offered()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    stream.accept({})
    site.machine.channel.wake()
    await until(lambda: stream.state == State.CLOSED)
    opening.accepted({})
    assert opening._transport is None


async def test_tls_goes_from_here_to_the_service(site: Site) -> None:
    async with serving() as port:
        secured = site.secured()
        waiting = asyncio.ensure_future(secured.protocol())
        await site.bridged(port)
        protocol = await waiting
        assert isinstance(protocol, Noted)
        assert protocol.transport.get_extra_info("ssl_object").version() == "TLSv1.3"
        protocol.transport.write(b"secret")
        await until(lambda: protocol.received == b"secret")
        protocol.transport.close()
        await until(lambda: protocol.lost)
        assert protocol.broken is None


async def test_a_cut_below_tls_is_told_to_the_protocol_before_tls_takes_it_for_an_end(
    site: Site,
) -> None:
    async with serving() as port:
        secured = site.secured()
        waiting = asyncio.ensure_future(secured.protocol())
        await site.bridged(port)
        protocol = await waiting
        assert isinstance(protocol, Noted)
        site.machine.channel.abort()
        await until(lambda: protocol.lost)
        assert isinstance(protocol.broken, StreamReset)
        assert protocol.broken.code == Code.AGENT_LOST


async def test_a_certificate_for_another_name_is_said_with_the_target(site: Site) -> None:
    elsewhere = Endpoint("agent", "desktop", 0, UpstreamTls(server_name="other.test"), "web")
    async with serving() as port:
        secured = Secured(site.lane.channel, site.stream(), elsewhere, Noted, client_context())
        waiting = asyncio.ensure_future(secured.protocol())
        stream = await site.bridged(port)
        with pytest.raises(DialError) as caught:
            await waiting
        assert str(caught.value) == (
            "target web of agent desktop: its certificate is for another name"
        )
        await until(lambda: stream.state == State.CLOSED)


async def test_an_agent_that_is_lost_in_the_handshake_is_told_as_that(site: Site) -> None:
    secured = site.secured()
    waiting = asyncio.ensure_future(secured.protocol())
    stream = await site.offered()
    stream.accept({})
    site.machine.channel.wake()
    await until(lambda: secured._relay.sent)
    site.machine.channel.abort()
    with pytest.raises(AgentDialError) as caught:
        await waiting
    assert caught.value.code == Code.AGENT_LOST


@pytest.mark.parametrize("when", ["before the answer", "in the handshake"])
async def test_giving_up_a_secured_stream_leaves_nothing(site: Site, when: str) -> None:
    secured = site.secured()
    waiting = asyncio.ensure_future(secured.protocol())
    stream = await site.offered()
    if when == "in the handshake":
        stream.accept({})
        site.machine.channel.wake()
        await until(lambda: secured._relay.sent)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    await until(lambda: stream.state == State.CLOSED)
    await until(lambda: not site.lane.channel.session.streams)
