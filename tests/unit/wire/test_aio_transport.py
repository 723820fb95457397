"""Streams as transports, on both loops, and beside transports of real sockets."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_wire.aio.relay import Relay
from heim_wire.aio.transport import CLOSE_S, StreamReset, StreamTransport
from heim_wire.errors import Code
from heim_wire.scheduler import HIGH_MARK
from heim_wire.stream import State, Stream
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.thorough import examples
from tests.fakes.waiting import until
from tests.unit.wire.passages import End, carriage, tcp_pair

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)
KIB = 1024
MIB = 1024 * KIB

_Transport = Any  # a StreamTransport, or a real one


class Noted:
    """What a protocol was told, in order; `inside` notices calls from within calls."""

    def __init__(self, *, keep: bool = True) -> None:
        self.transport: _Transport = None
        self.events: list[object] = []
        self.received = bytearray()
        self.keep = keep
        self.paused = False
        self.writing = True
        self.depth = 0
        self.faults: list[str] = []
        # Called with the bytes of each delivery.
        self.react: Callable[[bytes], None] = lambda data: None

    def note(self, event: object) -> None:
        if self.depth:
            self.faults.append(f"{event} inside another call")
        if self.events and isinstance(self.events[-1], tuple):
            self.faults.append(f"{event} after the end")
        self.events.append(event)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.note("made")
        self.transport = transport

    def took(self, data: bytes) -> None:
        self.note("data")
        if self.paused:
            self.faults.append("data while paused")
        self.received += data
        self.depth += 1
        self.react(data)
        self.depth -= 1

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep

    def pause_writing(self) -> None:
        assert self.writing
        self.writing = False

    def resume_writing(self) -> None:
        assert not self.writing
        self.writing = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.note(("lost", exc))

    @property
    def lost(self) -> list[object]:
        return [event[1] for event in self.events if isinstance(event, tuple)]

    def story(self) -> list[object]:
        """The events, runs of data as one; errors by what they are to a caller.

        A socket's transport that is paused and resumed after the end tells it again.
        """
        told: list[object] = []
        for event in self.events:
            if isinstance(event, tuple):
                told.append("lost" if event[1] is None else "broken")
            elif event == "made" or told[-1:] != [event]:
                told.append(event)
        return told


class Plain(Noted, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.took(data)


class Buffered(Noted, asyncio.BufferedProtocol):
    size = 1000

    def get_buffer(self, sizehint: int) -> bytearray:
        self.buffer = bytearray(self.size)
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.took(bytes(self.buffer[:nbytes]))


@dataclass
class Ends:
    """Two protocols, and the streams between them if there are some."""

    a: Noted
    b: Noted
    streams: tuple[Stream, Stream] | None = None
    carriers: tuple[End, End] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    async def settle(self) -> None:
        """Wait until nothing happens any more."""
        before: object = None
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0.002)
            now = (len(self.a.received), len(self.b.received), len(self.a.events + self.b.events))
            quiet = quiet + 1 if now == before else 0
            before = now

    def check(self) -> None:
        assert self.a.faults == self.b.faults == []


@asynccontextmanager
async def joined(a: Noted | None = None, b: Noted | None = None) -> AsyncIterator[Ends]:
    """Two protocols over one stream."""
    async with carriage(single=False) as (near, far):
        ours, theirs = near.channel.session.adopt(), far.channel.session.adopt()
        ends = Ends(a or Plain(), b or Plain(), (ours, theirs), (near, far))
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: ends.errors.append(context))
        StreamTransport(near.channel, ours, ends.a)  # type: ignore[arg-type]
        StreamTransport(far.channel, theirs, ends.b)  # type: ignore[arg-type]
        await until(lambda: ends.a.transport and ends.b.transport)
        yield ends
        ends.check()


def over_a_stream(
    loop: str, scenario: Callable[[Ends], Awaitable[None]], a: Any = Plain, b: Any = Plain
) -> None:
    async def staged() -> None:
        async with joined(a(), b()) as ends:
            await scenario(ends)

    run_on(loop, staged())


@ON_BOTH_LOOPS
@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_bytes_arrive_as_they_were_sent_both_ways(loop: str, kind: type[Noted]) -> None:
    async def scenario(ends: Ends) -> None:
        there, back = bytes(range(256)) * 4_000, b"back" * 70_001
        ends.a.transport.write(there)
        ends.b.transport.writelines([back[:5], back[5:]])
        await until(lambda: len(ends.b.received) == len(there))
        await until(lambda: len(ends.a.received) == len(back))
        assert (ends.b.received, ends.a.received) == (there, back)

    over_a_stream(loop, scenario, kind, kind)


@ON_BOTH_LOOPS
def test_connection_made_comes_from_the_loop_and_data_that_is_there_already_after_it(
    loop: str,
) -> None:
    async def scenario() -> None:
        async with carriage(single=False) as (near, far):
            ours, theirs = near.channel.session.adopt(), far.channel.session.adopt()
            protocol = Plain()
            transport = StreamTransport(near.channel, ours, protocol)
            transport.data(b"early")
            assert protocol.events == []
            await until(lambda: protocol.received)
            assert protocol.story() == ["made", "data"]
            theirs.reset(Code.CONNECTION_RESET)

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_paused_protocol_gets_nothing_and_the_window_bounds_what_waits(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        assert ends.streams is not None
        ends.b.transport.pause_reading()
        ends.b.transport.pause_reading()
        ends.b.paused = True
        assert not ends.b.transport.is_reading()
        data = bytes(4 * MIB)
        ends.a.transport.write(data)
        ends.a.transport.write_eof()
        await until(lambda: ends.streams is not None and ends.streams[0].credit == 0)
        await ends.settle()
        held = sum(map(len, ends.b.transport._held))
        assert held == ends.streams[1].window.size <= 256 * KIB
        assert ends.streams[1].sink_paused
        ends.b.paused = False
        ends.b.transport.resume_reading()
        ends.b.transport.resume_reading()
        assert not ends.b.received
        await until(lambda: "eof" in ends.b.events)
        assert ends.b.received == data
        assert not ends.streams[1].sink_paused

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_a_protocol_that_pauses_within_a_delivery_gets_the_rest_later_and_in_order(
    loop: str,
) -> None:
    async def scenario(ends: Ends) -> None:
        def pause(data: bytes) -> None:
            ends.b.transport.pause_reading()
            asyncio.get_running_loop().call_soon(ends.b.transport.resume_reading)

        ends.b.react = pause
        data = bytes(range(256)) * 300
        ends.a.transport.write(data)
        ends.a.transport.write_eof()
        await until(lambda: "eof" in ends.b.events)
        assert ends.b.received == data
        assert ends.b.events.count("data") >= len(data) / Buffered.size

    over_a_stream(loop, scenario, Plain, Buffered)


@ON_BOTH_LOOPS
def test_writing_is_paused_above_the_high_limit_and_resumed_at_the_low_one(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        transport = ends.a.transport
        assert transport.get_write_buffer_limits() == (64 * KIB - 1, 128 * KIB - 1)
        transport.set_write_buffer_limits(high=1000, low=10)
        assert transport.get_write_buffer_limits() == (10, 1000)
        transport.write(bytes(1000))
        assert ends.a.writing
        transport.write(b"x")
        assert not ends.a.writing
        assert transport.get_write_buffer_size() == 1001
        await until(lambda: ends.a.writing)
        assert transport.get_write_buffer_size() <= 10
        transport.set_write_buffer_limits()
        transport.write(bytes(HIGH_MARK - 1))
        assert ends.a.writing
        transport.set_write_buffer_limits(high=0)
        assert not ends.a.writing
        await until(lambda: ends.a.writing)
        assert transport.get_write_buffer_size() == 0

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_limits_that_make_no_sense_are_refused(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        for high, low in ((10, 11), (10, -1), (-1, None)):
            with pytest.raises(ValueError, match="must be"):
                ends.a.transport.set_write_buffer_limits(high, low)
        ends.a.transport.set_write_buffer_limits(low=100)
        assert ends.a.transport.get_write_buffer_limits() == (100, 400)

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_a_peer_that_does_not_read_pauses_the_writer(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.b.transport.pause_reading()
        sent = 0
        while ends.a.writing:
            ends.a.transport.write(bytes(16 * KIB))
            sent += 16 * KIB
            await asyncio.sleep(0)
        await ends.settle()
        assert not ends.a.writing
        assert sent <= 256 * KIB + 2 * HIGH_MARK
        ends.b.transport.resume_reading()
        await until(lambda: ends.a.writing)
        await until(lambda: len(ends.b.received) == sent)

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_writing_stays_paused_when_the_queue_was_filled_again_before_it_was_told(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.a.transport.write(bytes(HIGH_MARK))
        assert not ends.a.writing
        ends.a.transport.drained()
        assert not ends.a.writing
        await until(lambda: ends.a.writing)

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_close_sends_everything_and_then_the_end(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        data = bytes(3 * MIB)
        transport = ends.a.transport
        transport.write(data)
        transport.close()
        transport.close()
        assert transport.is_closing()
        transport.write(b"too late")
        transport.pause_reading()
        transport.resume_reading()
        assert ends.a.lost == []
        await until(lambda: ends.a.lost)
        await until(lambda: "eof" in ends.b.events)
        assert ends.b.received == data
        assert ends.a.story() == ["made", "lost"]
        assert not ends.b.lost
        ends.b.transport.close()
        await until(lambda: ends.b.lost == [None])
        assert ends.streams is not None
        await until(lambda: all(one.state == State.CLOSED for one in ends.streams or ()))

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_an_end_closes_the_connection_of_a_protocol_that_does_not_keep_it(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.b.keep = False
        ends.a.transport.write(b"last")
        ends.a.transport.write_eof()
        await until(lambda: ends.b.lost == [None])
        assert ends.b.story() == ["made", "data", "eof", "lost"]
        await until(lambda: "eof" in ends.a.events)

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_after_its_own_end_a_side_still_reads(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        transport = ends.a.transport
        assert transport.can_write_eof()
        transport.write(b"question")
        transport.write_eof()
        transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            transport.write(b"more")
        await until(lambda: "eof" in ends.b.events)
        ends.b.transport.write(b"answer")
        ends.b.transport.write_eof()
        await until(lambda: "eof" in ends.a.events)
        assert ends.a.received == b"answer"
        await ends.settle()
        assert not ends.a.lost
        ends.a.transport.close()
        ends.b.transport.close()
        await until(lambda: ends.a.lost == ends.b.lost == [None])

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_abort_resets_the_stream_and_tells_its_own_side_from_the_loop(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.a.transport.write(bytes(MIB))
        ends.a.transport.abort()
        ends.a.transport.abort()
        assert ends.a.lost == []
        await until(lambda: ends.a.lost == [None])
        await until(lambda: ends.b.lost)
        (error,) = ends.b.lost
        assert isinstance(error, StreamReset)
        assert isinstance(error, ConnectionResetError)
        assert (error.code, error.reason) == (Code.CONNECTION_RESET, "the connection was cut")
        assert len(ends.b.received) < MIB

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("how", ["close", "abort", "pause", "set_protocol"])
def test_what_a_protocol_does_within_a_delivery_takes_effect_at_once(loop: str, how: str) -> None:
    async def scenario(ends: Ends) -> None:
        other = Plain()

        def act(data: bytes) -> None:
            transport = ends.b.transport
            if how == "set_protocol":
                transport.set_protocol(other)
                assert transport.get_protocol() is other
            else:
                getattr(transport, "pause_reading" if how == "pause" else how)()

        ends.b.react = act
        ends.a.transport.write(bytes(5 * Buffered.size))
        await until(lambda: ends.b.received)
        await ends.settle()
        assert ends.b.events.count("data") == 1
        if how == "set_protocol":
            assert len(other.received) == 4 * Buffered.size
        else:
            assert len(ends.b.lost) == (how != "pause")

    over_a_stream(loop, scenario, Plain, Buffered)


@ON_BOTH_LOOPS
def test_a_reset_of_the_peers_comes_with_code_and_reason(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        assert ends.streams is not None
        assert ends.carriers is not None
        ends.streams[1].reset(Code.DIAL_TIMEOUT, "it took too long")
        ends.carriers[1].channel.wake()
        await until(lambda: ends.a.lost)
        (error,) = ends.a.lost
        assert isinstance(error, StreamReset)
        assert (error.code, str(error)) == (Code.DIAL_TIMEOUT, "it took too long")
        ends.a.transport.write(b"nobody reads this")
        ends.a.transport.close()
        ends.a.transport.abort()
        await ends.settle()
        assert len(ends.a.lost) == 1

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_what_a_reset_means_can_be_put_into_other_words(loop: str) -> None:
    async def scenario() -> None:
        async with carriage(single=False) as (near, far):
            ours, theirs = near.channel.session.adopt(), far.channel.session.adopt()
            protocol = Plain()
            StreamTransport(
                near.channel, ours, protocol, extra={"target": "ssh"},
                told=lambda code, reason: (Code.AGENT_LOST, f"was {code}: {reason}"),
            )  # fmt: skip
            theirs.reset(Code.REVOKED, "gone")
            far.channel.wake()
            await until(lambda: protocol.lost)
            (error,) = protocol.lost
            assert isinstance(error, StreamReset)
            assert (error.code, error.reason) == (Code.AGENT_LOST, f"was {Code.REVOKED}: gone")
            assert protocol.transport.get_extra_info("target") == "ssh"
            assert protocol.transport.get_extra_info("socket") is None
            assert protocol.transport.get_extra_info("socket", 7) == 7

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_the_end_of_the_session_is_told_to_every_stream(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        assert ends.carriers is not None
        ends.carriers[1].channel.abort()
        await until(lambda: ends.a.lost and ends.b.lost)
        (error,) = ends.a.lost
        assert isinstance(error, StreamReset)
        assert error.code == Code.PEER_LOST

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_what_was_not_read_before_close_is_answered_by_a_reset(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.b.transport.pause_reading()
        ends.a.transport.write(b"unread")
        await until(lambda: ends.b.transport._held)
        ends.b.transport.write(b"last words")
        ends.b.transport.close()
        await until(lambda: ends.a.lost)
        assert ends.a.received == b"last words"
        assert ends.a.story()[-1] == "broken"
        await until(lambda: ends.b.lost == [None])

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_data_after_close_is_answered_by_a_reset(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.b.transport.close()
        await until(lambda: "eof" in ends.a.events)
        assert not ends.a.lost
        ends.a.transport.write(b"nobody reads this")
        await until(lambda: ends.a.story()[-1] == "broken")
        assert ends.streams is not None
        assert ends.streams[1].state == State.CLOSED

    over_a_stream(loop, scenario)


def test_a_closed_stream_whose_peer_says_nothing_more_is_cut_in_the_end() -> None:
    async def scenario(ends: Ends) -> None:
        assert ends.streams is not None
        transport = ends.a.transport
        transport.close()
        await until(lambda: ends.a.lost == [None])
        assert ends.streams[0].state == State.REMOTE_OPEN
        guard = transport._guard
        assert guard.when() - asyncio.get_running_loop().time() == pytest.approx(CLOSE_S, abs=2)
        guard._run()
        assert ends.streams[0].state == State.CLOSED
        await until(lambda: ends.b.story()[-1] == "broken")
        assert ends.a.lost == [None]

    over_a_stream("asyncio", scenario)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("kind", [Plain, Buffered])
def test_a_protocol_that_fails_loses_its_own_stream_and_no_other(
    loop: str, kind: type[Noted]
) -> None:
    async def scenario(ends: Ends) -> None:
        assert ends.carriers is not None
        near, far = ends.carriers
        ours, theirs = near.channel.session.adopt(3), far.channel.session.adopt(3)
        beside, peer = Plain(), Plain()
        StreamTransport(near.channel, ours, beside)
        StreamTransport(far.channel, theirs, peer)

        def fail(data: bytes) -> None:
            ends.b.depth = 0
            raise LookupError("a mistake")

        ends.b.react = fail
        ends.a.transport.write(b"data")
        await until(lambda: ends.b.lost and ends.a.lost)
        assert isinstance(ends.b.lost[0], LookupError)
        (context,) = ends.errors
        assert context["exception"] is ends.b.lost[0]
        beside.transport.write(b"still here")
        await until(lambda: peer.received == b"still here")

    over_a_stream(loop, scenario, Plain, kind)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("where", ["pause_writing", "resume_writing", "eof_received"])
def test_other_mistakes_of_a_protocol_are_reported(loop: str, where: str) -> None:
    async def scenario(ends: Ends) -> None:
        def fail() -> bool:
            raise LookupError(where)

        setattr(ends.a, where, fail)
        ends.a.transport.write(bytes(MIB))
        ends.b.transport.write_eof()
        await until(lambda: ends.errors)
        await ends.settle()
        assert str(ends.errors[0]["exception"]) == where
        assert bool(ends.a.lost) is (where == "eof_received")

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_an_empty_buffer_ends_the_connection_instead_of_turning_for_ever(loop: str) -> None:
    class Empty(Buffered):
        size = 0

    async def scenario(ends: Ends) -> None:
        ends.a.transport.write(b"data")
        await until(lambda: ends.b.lost)
        assert isinstance(ends.b.lost[0], RuntimeError)

    over_a_stream(loop, scenario, Plain, Empty)


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    "shape", ["bytearray", "view of one", "read-only view of one", "wide view"]
)
def test_what_is_written_may_be_changed_afterwards(loop: str, shape: str) -> None:
    async def scenario(ends: Ends) -> None:
        mine = bytearray(b"0123" * 2_000)
        data: Any = {
            "bytearray": mine,
            "view of one": memoryview(mine),
            "read-only view of one": memoryview(mine).toreadonly(),
            "wide view": memoryview(mine).cast("I"),
        }[shape]
        ends.a.transport.write(data)
        ends.a.transport.write(memoryview(b"-tail")[1:])
        mine[:4] = b"XXXX"
        ends.a.transport.write_eof()
        await until(lambda: "eof" in ends.b.events)
        assert ends.b.received == b"0123" * 2_000 + b"tail"

    over_a_stream(loop, scenario)


@ON_BOTH_LOOPS
def test_a_relay_over_a_stream_passes_bytes_and_the_words_of_a_reset_on(loop: str) -> None:
    """As a client's stream goes through an agent's: one relay between two streams."""

    async def scenario() -> None:
        async with carriage(single=False) as (client, proxy), carriage(single=False) as (
            lane, agent,
        ):  # fmt: skip
            theirs, ours = client.channel.session.adopt(), proxy.channel.session.adopt()
            up, down = lane.channel.session.adopt(), agent.channel.session.adopt()
            user, service = Plain(), Plain()
            StreamTransport(client.channel, theirs, user)
            StreamTransport(agent.channel, down, service)
            ended: list[tuple[int, str]] = []
            relay = Relay(lambda relay, code, reason: ended.append((code, reason)))
            StreamTransport(lane.channel, up, relay)
            relay.join(proxy.channel, ours)
            await until(lambda: user.transport and service.transport)
            data = bytes(range(256)) * 8_000
            user.transport.write(data)
            service.transport.write(data[::-1])
            await until(lambda: len(service.received) == len(user.received) == len(data))
            assert (service.received, user.received) == (data, data[::-1])
            down.reset(Code.AGENT_LOST, "the agent has gone")
            agent.channel.wake()
            await until(lambda: user.lost)
            (error,) = user.lost
            assert isinstance(error, StreamReset)
            assert (error.code, error.reason) == (Code.AGENT_LOST, "the agent has gone")
            assert ended == [(Code.AGENT_LOST, "the agent has gone")]

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_a_relay_over_a_stream_passes_ends_on_each_way(loop: str) -> None:
    async def scenario() -> None:
        async with carriage(single=False) as (lane, agent):
            up, down = lane.channel.session.adopt(), agent.channel.session.adopt()
            service = Plain()
            StreamTransport(agent.channel, down, service)
            ended: list[int] = []
            async with carriage() as (client, proxy):
                theirs, ours = client.channel.session.adopt(), proxy.channel.session.adopt()
                user = Plain()
                StreamTransport(client.channel, theirs, user)
                relay = Relay(lambda relay, code, reason: ended.append(code))
                StreamTransport(lane.channel, up, relay)
                relay.join(proxy.channel, ours)
                await until(lambda: user.transport and service.transport)
                user.transport.write(b"question")
                user.transport.write_eof()
                await until(lambda: "eof" in service.events)
                service.transport.write(b"answer")
                service.transport.close()
                await until(lambda: "eof" in user.events)
                assert (service.received, user.received) == (b"question", b"answer")
                await until(lambda: ended == [0])
                await until(lambda: up.state == State.CLOSED)

    run_on(loop, scenario())


@ON_BOTH_LOOPS
def test_nothing_keeps_a_finished_transport_alive(loop: str) -> None:
    async def scenario(ends: Ends) -> None:
        ends.a.transport.close()
        await until(lambda: "eof" in ends.b.events)
        ends.b.transport.close()
        await until(lambda: ends.a.lost == ends.b.lost == [None])
        assert ends.streams is not None
        await until(lambda: all(one.state == State.CLOSED for one in ends.streams or ()))
        assert ends.a.transport._guard is None
        assert ends.a.transport.get_protocol() is not ends.a
        gc.collect()

    over_a_stream(loop, scenario)


# -- beside real transports ---------------------------------------------------------------

_SIDE = st.sampled_from("ab")
_STEP = st.one_of(
    st.tuples(_SIDE, st.just("write"), st.integers(0, 300_000)),
    st.tuples(_SIDE, st.just("write"), st.integers(0, 20)),
    st.tuples(_SIDE, st.sampled_from(("pause", "resume", "eof", "rest")), st.just(0)),
)
_STEPS = st.lists(_STEP, max_size=12)


async def perform(ends: Ends, steps: list[tuple[str, str, int]]) -> tuple[object, object]:
    """Do it all, end both sides in good order; what both were told."""
    ended: set[str] = set()
    for number, (side, step, size) in enumerate(steps):
        one: Noted = getattr(ends, side)
        if step == "write" and side not in ended:
            one.transport.write(bytes([number % 251]) * size)
        elif step == "eof":
            ended.add(side)
            one.transport.write_eof()
        elif step in ("pause", "resume"):
            one.paused = step == "pause"
            getattr(one.transport, f"{step}_reading")()
        elif step == "rest":
            await asyncio.sleep(0.001)
    for one in (ends.a, ends.b):
        one.paused = False
        one.transport.resume_reading()
        one.transport.write_eof()
    await until(lambda: "eof" in ends.a.events and "eof" in ends.b.events)
    for one in (ends.a, ends.b):
        one.transport.close()
    await until(lambda: ends.a.lost and ends.b.lost)
    ends.check()
    return tuple((one.story(), bytes(one.received)) for one in (ends.a, ends.b))  # type: ignore[return-value]


async def over_sockets(steps: list[tuple[str, str, int]], kind: type[Noted]) -> object:
    loop = asyncio.get_running_loop()
    ours, theirs = tcp_pair()
    ends = Ends(kind(), kind())
    await loop.connect_accepted_socket(lambda: ends.a, ours)  # type: ignore[arg-type,return-value]
    await loop.connect_accepted_socket(lambda: ends.b, theirs)  # type: ignore[arg-type,return-value]
    return await perform(ends, steps)


async def over_streams(steps: list[tuple[str, str, int]], kind: type[Noted]) -> object:
    async with joined(kind(), kind()) as ends:
        return await perform(ends, steps)


@pytest.mark.parametrize("kind", [Plain, Buffered])
@settings(max_examples=examples(40), deadline=None)
@given(steps=_STEPS)
def test_a_protocol_cannot_tell_a_stream_from_a_socket(
    kind: type[Noted], steps: list[tuple[str, str, int]]
) -> None:
    assert run_on("asyncio", over_streams(steps, kind)) == run_on(
        "asyncio", over_sockets(steps, kind)
    )


_WILD = st.lists(
    st.tuples(
        _SIDE,
        st.sampled_from(
            (
                "write",
                "write",
                "close",
                "abort",
                "eof",
                "pause",
                "resume",
                "limits",
                "rest",
                "reset",
            )
        ),
        st.integers(0, 100_000),
    ),
    max_size=14,
)


@pytest.mark.parametrize("kind", [Plain, Buffered])
@settings(max_examples=examples(60), deadline=None)
@given(steps=_WILD)
def test_whatever_is_done_the_end_comes_once_and_bytes_are_a_beginning_of_what_was_sent(
    kind: type[Noted], steps: list[tuple[str, str, int]]
) -> None:
    async def scenario() -> None:
        async with joined(kind(), kind()) as ends:
            assert ends.streams is not None
            assert ends.carriers is not None
            sent = {"a": bytearray(), "b": bytearray()}
            for number, (side, step, size) in enumerate(steps):
                one: Noted = getattr(ends, side)
                transport = one.transport
                if step == "write" and not transport._eof_written:
                    data = bytes([number]) * size
                    sent[side] += data
                    transport.write(data)
                elif step == "limits":
                    transport.set_write_buffer_limits(size)
                elif step == "eof":
                    transport.write_eof()
                elif step == "reset":
                    index = "ab".index(side)
                    ends.streams[index].reset(Code.INTERNAL, "fault")
                    ends.carriers[index].channel.wake()
                    ends.streams[index].context.reset(Code.INTERNAL, "fault")  # type: ignore[union-attr]
                elif step in ("pause", "resume"):
                    getattr(transport, f"{step}_reading")()
                elif step in ("close", "abort"):
                    getattr(transport, step)()
                else:
                    await asyncio.sleep(0.001)
            for one in (ends.a, ends.b):
                one.transport.resume_reading()
                one.transport.close()
            await until(lambda: ends.a.lost and ends.b.lost)
            await ends.settle()
            assert len(ends.a.lost) == len(ends.b.lost) == 1
            assert ends.a.events.count("eof") <= 1
            assert ends.b.events.count("eof") <= 1
            assert sent["a"].startswith(ends.b.received)
            assert sent["b"].startswith(ends.a.received)
            assert ends.errors == []

    run_on("asyncio", scenario())
