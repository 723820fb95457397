"""A channel over a transport in memory: what is written when, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from heim_wire.aio import channel as module
from heim_wire.aio.channel import Channel
from heim_wire.errors import Code
from heim_wire.events import Dead, GoAway, Hello, Notice, Opened
from heim_wire.frames import Type, plain_frame
from heim_wire.session import Session
from heim_wire.stream import Stream
from heim_wire.websocket import WebSocket
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until
from tests.unit.wire.passages import Watcher, carriage

KIB = 1024


class Memory(asyncio.Transport):
    """Keeps what is written; full above `room` bytes, until `read` by the test."""

    def __init__(self, room: int = 1 << 40) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.room = room
        self.high = 0
        self.closed = False
        self.aborted = False
        self.owner: Channel | None = None
        self._full = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high or 0

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.writes))

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))
        if self.owner is not None and self.get_write_buffer_size() > self.room and not self._full:
            self._full = True
            self.owner.pause_writing()

    def read(self) -> bytes:
        """Everything written; there is room again."""
        data = b"".join(self.writes)
        self.writes.clear()
        if self._full and self.owner is not None:
            self._full = False
            self.owner.resume_writing()
        return data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True


class Source:
    """A stream's owner that remembers what it was told."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.told: list[object] = []
        stream.context = self

    def data(self, payload: bytes | memoryview) -> None:
        self.told.append(bytes(payload))
        self.stream.consumed(len(payload))

    def accepted(self, message: dict[str, object]) -> None:
        self.told.append(message)

    def drained(self) -> None:
        self.told.append("drained")

    def ended(self) -> None:
        self.told.append("ended")

    def finished(self) -> None:
        self.told.append("finished")

    def reset(self, code: int, reason: str) -> None:
        self.told.append((code, reason))


class Pair:
    """A client's channel and a server's, whose bytes the test carries."""

    def __init__(
        self, *, room: int = 1 << 40, single: bool = False, age: float = 0.0, lost: int = 16
    ) -> None:
        now = time.monotonic()
        self.near_wire, self.far_wire = Memory(room), Memory()
        self.near_watcher, self.far_watcher = Watcher(), Watcher()
        self.near = Channel(
            Session(initiator=True, now=now - age), WebSocket(client=True), self.near_wire,
            self.near_watcher, single=single, lost=lost,
        )  # fmt: skip
        self.far = Channel(
            Session(initiator=False, now=now), WebSocket(client=False), self.far_wire,
            self.far_watcher, single=single,
        )  # fmt: skip
        self.near_wire.owner = self.near
        self.far_wire.owner = self.far

    async def carry(self, turns: int = 6) -> None:
        """Bring over what was written, a few times."""
        for _ in range(turns):
            await asyncio.sleep(0)
            up, down = self.near_wire.read(), self.far_wire.read()
            if up:
                self.far.feed(up)
            if down:
                self.near.feed(down)

    def streams(self) -> tuple[Source, Source]:
        return Source(self.near.session.adopt()), Source(self.far.session.adopt())


@pytest.fixture
async def pair() -> Pair:
    pair = Pair()
    await pair.carry()
    return pair


# -- flushing -----------------------------------------------------------------------------------


async def test_it_begins_with_hello() -> None:
    pair = Pair()
    assert not pair.near_wire.writes
    await pair.carry()
    assert [type(event) for event in pair.near_watcher.events] == [Hello]
    assert [type(event) for event in pair.far_watcher.events] == [Hello]


async def test_everything_of_one_turn_leaves_in_one_write(pair: Pair) -> None:
    near, _ = pair.streams()
    await pair.carry()
    for number in range(10):
        near.stream.send(b"%d" % number)
        pair.near.wake()
    pair.near.session.notice("hello")
    assert not pair.near_wire.writes
    await asyncio.sleep(0)
    assert len(pair.near_wire.writes) == 1
    await asyncio.sleep(0)
    assert len(pair.near_wire.writes) == 1


@pytest.mark.parametrize(
    ("single", "high"), [(False, 64 * KIB), (True, 256 * KIB)], ids=["mux", "single"]
)
async def test_a_full_transport_gets_no_more(single: bool, high: int) -> None:
    write = 64 * KIB
    pair = Pair(room=high, single=single)
    assert pair.near_wire.high == high
    near, _ = pair.streams()
    await pair.carry()
    pair.near.session._outbox.scheduler.allow(near.stream, 8 << 20)
    near.stream.send(bytes(4 << 20))
    pair.near.wake()
    for _ in range(50):
        await asyncio.sleep(0)
    written = [len(data) for data in pair.near_wire.writes]
    assert max(written) <= write, "four TLS records, WebSocket's head and all"
    assert high < sum(written) <= high + write + 64
    pair.near_wire.read()
    await asyncio.sleep(0)
    assert pair.near_wire.writes


