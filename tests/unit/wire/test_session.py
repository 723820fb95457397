from __future__ import annotations

import subprocess
import sys

import pytest

from heim_wire.errors import Code, OpenRefused, WireError
from heim_wire.events import Accepted, Data, Dead, GoAway, Hello, Notice, Opened, Ready, Reset
from heim_wire.frames import HEAD_BYTES, MAX_DATA, Type
from heim_wire.session import Session
from heim_wire.settings import Settings
from heim_wire.stream import State, Stream
from heim_wire.window import WindowBudget
from tests.unit.wire.pairs import HELLO, Pair, frame, frames, greeted, taken

KIB, MIB = 1 << 10, 1 << 20


def joined(**options: object) -> tuple[Pair, Stream, Stream]:
    """Both ends of the `connect` leg: stream 1 is open."""
    pair = Pair(**options)  # type: ignore[arg-type]
    ends = pair.a.adopt(1), pair.b.adopt(1)
    pair.turn()
    return pair, *ends


def test_hello_is_the_first_word_of_both() -> None:
    session = Session(initiator=True, now=0.0, hello={"replica": "r1"})
    session.adopt(1).send(b"x")
    session.auth({"kind": "bearer", "token": "t"})
    kinds = [kind for kind, _, _ in frames(taken(session))]
    assert kinds == [Type.HELLO, Type.AUTH, Type.WINDOW, Type.DATA]


def test_hello_says_versions_and_limits_and_what_the_owner_says() -> None:
    pair = Pair(settings=Settings(max_streams=0))
    pair.turn()
    assert pair.a.peer == {"v": [1], "max_streams": 0}
    assert isinstance(pair.events["a"][0], Hello)
    session = Session(initiator=True, now=0.0, hello={"agent": "pi"})
    assert frames(taken(session))[0][2] == b'{"v":[1],"max_streams":1024,"agent":"pi"}'


def test_a_connect_leg_from_beginning_to_end() -> None:
    pair, client, server = joined()
    pair.b.ready({"user": "alice", "backend": "ssh", "expires": None, "request_id": "01J"})
    client.send(b"GET")
    client.end()
    server.send(b"answer")
    server.end()
    pair.settle()
    assert pair.got == {("a", 1): b"answer", ("b", 1): b"GET"}
    assert pair.kinds("a") == ["Hello", "Ready", "Data", "Ended", "Closed"]
    assert pair.kinds("b") == ["Hello", "Data", "Ended", "Closed"]
    assert (client.state, server.state) == (State.CLOSED, State.CLOSED)
    assert isinstance(pair.events["a"][1], Ready)


def test_half_closed_streams_still_deliver() -> None:
    pair, client, server = joined()
    client.send(b"x")
    client.end()
    pair.settle()
    server.send(b"y" * 500_000)
    pair.settle()
    server.end()
    pair.settle()
    assert pair.got["a", 1] == b"y" * 500_000
    assert client.state == server.state == State.CLOSED


def test_a_stream_that_is_asked_for() -> None:
    pair = Pair()
    pair.turn()
    stream = pair.a.open({"target": "10.0.0.5:22"})
    pair.turn()
    event = pair.last("b")
    assert isinstance(event, Opened)
    event.stream.accept({"peer": "10.0.0.5:22"})
    pair.turn()
    accepted = pair.last("a")
    assert isinstance(accepted, Accepted)
    assert (accepted.stream, accepted.message) == (stream, {"peer": "10.0.0.5:22"})


def test_a_stream_that_is_refused() -> None:
    pair = Pair()
    pair.turn()
    stream = pair.a.open({})
    stream.send(b"early")
    pair.turn()
    event = pair.events["b"][1]
    assert isinstance(event, Opened)
    event.stream.reset(Code.DIAL_REFUSED, "10.0.0.5:22: connection refused")
    pair.settle()
    reset = pair.last("a")
    assert isinstance(reset, Reset)
    assert (reset.code, reset.reason) == (6, "10.0.0.5:22: connection refused")
    assert pair.a.streams == pair.b.streams == {}


@pytest.mark.parametrize(
    "size", [1, 16_367, 16_368, 16_369, 65_527, 65_528, 65_535, 65_536, 65_537]
)
@pytest.mark.parametrize("limit", [4_104, 16_384, 65_536, 1 << 20])
def test_writes_of_every_size_arrive(size: int, limit: int) -> None:
    pair, client, _ = joined()
    payload = bytes(index % 251 for index in range(size))
    client.send(payload)
    client.end()
    pair.settle(limit)
    assert pair.got["b", 1] == payload


def test_a_stalled_reader_is_sent_one_window_and_no_more() -> None:
    pair, client, server = joined()
    server.sink_paused = True
    pair.consume = lambda side, data: False
    sent = 0
    for _ in range(2_000):
        if not client.full:
            client.send(b"x" * 65_536)
            sent += 65_536
        pair.turn()
    received = len(pair.got["b", 1])
    assert received == 256 * KIB
    # What the source could get rid of: one window, one queue, one read.
    assert sent <= 256 * KIB + 128 * KIB + 64 * KIB
    assert client.queued == pair.a.queued == sent - received


