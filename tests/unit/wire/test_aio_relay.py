"""Two real sockets joined by two relays and a carriage, on both loops."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from heim_wire.aio.channel import Channel
from heim_wire.aio.relay import Relay
from heim_wire.errors import Code
from heim_wire.events import Opened
from heim_wire.stream import State, Stream
from tests.fakes.loops import LOOPS, run_on
from tests.fakes.waiting import until
from tests.unit.wire.passages import (
    End,
    Passage,
    carriage,
    drain,
    keep_small,
    passage,
    reset,
    tcp_pair,
)

ON_BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)
KIB = 1024
MIB = 1024 * KIB


def through(
    loop: str,
    scenario: Callable[[Passage], Awaitable[None]],
    *,
    adopt: bool = True,
    tls: bool = False,
) -> None:
    """Run `scenario` with a passage."""

    async def staged() -> None:
        async with (
            carriage(single=adopt, tls=tls) as (near, far),
            passage(near, far, adopt=adopt) as way,
        ):
            await scenario(way)

    run_on(loop, staged())


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes."""
    loop = asyncio.get_running_loop()
    pieces = bytearray()
    while len(pieces) < size:
        piece = await loop.sock_recv(sock, size - len(pieces))
        assert piece, f"ended after {len(pieces)} of {size} bytes"
        pieces += piece
    return bytes(pieces)


@ON_BOTH_LOOPS
def test_who_made_the_local_connection_may_write_to_it_first_and_accept(loop: str) -> None:
    """And what the peer sent meanwhile comes after that."""

    async def scenario() -> None:
        async with carriage(single=False) as (near, far):
            offered: list[Stream] = []
            told: list[asyncio.Transport] = []

            def connected(transport: asyncio.Transport) -> None:
                told.append(transport)
                transport.write(b"first ")
                offered[0].accept({"peer": "there"})

            relay = Relay(lambda *_: None, connected=connected)

            def join(channel: Channel, event: Opened) -> None:
                offered.append(event.stream)
                relay.join(channel, event.stream)

            far.watcher.opened = join
            stream = near.channel.session.open({"target": "x"})
            stream.send(b"early")
            near.channel.wake()
            await until(lambda: offered)
            ours, theirs = tcp_pair()
            await asyncio.sleep(0.01)
            assert not told
            await asyncio.get_running_loop().create_connection(lambda: relay, sock=theirs)
            with ours:
                assert await receive(ours, 11) == b"first early"
            assert len(told) == 1
            await until(lambda: stream.state != State.OPENING)
            relay.end(Code.INTERNAL, "done")

    run_on(loop, scenario())


# -- bytes --------------------------------------------------------------------------------------