async def test_others_run_while_a_lot_is_written(pair: Pair) -> None:
    """A transport that takes everything must not make the loop wait."""
    near, _ = pair.streams()
    pair.near.session._outbox.scheduler.allow(near.stream, 8 << 20)
    near.stream.send(bytes(4 << 20))
    pair.near.wake()
    await asyncio.sleep(0)
    assert sum(map(len, pair.near_wire.writes)) <= 128 * KIB
    while pair.near.session.wants_write:
        await asyncio.sleep(0)


async def test_a_source_is_told_when_its_queue_is_short_again(pair: Pair) -> None:
    near, _ = pair.streams()
    near.stream.send(bytes(200 * KIB))
    assert near.stream.full
    pair.near.wake()
    await pair.carry(30)
    assert near.told == ["drained"]


async def test_a_ping_of_the_carriage_is_answered_and_is_a_sign_of_life(pair: Pair) -> None:
    heard = pair.far.session._liveness.now
    pair.far.feed(pair.near.websocket.ping(b"hello"))
    await asyncio.sleep(0)
    [pong] = pair.far_wire.writes
    assert pong == b"\x8a\x05hello"
    assert pair.far.session._liveness.now > heard


# -- events -------------------------------------------------------------------------------------


async def test_a_session_without_streams_answers_at_once(pair: Pair) -> None:
    """Ten thousand of them are asked every 15 s: a turn of the loop later would be a timer each."""
    asked = plain_frame(Type.PING, 0, b"12345678")
    pair.far.feed(WebSocket(client=True).frame([asked], len(asked)))
    answered = plain_frame(Type.PONG, 0, b"12345678")
    assert pair.far_wire.read() == WebSocket(client=False).frame([answered], len(answered))
    pair.streams()
    pair.far.feed(WebSocket(client=True).frame([asked], len(asked)))
    assert not pair.far_wire.writes
    await asyncio.sleep(0)
    assert len(pair.far_wire.writes) == 1


async def test_what_comes_for_a_stream_goes_to_its_owner(pair: Pair) -> None:
    near, far = pair.streams()
    near.stream.send(b"hello")
    near.stream.end()
    pair.near.wake()
    await pair.carry()
    assert far.told == [b"hello", "ended"]
    far.stream.end()
    pair.far.wake()
    await pair.carry()
    assert far.told == [b"hello", "ended", "finished"]
    assert near.told == ["ended", "finished"]


async def test_the_rest_goes_to_the_handler(pair: Pair) -> None:
    pair.far.session.notice("look")
    pair.far.session.goaway(Code.GOING_AWAY, "soon")
    stream = pair.near.session.open({"service": "ssh"})
    pair.far.wake()
    pair.near.wake()
    await pair.carry()
    assert [type(event) for event in pair.near_watcher.events[1:3]] == [Notice, GoAway]
    assert stream.state == "closed"
    assert [type(event) for event in pair.far_watcher.events] == [Hello]


async def test_an_offered_stream_is_told_with_its_message(pair: Pair) -> None:
    near = Source(pair.near.session.open({"service": "ssh"}))
    pair.near.wake()
    await pair.carry()
    opened = pair.far_watcher.events[-1]
    assert isinstance(opened, Opened)
    assert opened.message == {"service": "ssh"}
    opened.stream.accept({"peer": "10.0.0.1:22"})
    pair.far.wake()
    await pair.carry()
    assert near.told == [{"peer": "10.0.0.1:22"}]


# -- time ---------------------------------------------------------------------------------------


async def test_a_silent_peer_ends_it() -> None:
    """Begun 5 s ago, and no HELLO came."""
    pair = Pair(age=4.99)
    near, _ = pair.streams()
    await until(lambda: pair.near.over)
    assert pair.near_wire.aborted
    assert [type(event) for event in pair.near_watcher.events] == [Dead]
    [(code, reason)] = near.told  # type: ignore[misc]
    assert code == Code.PEER_LOST
    assert pair.near_watcher.ends == [(Code.PEER_LOST, reason)]


async def test_its_timer_ends_with_it(pair: Pair) -> None:
    pair.near.abort()
    assert pair.near._timer is None


# -- ends ---------------------------------------------------------------------------------------