def test_a_reader_that_goes_on_gets_the_rest() -> None:
    pair, client, server = joined()
    pair.consume = lambda side, data: False
    client.send(b"x" * 400_000)
    client.end()
    pair.settle()
    assert len(pair.got["b", 1]) == 256 * KIB
    server.consumed(256 * KIB)
    pair.settle()
    assert len(pair.got["b", 1]) == 400_000


def test_a_fast_reader_gets_a_window_that_fits_the_path() -> None:
    pair, client, server = joined(delay=0.02)
    for _ in range(100):
        while not client.full:
            client.send(b"x" * 65_536)
        # 64 KiB each 20 ms is slower than the first window; 1 MiB each 20 ms needs more.
        pair.turn(64 * KIB)
    assert server.window.size == 256 * KIB
    for _ in range(100):
        while client.queued < 2 * MIB:
            client.send(b"x" * MIB)
        pair.turn(MIB)
        pair.got.clear()
    # A path that holds 2 MiB.
    assert 2 * MIB <= server.window.size <= 8 * MIB
    assert pair.b.rtt == pytest.approx(0.04, rel=0.6)


def test_windows_are_bounded_for_session_and_process() -> None:
    budget = WindowBudget(2 * MIB)
    pair = Pair(settings=Settings(session_window=MIB), budget=budget)
    pair.turn()
    for _ in range(40):
        pair.a.open({})
    pair.turn()
    # Four windows fit into the session; every stream has its first 64 KiB all the same.
    assert budget.used == 80 * 64 * KIB + 4 * 192 * KIB
    for event in pair.events["b"][1:]:
        assert isinstance(event, Opened)
        event.stream.reset(Code.IDLE)
    pair.settle()
    assert budget.used == 0


def test_one_stream_does_not_slow_down_another() -> None:
    """A keystroke beside four uploads waits for no more than what is written already."""
    pair = Pair()
    pair.turn()
    bulks = [pair.a.open({}) for _ in range(4)]
    key = pair.a.open({})
    pair.turn()
    for event in pair.events["b"][1:]:
        assert isinstance(event, Opened)
        event.stream.accept()
    pair.turn()
    for index in range(50):
        for bulk in bulks:
            while not bulk.full:
                bulk.send(b"b" * 65_536)
        if index < 2:
            # The uploads are new as well; that lasts for one turn each.
            pair.turn()
            continue
        key.send(b"k")
        sent = taken(pair.a)
        first = next(one for one in frames(sent) if one[0] == Type.DATA)
        assert first[1:] == (key.id, b"k")
        pair._note("b", pair.b.receive(sent, pair.now))
        pair._note("a", pair.a.receive(taken(pair.b), pair.now))
    shares = [len(pair.got["b", bulk.id]) for bulk in bulks]
    assert max(shares) - min(shares) <= 2 * 16_384


def test_one_stream_alone_costs_one_head_for_each_64_kib() -> None:
    pair, client, _ = joined()
    client.send(b"x" * 131_072)
    parts, size = pair.a.take(2 * (MAX_DATA + HEAD_BYTES))
    assert size == 131_070 + 2 * HEAD_BYTES
    assert sum(len(part) == HEAD_BYTES for part in parts) == 2


def test_silence_brings_a_ping_and_then_death() -> None:
    session = greeted()
    session.receive(HELLO[:0], 100.0)
    assert session.deadline == 110.0
    assert session.tick(109.0) == []
    assert not session.wants_write
    assert session.tick(110.0) == []
    assert frames(taken(session)) == [(Type.PING, 0, b"\x07" * 8)]
    (event,) = session.tick(125.0)
    assert isinstance(event, Dead)
    assert event.reason == "nothing was received for 25 s"


def test_a_sign_of_life_that_is_no_frame_counts() -> None:
    session = greeted()
    for now in range(0, 300, 9):
        assert session.receive(b"", float(now)) == []
        assert session.tick(float(now)) == []
    assert not session.wants_write


def test_a_peer_that_never_greets_is_dead() -> None:
    session = Session(initiator=False, now=50.0)
    assert session.deadline == 55.0
    (event,) = session.tick(55.0)
    assert isinstance(event, Dead)
    assert "HELLO" in event.reason


def test_a_laptop_that_was_opened_again_is_told_within_seconds() -> None:
    pair, _, _ = joined()
    pair.settle()
    assert pair.a.tick(1.0, 1_000_001.0) == []
    assert pair.a.tick(2.0, 1_000_900.0) == []
    assert [kind for kind, _, _ in frames(taken(pair.a))] == [Type.PING]
    assert pair.a.deadline == 5.0
    (event,) = pair.a.tick(5.0, 1_000_903.0)
    assert isinstance(event, Dead)


