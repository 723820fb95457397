"""Dialling through lanes that tests hold in their hands; with whole proxies: tests/hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from heim_proxy.agents.dialer import DIALS_AT_ONCE, AgentDialers
from heim_proxy.agents.lane import Lane
from heim_proxy.agents.registry import Registry
from heim_proxy.agents.shares import PUBLIC, Shares
from heim_proxy.edge.dial import AgentDialError, Dialer, Errand
from heim_proxy.routing import AgentGrant, Endpoint, UpstreamTls
from heim_proxy.snapshot import Snapshot
from heim_wire.aio.channel import Channel
from heim_wire.aio.transport import StreamReset
from heim_wire.errors import Code, OpenRefused
from heim_wire.events import Opened
from heim_wire.stream import Stream
from tests.fakes.snapshots import configured, snapshot, tcp
from tests.fakes.waiting import until
from tests.unit.wire.passages import End, carriage

SSH = Endpoint("agent", "desktop", 0, target="ssh")
HOLE = Endpoint("agent", "desktop", 0, target="hole")
NOW = 1_800_000_000.0


@dataclass
class Held:
    """A lane, and the machine at its other end."""

    lane: Any
    machine: End
    opened: list[Opened] = field(default_factory=list)

    def accept(self, number: int = -1) -> Stream:
        stream = self.opened[number].stream
        stream.accept({})
        self.machine.channel.wake()
        return stream

    def refuse(self, code: int, reason: str = "", number: int = -1) -> None:
        self.opened[number].stream.reset(code, reason)
        self.machine.channel.wake()


class HeldLane:
    """What `Registry.pick` gives; `refusal` is what `open` raises."""

    def __init__(self, channel: Channel, number: int) -> None:
        self.name = "desktop"
        self.thumbprint = f"thumbprint-{number}"
        self.channel = channel
        self.refusal: OpenRefused | None = None
        self.heavy = False
        self.shares = Shares()
        self.boot, self.number, self.since, self.expires = "b", number, 0.0, 0.0

    def open(self, message: Mapping[str, object]) -> Stream:
        if self.refusal is not None:
            raise self.refusal
        stream = self.channel.session.open(message)
        self.channel.wake()
        return stream


class Noted(asyncio.Protocol):
    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


@dataclass
class Site:
    registry: Registry
    dialers: AgentDialers
    lanes: list[Held]
    snapshots: list[Snapshot]

    def dialer(self, endpoint: Endpoint = SSH, **more: Any) -> Dialer:
        errand = Errand(
            session=None, backend="ssh", roles=(), client="", request_id="r1", proto="tcp",
            patience_s=5.0,
        )  # fmt: skip
        return self.dialers.dialer(endpoint, replace(errand, **more))

    def dial(
        self, endpoint: Endpoint = SSH, factory: Callable[[], Noted] = Noted, **more: Any
    ) -> asyncio.Task[Noted]:
        work = self.dialer(endpoint, **more).dial(factory)
        return cast("asyncio.Task[Noted]", asyncio.ensure_future(work))

    async def asked(self, count: int = 1, lane: int = 0) -> Held:
        """Wait until a machine was asked for so many streams."""
        await until(lambda: len(self.lanes[lane].opened) >= count)
        return self.lanes[lane]

    async def failed(self, task: asyncio.Task[Noted]) -> AgentDialError:
        with pytest.raises(AgentDialError) as caught:
            await task
        return caught.value


@asynccontextmanager
async def standing(lanes: int = 1) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        registry = Registry()
        held: list[Held] = []
        for number in range(lanes):
            machine, proxy = await stack.enter_async_context(carriage(single=False))
            one = Held(HeldLane(proxy.channel, number), machine)
            machine.watcher.opened = lambda _, event, one=one: one.opened.append(event)  # type: ignore[misc]
            held.append(one)
            registry.arrive(cast("Lane", one.lane), 0.0)
        grants = {"desktop": AgentGrant("desktop", frozenset(("ssh", "hole")))}
        snapshots = [replace(snapshot(configured([tcp()])), agents=grants)]
        dialers = AgentDialers(registry, snapshot=lambda: snapshots[-1], now=lambda: NOW)
        await until(lambda: all(one.lane.channel.session.peer for one in held))
        yield Site(registry, dialers, held, snapshots)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with standing() as built:
        yield built


async def test_an_accepted_stream_is_a_connected_protocol(site: Site) -> None:
    task = site.dial(patience_s=2.0)
    held = await site.asked()
    message = held.opened[0].message
    assert set(message) == {"target", "proto", "deadline_ms", "request_id", "assertion"}
    assert (message["target"], message["proto"], message["request_id"]) == ("ssh", "tcp", "r1")
    assert 1500 < cast("int", message["deadline_ms"]) <= 1800
    stream = held.accept()
    stream.send(b"banner")
    held.machine.channel.wake()
    protocol = await task
    assert protocol.transport.get_extra_info("agent") == "desktop"
    assert protocol.transport.get_extra_info("target") == "ssh"
    await until(lambda: protocol.received == b"banner")
    assert site.registry.outcomes == {("desktop", "opened"): 1}
    protocol.transport.abort()


async def test_no_transport_is_made_before_the_agent_accepts(site: Site) -> None:
    made: list[Noted] = []

    def factory() -> Noted:
        made.append(Noted())
        return made[-1]

    task = site.dial(factory=factory)
    held = await site.asked()
    assert made == []
    held.refuse(Code.DIAL_REFUSED, "connection refused")
    error = await site.failed(task)
    assert made == []
    assert error.detail == "target ssh of agent desktop cannot be reached: connection refused"
    assert site.registry.outcomes == {("desktop", "dial_refused"): 1}


async def test_a_refusal_is_not_asked_of_another_lane() -> None:
    async with standing(2) as site:
        task = site.dial()
        await until(lambda: any(held.opened for held in site.lanes))
        asked = next(held for held in site.lanes if held.opened)
        asked.refuse(Code.FORBIDDEN, "no")
        await site.failed(task)
        assert sum(len(held.opened) for held in site.lanes) == 1


@pytest.mark.parametrize("how", ["lost", "going away"])
async def test_a_lane_that_is_lost_before_its_answer_is_replaced_once(how: str) -> None:
    async with standing(3) as site:

        async def drop() -> None:
            await until(lambda: any(held.opened for held in site.lanes))
            held = next(one for one in site.lanes if one.opened)
            if how == "lost":
                held.machine.channel.abort()
            else:
                held.refuse(Code.GOING_AWAY)
            site.registry.leave(held.lane, 0.0)
            site.lanes.remove(held)

        task = site.dial()
        await drop()
        await drop()
        error = await site.failed(task)
        assert (error.code, error.detail) == (
            Code.AGENT_LOST, "the connection to agent desktop was lost",
        )  # fmt: skip
        (left,) = site.lanes
        assert left.opened == []


async def test_the_second_lane_gets_a_statement_of_its_own() -> None:
    async with standing(2) as site:
        task = site.dial()
        await until(lambda: any(held.opened for held in site.lanes))
        first = next(one for one in site.lanes if one.opened)
        (second,) = (one for one in site.lanes if one is not first)
        first.machine.channel.abort()
        site.registry.leave(first.lane, 0.0)
        await until(lambda: second.opened)
        tokens = {str(one.opened[0].message["assertion"]) for one in (first, second)}
        assert len(tokens) == 2
        second.accept()
        (await task).transport.abort()


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Code.BUSY, Code.BUSY),
        (Code.GOING_AWAY, Code.AGENT_LOST),
        (Code.AGENT_LOST, Code.AGENT_LOST),
    ],
)
async def test_a_lane_that_takes_no_stream_is_told(site: Site, refusal: int, code: int) -> None:
    site.lanes[0].lane.refusal = OpenRefused(refusal, "why")
    assert (await site.failed(site.dial())).code == code


async def test_an_agent_that_is_not_here_is_offline(site: Site) -> None:
    site.registry.leave(site.lanes[0].lane, NOW - 720)
    error = await site.failed(site.dial())
    assert error.detail == "agent desktop is offline, last seen 12 min ago"
    assert site.registry.outcomes == {("desktop", "agent_offline"): 1}


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("agent", "desktop", 0, target="other"),
        Endpoint("agent", "elsewhere", 0, target="ssh"),
        Endpoint("agent", "desktop", 0, target="10.0.0.1:22"),
    ],
    ids=str,
)
async def test_what_the_configuration_does_not_grant_is_asked_of_nobody(
    site: Site, endpoint: Endpoint
) -> None:
    error = await site.failed(site.dial(endpoint))
    assert error.code == Code.NO_SUCH_TARGET
    assert site.lanes[0].opened == []


async def test_a_dial_that_is_given_up_is_told_to_the_agent(site: Site) -> None:
    task = site.dial()
    held = await site.asked()
    stream = held.opened[0].stream
    task.cancel()
    await until(lambda: stream.state == "closed")
    assert not site.dialers._gates
    # Whoever asked has left: that says nothing about the agent.
    assert site.registry.outcomes == {}


async def test_a_dial_that_runs_out_of_time_is_counted_as_that(site: Site) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await site.dialer(patience_s=0.05).dial(Noted)
    assert site.registry.outcomes == {("desktop", "dial_timeout"): 1}


async def test_a_connection_that_nobody_waits_for_any_more_is_cut(site: Site) -> None:
    """Given up between the answer and the turn of the loop in which it would be used."""
    made: list[Noted] = []

    def factory() -> Noted:
        made.append(Noted())
        asyncio.get_running_loop().call_soon(task.cancel)
        return made[-1]

    task = site.dial(factory=factory)
    held = await site.asked()
    stream = held.accept()
    await until(lambda: made and made[0].lost)
    await until(lambda: stream.state == "closed")
    assert task.cancelled()


async def test_a_protocol_that_cannot_be_made_costs_its_own_stream_alone(site: Site) -> None:
    def broken() -> Noted:
        raise LookupError("a bug")

    task = site.dial(factory=broken)
    held = await site.asked()
    stream = held.accept()
    with pytest.raises(LookupError):
        await task
    await until(lambda: stream.state == "closed")
    again = site.dial()
    await site.asked(2)
    held.accept()
    (await again).transport.abort()


async def test_accepted_and_reset_in_one_turn_is_a_failure(site: Site) -> None:
    task = site.dial()
    held = await site.asked()
    held.opened[0].stream.accept({})
    held.refuse(Code.CONNECTION_RESET)
    error = await site.failed(task)
    assert error.detail == "target ssh of agent desktop closed the connection at once"


async def test_the_end_of_the_lane_is_told_to_the_protocol_in_words(site: Site) -> None:
    task = site.dial()
    held = await site.asked()
    held.accept()
    protocol = await task
    held.machine.channel.abort()
    await until(lambda: protocol.lost)
    (error,) = protocol.lost
    assert isinstance(error, StreamReset)
    assert (error.code, error.reason) == (
        Code.AGENT_LOST, "the connection to agent desktop was lost",
    )  # fmt: skip


async def test_a_target_that_answers_nothing_leaves_places_for_the_others(site: Site) -> None:
    waiting = [site.dial(HOLE) for _ in range(DIALS_AT_ONCE + 5)]
    held = await site.asked(DIALS_AT_ONCE)
    task = site.dial(SSH)
    await site.asked(DIALS_AT_ONCE + 1)
    assert held.opened[-1].message["target"] == "ssh"
    held.accept()
    (await task).transport.abort()
    # One leaves, the next one is asked for, in order.
    waiting[0].cancel()
    await site.asked(DIALS_AT_ONCE + 2)
    assert held.opened[-1].message["target"] == "hole"
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not site.dialers._gates


async def test_five_hundred_streams_at_once_are_all_opened(site: Site) -> None:
    def accept(channel: Channel, event: Opened) -> None:
        event.stream.accept({})
        channel.wake()

    site.lanes[0].machine.watcher.opened = accept
    protocols = await asyncio.gather(*(site.dial() for _ in range(500)))
    assert len({id(one) for one in protocols}) == 500
    assert site.registry.outcomes == {("desktop", "opened"): 500}
    for one in protocols:
        one.transport.abort()


async def test_a_configuration_without_its_tls_any_more_opens_nothing(site: Site) -> None:
    error = await site.failed(site.dial(replace(SSH, tls=UpstreamTls())))
    assert error.code == Code.NO_SUCH_TARGET
    await until(lambda: not site.lanes[0].lane.channel.session.streams)


async def test_strangers_on_public_backends_leave_half_of_a_lane_to_others(site: Site) -> None:
    lane = site.lanes[0].lane
    live = lane.channel.session.streams
    for _ in range(PUBLIC):
        lane.shares.note(lane.open({"target": "hole"}).id, None, live)
    error = await site.failed(site.dial())
    assert error.code == Code.BUSY
    assert error.detail == f"the public has {PUBLIC} connections through agent desktop already"
    assert len(live) == PUBLIC
    # One that ends makes room.
    next(iter(live.values())).reset(Code.CONNECTION_RESET, "enough")
    task = site.dial()
    await until(lambda: len(live) == PUBLIC)
    task.cancel()