@ON_BOTH_LOOPS
@pytest.mark.parametrize("adopt", [True, False], ids=["adopted", "opened"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_bytes_pass_both_ways(loop: str, adopt: bool, tls: bool) -> None:
    async def scenario(way: Passage) -> None:
        await send(way.near, b"ping")
        assert await receive(way.far, 4) == b"ping"
        await send(way.far, b"pong!")
        assert await receive(way.near, 5) == b"pong!"
        assert (way.near_relay.sent, way.near_relay.received) == (4, 5)
        assert (way.far_relay.sent, way.far_relay.received) == (5, 4)

    through(loop, scenario, adopt=adopt, tls=tls)


@ON_BOTH_LOOPS
@pytest.mark.parametrize(
    "size", [1, 16367, 16368, 16369, 65535, 65536, 65537, 300_000], ids=lambda n: f"{n} bytes"
)
def test_sizes_around_every_border_arrive(loop: str, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def scenario(way: Passage) -> None:
        await asyncio.gather(send(way.near, data), send(way.far, data[::-1]))
        got = await asyncio.gather(receive(way.far, size), receive(way.near, size))
        assert got == [data, data[::-1]]

    through(loop, scenario)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_64_mib_each_way_arrive_as_they_were(loop: str, tls: bool) -> None:
    block = random.Random(1).randbytes(MIB)
    count = 64 if not tls else 32

    async def give(sock: socket.socket) -> str:
        running, digest = asyncio.get_running_loop(), hashlib.sha256()
        for number in range(count):
            piece = block[number * 101 :] + block[: number * 101]
            digest.update(piece)
            await running.sock_sendall(sock, piece)
        sock.shutdown(socket.SHUT_WR)
        return digest.hexdigest()

    async def take(sock: socket.socket) -> str:
        running, digest = asyncio.get_running_loop(), hashlib.sha256()
        while data := await running.sock_recv(sock, 256 * KIB):
            digest.update(data)
        return digest.hexdigest()

    async def scenario(way: Passage) -> None:
        up, down, at_far, at_near = await asyncio.gather(
            give(way.near), give(way.far), take(way.far), take(way.near)
        )
        assert (up, down) == (at_far, at_near)
        assert await way.over() == (0, 0)
        assert way.near_relay.sent == way.near_relay.received == count * MIB

    through(loop, scenario, tls=tls)


# -- ends ---------------------------------------------------------------------------------------


@ON_BOTH_LOOPS
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("first", ["near", "far"])
def test_one_side_ends_and_still_hears_the_other(loop: str, first: str, tls: bool) -> None:
    """`printf x | heim-tunnel proxy host` gets its whole answer, and so the other way around."""

    async def scenario(way: Passage) -> None:
        one, other = (way.near, way.far) if first == "near" else (way.far, way.near)
        await send(one, b"question")
        one.shutdown(socket.SHUT_WR)
        assert await drain(other) == b"question"
        answer = bytes(range(256)) * 2000
        await asyncio.gather(send(other, answer[:1000]), receive(one, 1000))
        assert not way.near_over
        assert not way.far_over
        reading = asyncio.ensure_future(drain(one))
        await send(other, answer[1000:])
        other.close()
        assert await reading == answer[1000:]
        assert await way.over() == (0, 0)

    through(loop, scenario, tls=tls)


async def both_ended(way: Passage, data: bytes) -> None:
    """The far side ended first, then the near one behind `data`, which nobody has read."""
    keep_small(way.far, way.far_relay)
    way.far.shutdown(socket.SHUT_WR)
    assert await drain(way.near) == b""
    await send(way.near, data)
    way.near.shutdown(socket.SHUT_WR)
    await until(lambda: way.far_relay.complete)
    assert way.far_relay._transport is not None
    assert way.far_relay._transport.get_write_buffer_size()


@ON_BOTH_LOOPS
def test_what_was_sent_before_both_ends_arrives_although_the_carriage_goes(loop: str) -> None:
    """A goodbye follows at once, and must not cut what a slow reader has not taken yet."""
    data = random.Random(2).randbytes(340 * KIB)

    async def scenario(way: Passage) -> None:
        await both_ended(way, data)
        way.far_relay.end(Code.PEER_LOST, "the client has gone")
        assert not way.far_over
        assert await drain(way.far) == data
        assert await way.over() == (0, 0)
        assert way.far_relay._rest is None

    through(loop, scenario)


@ON_BOTH_LOOPS
def test_who_never_takes_the_rest_is_cut(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heim_wire.aio.relay._REST_S", 0.05)

    async def scenario(way: Passage) -> None:
        await both_ended(way, bytes(340 * KIB))
        assert await way.over() == (0, Code.CONNECTION_RESET)
        with pytest.raises(ConnectionResetError):
            await drain(way.far)

    through(loop, scenario)


@ON_BOTH_LOOPS
def test_one_that_breaks_before_it_took_the_rest_is_told(loop: str) -> None:
    async def scenario(way: Passage) -> None:
        await both_ended(way, bytes(340 * KIB))
        reset(way.far)
        assert await way.over() == (0, Code.CONNECTION_RESET)

    through(loop, scenario)


@ON_BOTH_LOOPS
def test_both_may_end_at_once(loop: str) -> None:
    async def scenario(way: Passage) -> None:
        await asyncio.gather(send(way.near, b"a" * 100_000), send(way.far, b"b" * 100_000))
        way.near.shutdown(socket.SHUT_WR)
        way.far.shutdown(socket.SHUT_WR)
        assert await drain(way.near) == b"b" * 100_000
        assert await drain(way.far) == b"a" * 100_000
        assert await way.over() == (0, 0)
        assert way.near_stream.state == way.far_stream.state == State.CLOSED

    through(loop, scenario)


@ON_BOTH_LOOPS
def test_nothing_but_an_end_is_an_end(loop: str) -> None:
    async def scenario(way: Passage) -> None:
        way.near.close()
        assert await drain(way.far) == b""
        way.far.close()
        assert await way.over() == (0, 0)

    through(loop, scenario)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("first", ["near", "far"])
def test_a_reset_is_a_reset_at_the_other_side(loop: str, first: str) -> None:
    """A cut transfer must not look complete."""

    async def scenario(way: Passage) -> None:
        one, other = (way.near, way.far) if first == "near" else (way.far, way.near)
        await send(one, b"half of it")
        await receive(other, 10)
        reset(one)
        with pytest.raises(ConnectionResetError):
            await drain(other)
        assert await way.over() == (Code.CONNECTION_RESET, Code.CONNECTION_RESET)

    through(loop, scenario)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("first", ["near", "far"])
def test_a_reset_in_mid_transfer_is_one_too(loop: str, first: str) -> None:
    async def scenario(way: Passage) -> None:
        one, other = (way.near, way.far) if first == "near" else (way.far, way.near)

        async def flood() -> None:
            with suppress(ConnectionError):
                while True:
                    await send(other, bytes(MIB))

        flooding = asyncio.ensure_future(flood())
        await receive(one, 100_000)
        reset(one)
        await flooding
        assert await way.over() == (Code.CONNECTION_RESET, Code.CONNECTION_RESET)

    through(loop, scenario)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("who", ["near", "far"])
def test_an_owner_ends_both_sides_whenever_it_wants(loop: str, who: str) -> None:
    async def scenario(way: Passage) -> None:
        relay = way.near_relay if who == "near" else way.far_relay
        over, told = (way.near_over, way.far_over)[:: 1 if who == "near" else -1]
        relay.end(Code.REVOKED, "alice may not any more")
        relay.end(Code.IDLE, "twice")
        assert over == [(Code.REVOKED, "alice may not any more")]
        for sock in (way.near, way.far):
            with pytest.raises(ConnectionResetError):
                await drain(sock)
        await until(lambda: told)
        assert told == [(Code.REVOKED, "alice may not any more")]

    through(loop, scenario)


@ON_BOTH_LOOPS
def test_a_lost_carriage_resets_what_it_carried(loop: str) -> None:
    async def scenario() -> None:
        async with carriage() as (near, far), passage(near, far) as way:
            near.channel.abort()
            for sock in (way.near, way.far):
                with pytest.raises(ConnectionResetError):
                    await drain(sock)
            assert await way.over() == (Code.PEER_LOST, Code.PEER_LOST)

    run_on(loop, scenario())


# -- back-pressure ------------------------------------------------------------------------------


def is_held(relay: Relay) -> bool:
    """Whether it does not read its local side; the queue may be anywhere above its low mark."""
    assert relay._gate is not None
    return bool(relay._gate.holds)


@ON_BOTH_LOOPS
@pytest.mark.parametrize("forth", [True, False], ids=["upload", "download"])
def test_a_reader_that_stalls_costs_bounded_memory(loop: str, forth: bool) -> None:
    async def scenario(way: Passage) -> None:
        giver, taker = (way.near, way.far) if forth else (way.far, way.near)
        sink = way.far_relay if forth else way.near_relay
        stream = way.near_stream if forth else way.far_stream
        total = 16 * MIB
        keep_small(taker, sink)
        giving = asyncio.ensure_future(send(giver, bytes(total)))
        worst, still, before = 0, 0, -1

        def stuck() -> bool:
            """Nothing moved for a while: the kernel's buffers are full as well."""
            nonlocal worst, still, before
            assert sink._transport is not None
            worst = max(worst, sink._transport.get_write_buffer_size(), stream.queued)
            still = still + 1 if sink.received == before else 0
            before = sink.received
            return still > 100

        await until(stuck)
        assert is_held(way.near_relay if forth else way.far_relay)
        assert sink._write_paused
        assert not stream.credit
        # A mark and what the peer was allowed by then; or one read, beyond the other mark.
        window = (way.far_stream if forth else way.near_stream).window.size
        assert worst <= 192 * KIB + window
        assert window <= MIB
        assert not giving.done()
        assert len(await receive(taker, total)) == total
        await giving

    through(loop, scenario)


@ON_BOTH_LOOPS
def test_a_slow_reader_on_one_stream_leaves_another_alone(loop: str) -> None:
    async def scenario() -> None:
        async with (
            carriage(single=False) as (near, far),
            passage(near, far, adopt=False) as slow,
            passage(near, far, adopt=False) as quick,
        ):
            keep_small(slow.far, slow.far_relay)
            giving = asyncio.ensure_future(send(slow.near, bytes(32 * MIB)))
            await until(lambda: is_held(slow.near_relay) and slow.far_relay._write_paused)
            for number in range(50):
                word = str(number).encode() * 100
                await send(quick.near, word)
                assert await receive(quick.far, len(word)) == word
                await send(quick.far, word)
                assert await receive(quick.near, len(word)) == word
            assert not giving.done()
            giving.cancel()

    run_on(loop, scenario())


# -- before both sides are there ----------------------------------------------------------------


class Apart:
    """A carriage, a stream of its ends, and a local connection that is not joined yet."""

    def __init__(self, near: End, far: End) -> None:
        self.near, self.far = near, far
        self.over: list[tuple[int, str]] = []
        self.relay = Relay(lambda relay, code, reason: self.over.append((code, reason)))
        self.stream: Stream = near.channel.session.adopt()
        self.other = far.channel.session.adopt()
        self.sock, self._local = tcp_pair()

    async def connect(self) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: self.relay, self._local)

    def join(self) -> None:
        self.relay.join(self.near.channel, self.stream)


def apart(loop: str, scenario: Callable[[Apart], Awaitable[None]]) -> None:
    async def staged() -> None:
        async with carriage() as (near, far):
            stage = Apart(near, far)
            try:
                await scenario(stage)
            finally:
                stage.relay.end(Code.INTERNAL, "the test is over")
                stage.sock.close()

    run_on(loop, staged())


class Sink:
    """Takes what comes on the other end's stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.got = b""
        self.ends: list[object] = []
        stream.context = self

    def data(self, payload: bytes | memoryview) -> None:
        self.got += payload
        self.stream.consumed(len(payload))

    def ended(self) -> None:
        self.ends.append("end")

    def finished(self) -> None:
        self.ends.append("finished")

    def reset(self, code: int, reason: str) -> None:
        self.ends.append(code)

    def drained(self) -> None:
        pass


@ON_BOTH_LOOPS
def test_what_comes_before_the_stream_waits_in_the_kernel(loop: str) -> None:
    """tunnel.md, 0.4: uvloop read 240 MB while a proxy was dialling."""

    async def scenario(stage: Apart) -> None:
        sink = Sink(stage.other)
        sending = asyncio.ensure_future(send(stage.sock, b"x" * (16 * MIB)))
        await stage.connect()
        await asyncio.sleep(0.05)
        assert sum(map(len, stage.relay._early)) <= 256 * KIB
        assert not sending.done()
        stage.join()
        await sending
        stage.sock.shutdown(socket.SHUT_WR)
        await until(lambda: sink.ends)
        assert len(sink.got) == 16 * MIB

    apart(loop, scenario)


@ON_BOTH_LOOPS
def test_an_end_before_the_stream_is_told_behind_the_bytes(loop: str) -> None:
    async def scenario(stage: Apart) -> None:
        sink = Sink(stage.other)
        await send(stage.sock, b"early")
        stage.sock.shutdown(socket.SHUT_WR)
        await stage.connect()
        stage.join()
        await until(lambda: sink.ends)
        assert (sink.got, sink.ends) == (b"early", ["end"])

    apart(loop, scenario)


@ON_BOTH_LOOPS
def test_what_comes_before_the_local_connection_is_kept(loop: str) -> None:
    async def scenario(stage: Apart) -> None:
        stage.join()
        stage.other.send(b"early")
        stage.other.end()
        stage.far.channel.wake()
        await until(lambda: stage.relay._peer_ended)
        await stage.connect()
        assert await drain(stage.sock) == b"early"

    apart(loop, scenario)


@ON_BOTH_LOOPS
def test_before_the_local_connection_a_window_is_the_most_that_comes(loop: str) -> None:
    async def scenario(stage: Apart) -> None:
        stage.join()
        for _ in range(100):
            stage.other.send(bytes(64 * KIB))
        stage.far.channel.wake()
        await until(lambda: not stage.other.credit)
        await asyncio.sleep(0.02)
        assert sum(map(len, stage.relay._unsent)) == 256 * KIB
        await stage.connect()
        assert len(await receive(stage.sock, 6400 * KIB)) == 6400 * KIB

    apart(loop, scenario)


@ON_BOTH_LOOPS
def test_a_local_connection_that_breaks_before_the_stream_is_told(loop: str) -> None:
    async def scenario(stage: Apart) -> None:
        sink = Sink(stage.other)
        await stage.connect()
        assert stage.relay._transport is not None
        stage.relay._transport.abort()
        await until(lambda: stage.over)
        assert stage.over[0][0] == Code.CONNECTION_RESET
        stage.join()
        await until(lambda: sink.ends)
        assert sink.ends == [Code.CONNECTION_RESET]

    apart(loop, scenario)


@ON_BOTH_LOOPS
def test_an_end_while_dialling_is_kept_to(loop: str) -> None:
    async def scenario(stage: Apart) -> None:
        sink = Sink(stage.other)
        stage.join()
        stage.relay.end(Code.DIAL_TIMEOUT, "too slow")
        assert stage.over == [(Code.DIAL_TIMEOUT, "too slow")]
        await stage.connect()
        with pytest.raises(ConnectionResetError):
            await drain(stage.sock)
        await until(lambda: sink.ends)
        assert sink.ends == [Code.DIAL_TIMEOUT]

    apart(loop, scenario)


@ON_BOTH_LOOPS
def test_a_reset_while_dialling_is_kept_to(loop: str) -> None:
    async def scenario(stage: Apart) -> None:
        stage.join()
        stage.other.reset(Code.GOING_AWAY, "bye")
        stage.far.channel.wake()
        await until(lambda: stage.over)
        await stage.connect()
        with pytest.raises(ConnectionResetError):
            await drain(stage.sock)
        assert stage.over == [(Code.GOING_AWAY, "bye")]

    apart(loop, scenario)