def test_two_idle_sessions_keep_each_other_alive() -> None:
    pair, _, _ = joined()
    pair.settle()
    while pair.now < 600:
        pair.now = min(pair.a.deadline, pair.b.deadline)
        assert pair.a.tick(pair.now) == pair.b.tick(pair.now) == []
        pair.settle()
    assert pair.a.rtt == pytest.approx(0.02)


def test_a_goaway_lets_streams_go_on() -> None:
    pair, client, server = joined()
    pair.b.goaway(Code.GOING_AWAY, "restart", reconnect_in=1.0, try_for=30.0, drain=300.0)
    pair.settle()
    event = pair.last("a")
    assert isinstance(event, GoAway)
    assert (event.code, event.reason, event.drain) == (12, "restart", 300.0)
    with pytest.raises(OpenRefused):
        pair.a.open({})
    assert server.state == State.OPEN
    client.send(b"still here")
    pair.settle()
    assert pair.got["b", 1] == b"still here"


def test_a_notice_is_a_line_that_is_safe_to_print() -> None:
    pair, client, server = joined()
    pair.b.notice("your session ends\x1b[2J at 17:00\n", server)
    pair.b.notice("x" * 2000)
    pair.settle()
    about, general = pair.events["a"][-2:]
    assert isinstance(about, Notice)
    assert isinstance(general, Notice)
    assert (about.stream, about.text) == (client, "your session ends [2J at 17:00")
    assert (general.stream, len(general.text)) == (None, 1024)


def test_a_lost_connection_ends_every_stream_and_gives_its_memory_back() -> None:
    budget = WindowBudget()
    pair, client, server = joined(budget=budget)
    pair.settle()
    other = pair.a.open({})
    client.send(b"x" * 1_000_000)
    ends = pair.a.close(Code.AGENT_LOST, "connection to agent pi was lost")
    assert [(end.stream, end.code) for end in ends] == [(client, 15), (other, 15)]
    assert {end.reason for end in ends} == {"connection to agent pi was lost"}
    assert client.state == other.state == State.CLOSED
    assert (pair.a.wants_write, pair.a.queued, pair.a.streams) == (False, 0, {})
    assert pair.a.close(Code.AGENT_LOST, "again") == []
    with pytest.raises(OpenRefused):
        pair.a.open({})
    pair.b.close(Code.AGENT_LOST, "")
    assert budget.used == 0
    assert server.state == State.CLOSED


def test_a_hundred_streams_that_wait_are_lost_too() -> None:
    session = greeted(initiator=True)
    streams = [session.open({}) for _ in range(100)]
    assert {end.stream for end in session.close(Code.PEER_LOST, "")} == set(streams)
    assert not session.wants_write


def test_a_broken_session_stays_broken_and_keeps_what_came_before() -> None:
    session = greeted()
    session.adopt(1)
    taken(session)
    with pytest.raises(WireError):
        session.receive(frame(Type.DATA, 1, b"last words") + HELLO, 0.0)
    (event,) = session.events()
    assert isinstance(event, Data)
    with pytest.raises(WireError, match="HELLO twice"):
        session.receive(frame(Type.DATA, 1, b"x"), 1.0)
    session.goaway(Code.PROTOCOL, "HELLO twice")
    assert frames(taken(session)) == [(Type.GOAWAY, 0, b"\0\x01" + b"\0" * 12 + b"HELLO twice")]


def test_what_we_say_is_checked_before_it_is_said() -> None:
    session = greeted(initiator=True)
    with pytest.raises(ValueError, match="4096"):
        session.open({"x": "y" * 4096})
    with pytest.raises(ValueError, match="4096"):
        session.auth({"token": "y" * 4096})
    assert session.streams == {}
    assert not session.wants_write


@pytest.mark.parametrize("initiator", [True, False])
def test_only_one_side_proves_and_only_the_other_answers(initiator: bool) -> None:
    session = greeted(initiator=initiator)
    with pytest.raises(AssertionError):
        (session.ready if initiator else session.auth)({})


def test_a_session_shows_itself() -> None:
    pair, client, _ = joined()
    client.send(b"x" * 10)
    assert repr(pair.a) == "<Session initiator streams=1 queued=10>"
    assert repr(pair.b) == "<Session acceptor streams=1 queued=0>"


def test_the_core_is_light_enough_for_a_command_that_starts_in_50_ms() -> None:
    code = "import sys; import heim_wire.session; print(' '.join(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, 'proxy'); {code}"],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    loaded = set(told.stdout.split())
    assert "heim_wire.session" in loaded
    heavy = ("typing", "dataclasses", "logging", "asyncio", "socket", "ssl", "select", "random",
             "inspect", "datetime", "hashlib", "heim_runtime", "websockets")  # fmt: skip
    assert [name for name in heavy if name in loaded] == []