async def test_finishing_sends_what_is_queued_and_waits_for_the_answer(pair: Pair) -> None:
    near, far = pair.streams()
    near.stream.send(bytes(200 * KIB))
    near.stream.end()
    far.stream.end()
    pair.far.wake()
    await pair.carry(1)
    pair.near.finish()
    assert not pair.near.over
    await pair.carry(30)
    assert len(b"".join(piece for piece in far.told if isinstance(piece, bytes))) == 200 * KIB
    assert near.told[-1] == far.told[-1] == "finished"
    assert pair.near_watcher.ends == [(0, "")]
    assert pair.far_watcher.ends == [(0, "")]
    assert pair.near_wire.closed
    assert pair.far_wire.closed


async def test_finishing_takes_only_so_long(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FINISH_S", 0.01)
    pair.near.finish()
    await until(lambda: pair.near.over)
    assert pair.near_wire.aborted
    assert pair.near_watcher.ends[0][0] == Code.PEER_LOST


async def test_nothing_follows_a_close_frame(pair: Pair) -> None:
    """RFC 6455, 5.5.1; credits and pings could."""
    pair.near.finish()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    written = pair.near_wire.read()
    pair.near.session.notice("late")
    pair.near.wake()
    await asyncio.sleep(0)
    assert written
    assert not pair.near_wire.writes


async def test_closing_tells_the_peer_why(pair: Pair) -> None:
    near, far = pair.streams()
    pair.near.close(Code.GOING_AWAY, "the proxy restarts")
    assert pair.near_wire.closed
    pair.far.feed(pair.near_wire.read())
    away = pair.far_watcher.events[-1]
    assert isinstance(away, GoAway)
    assert (away.code, away.reason) == (Code.GOING_AWAY, "the proxy restarts")
    assert pair.far.websocket.closed is not None
    assert pair.far.websocket.closed.code == 1001
    assert near.told == [(Code.GOING_AWAY, "the proxy restarts")]
    assert far.told == [(Code.GOING_AWAY, "the proxy restarts")]
    assert pair.near_watcher.ends == [(Code.GOING_AWAY, "the proxy restarts")]


async def test_streams_may_be_told_something_else_than_the_peer(pair: Pair) -> None:
    near, far = pair.streams()
    pair.near.close(Code.REVOKED, "not any more", reconnect_in=60, streams=Code.AGENT_LOST)
    pair.far.feed(pair.near_wire.read())
    away = pair.far_watcher.events[-1]
    assert isinstance(away, GoAway)
    assert (away.code, away.reconnect_in) == (Code.REVOKED, 60)
    assert near.told == [(Code.AGENT_LOST, "not any more")]
    assert far.told[-1] != near.told[-1]
    assert pair.near_watcher.ends == [(Code.REVOKED, "not any more")]


async def test_a_channel_may_get_another_owner(pair: Pair) -> None:
    heir = Watcher()
    pair.near.hand_over(heir)
    pair.far.session.notice("who hears this?")
    pair.far.wake()
    await pair.carry()
    pair.near.close(Code.GOING_AWAY, "that was it")
    assert [type(event) for event in heir.events][-1:] == [Notice]
    assert heir.ends == [(Code.GOING_AWAY, "that was it")]
    assert pair.near_watcher.ends == []


async def test_what_was_sent_is_counted(pair: Pair) -> None:
    near, _ = pair.streams()
    before = pair.near.sent
    near.stream.send(bytes(100_000))
    pair.near.wake()
    await pair.carry()
    assert 100_000 < pair.near.sent - before < 101_000


async def test_a_close_that_does_not_leave_is_cut(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop's TLS transports flush for up to 30 s."""
    monkeypatch.setattr(module, "CLOSE_S", 0.01)
    pair.near.close(Code.INTERNAL, "oops")
    assert not pair.near_wire.aborted
    await until(lambda: pair.near_wire.aborted)


BROKEN: dict[str, Callable[[Pair], bytes]] = {
    "the carriage": lambda pair: b"\x81\x02hi",
    "a masked frame from a server": lambda pair: WebSocket(client=True).frame([b"x"], 1),
    "a frame of the session": lambda pair: pair.far.websocket.frame([b"\xee\x01\0\0\0\0\0\0"], 8),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_peer_that_breaks_the_protocol_is_told_and_left(
    pair: Pair, broken: Callable[[Pair], bytes]
) -> None:
    near, _ = pair.streams()
    pair.near.feed(broken(pair))
    assert pair.near.over
    assert pair.near_wire.closed
    pair.far.feed(pair.near_wire.read())
    assert pair.far.websocket.closed is not None
    assert pair.far.websocket.closed.code == 1002
    [(code, _)] = near.told  # type: ignore[misc]
    assert code == Code.PROTOCOL
    assert [code for code, _ in pair.near_watcher.ends] == [Code.PROTOCOL]


ENDS: dict[str, tuple[Callable[[Channel], None], int]] = {
    "end of input": (lambda channel: channel.eof(), Code.AGENT_LOST),
    "lost": (lambda channel: channel.connection_lost(None), Code.AGENT_LOST),
    "broken": (lambda channel: channel.connection_lost(OSError("x")), Code.AGENT_LOST),
    "cut": (lambda channel: channel.abort(), Code.AGENT_LOST),
    "closed well by the peer": (lambda channel: channel.feed(b"\x88\x02\x03\xe8"), 0),
    "closed by the peer": (lambda channel: channel.feed(b"\x88\x02\x0b\xb8"), Code.AGENT_LOST),
}


@pytest.mark.parametrize(("end", "code"), ENDS.values(), ids=ENDS)
async def test_however_it_ends_everybody_is_told_once(
    end: Callable[[Channel], None], code: int
) -> None:
    pair = Pair(lost=Code.AGENT_LOST)
    near, _ = pair.streams()
    await pair.carry()
    end(pair.near)
    assert [told for told, _ in pair.near_watcher.ends] == [code]
    assert [told for told, _ in near.told] == [Code.AGENT_LOST]  # type: ignore[misc]
    pair.near.connection_lost(None)
    pair.near.close(Code.INTERNAL, "again")
    pair.near.finish()
    pair.near.feed(b"\xff" * 100)
    pair.near.wake()
    await asyncio.sleep(0)
    assert len(pair.near_watcher.ends) == len(near.told) == 1


@pytest.mark.parametrize(
    ("close", "code"),
    [(1000, 0), (1001, Code.GOING_AWAY), (1002, Code.PROTOCOL), (1008, Code.PEER_LOST),
     (1011, Code.INTERNAL), (4000, Code.PEER_LOST)],
    ids=str,
)  # fmt: skip
async def test_the_peers_close_code_is_understood(pair: Pair, close: int, code: int) -> None:
    near, _ = pair.streams()
    pair.near.feed(pair.far.websocket.close(close, "evil \x1b[2J"))
    assert pair.near_watcher.ends == [(code, "evil [2J")]
    assert near.told == [(code or Code.PEER_LOST, "evil [2J")]


async def test_an_owner_may_end_everything_in_the_middle_of_an_event(pair: Pair) -> None:
    class Rude(Source):
        def data(self, payload: bytes | memoryview) -> None:
            super().data(payload)
            pair.far.close(Code.INTERNAL, "enough")

    near, far = Source(pair.near.session.adopt()), Rude(pair.far.session.adopt())
    near.stream.send(b"one")
    near.stream.end()
    pair.near.wake()
    await pair.carry()
    assert far.told == [b"one", (Code.INTERNAL, "enough")]


# -- on real transports -------------------------------------------------------------------------


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_slow_carriage_is_kept_to_its_mark(loop: str, tls: bool) -> None:
    """The far end does not read: streams' queues fill, the transport does not."""

    async def scenario() -> None:
        async with carriage(single=False, tls=tls) as (near, far):
            assert far.connection.transport is not None
            far.connection.transport.pause_reading()
            source = Source(near.channel.session.adopt())
            near.channel.session._outbox.scheduler.allow(source.stream, 60 << 20)
            near.channel.wake()
            worst = 0
            transport = near.connection.transport
            assert transport is not None
            for _ in range(3000):
                if not source.stream.full:
                    source.stream.send(bytes(64 * KIB))
                    near.channel.wake()
                await asyncio.sleep(0)
                worst = max(worst, transport.get_write_buffer_size())
            assert source.stream.full
            assert worst <= 96 * KIB + 1024

    run_on(loop, scenario())


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_both_ends_close_in_good_order(loop: str, tls: bool) -> None:
    async def scenario() -> None:
        async with carriage(tls=tls) as (near, far):
            near.channel.finish()
            await until(lambda: near.watcher.ends and far.watcher.ends)
            assert near.watcher.ends == far.watcher.ends == [(0, "")]
            await until(lambda: near.connection.transport is None)

    run_on(loop, scenario())


def test_a_lost_carriage_is_noticed(loop: str) -> None:
    async def scenario() -> None:
        async with carriage() as (near, far):
            assert near.connection.transport is not None
            near.connection.transport.abort()
            await until(lambda: near.watcher.ends and far.watcher.ends)
            assert [end[0] for end in (*near.watcher.ends, *far.watcher.ends)] == [16, 16]

    run_on(loop, scenario())
