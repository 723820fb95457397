from __future__ import annotations

import pytest

from heim_wire.errors import Code, OpenRefused, WireError
from heim_wire.events import Accepted, Opened, Reset
from heim_wire.frames import Type
from heim_wire.settings import Settings
from heim_wire.stream import State, Stream
from heim_wire.streams import MAX_OPENING, MAX_UNKNOWN
from tests.unit.wire.pairs import HELLO, Pair, frame, frames, greeted, taken

OFFER = b"{}"


def opens(count: int, *, first: int = 1) -> bytes:
    return b"".join(frame(Type.OPEN, first + 2 * index, OFFER) for index in range(count))


def sent(data: bytes, kind: int) -> list[int]:
    """The streams of all frames of one type."""
    return [stream for one, stream, _ in frames(data) if one == kind]


@pytest.mark.parametrize(("initiator", "ids"), [(True, [1, 3, 5]), (False, [2, 4, 6])])
def test_numbers_are_odd_for_the_initiator_and_even_for_the_acceptor(
    initiator: bool, ids: list[int]
) -> None:
    session = greeted(initiator=initiator)
    assert [session.open({}).id for _ in range(3)] == ids
    assert sent(taken(session), Type.OPEN) == ids


def test_a_number_of_an_adopted_stream_is_not_used_again() -> None:
    initiator, acceptor = greeted(initiator=True), greeted()
    initiator.adopt(1)
    assert initiator.open({}).id == 3
    acceptor.adopt(1)
    with pytest.raises(WireError, match="again"):
        acceptor.receive(frame(Type.OPEN, 1, OFFER), 0.0)


@pytest.mark.parametrize("stream_id", [0, 2])
def test_only_the_initiators_streams_are_adopted(stream_id: int) -> None:
    with pytest.raises(ValueError, match="adopted"):
        greeted().adopt(stream_id)


def test_a_stream_is_adopted_once() -> None:
    session = greeted()
    session.adopt(1)
    with pytest.raises(ValueError, match="adopted"):
        session.adopt(1)


def test_an_adopted_stream_is_open_and_granted_its_window() -> None:
    session = greeted()
    stream = session.adopt(1)
    assert (stream.state, stream.credit) == (State.OPEN, 65_536)
    assert frames(taken(session)) == [(Type.WINDOW, 1, (196_608).to_bytes(4, "big"))]


BAD_OPENS = [
    pytest.param(False, [2], id="ours by parity"),
    pytest.param(True, [1], id="ours by parity, seen by the initiator"),
    pytest.param(False, [1, 1], id="used just now"),
    pytest.param(False, [5, 3], id="less than one before"),
    pytest.param(True, [4, 4], id="used just now, seen by the initiator"),
]


@pytest.mark.parametrize(("initiator", "ids"), BAD_OPENS)
def test_a_number_that_is_not_the_peers_to_use_ends_the_session(
    initiator: bool, ids: list[int]
) -> None:
    session = greeted(initiator=initiator)
    with pytest.raises(WireError) as refused:
        session.receive(b"".join(frame(Type.OPEN, one, OFFER) for one in ids), 0.0)
    assert refused.value.code == Code.PROTOCOL


def test_a_number_may_not_be_used_again_after_its_stream_closed() -> None:
    session = greeted()
    session.receive(frame(Type.OPEN, 1, OFFER) + frame(Type.RESET, 1, b"\0\1"), 0.0)
    with pytest.raises(WireError, match="again"):
        session.receive(frame(Type.OPEN, 1, OFFER), 0.0)


def test_numbers_may_be_left_out() -> None:
    assert len(greeted().receive(frame(Type.OPEN, 1, OFFER) + frame(Type.OPEN, 99, OFFER), 0)) == 2


def test_the_last_number_is_the_last() -> None:
    session = greeted(initiator=True)
    session._streams._next_id = 0xFFFF_FFFF
    assert session.open({}).id == 0xFFFF_FFFF
    with pytest.raises(OpenRefused) as refused:
        session.open({})
    assert refused.value.code == Code.GOING_AWAY


def test_both_sides_may_open() -> None:
    pair = Pair()
    pair.turn()
    ours, theirs = pair.a.open({"target": "x"}), pair.b.open({"target": "y"})
    pair.turn()
    opened = pair.last("b"), pair.last("a")
    for event, message in zip(opened, ("x", "y"), strict=True):
        assert isinstance(event, Opened)
        assert event.message == {"target": message}
        event.stream.accept({"peer": message})
    pair.settle()
    for side, stream in (("a", ours), ("b", theirs)):
        assert stream.state == State.OPEN
        assert any(isinstance(one, Accepted) for one in pair.events[side])


def test_no_more_than_64_opens_wait_for_an_answer() -> None:
    session = greeted(initiator=True)
    streams = [session.open({}) for _ in range(100)]
    streams[99].send(b"waits for its OPEN")
    data = taken(session, 1 << 20)
    assert sent(data, Type.OPEN) == [stream.id for stream in streams[:MAX_OPENING]]
    assert sent(data, Type.DATA) == []
    session.receive(frame(Type.ACCEPT, 1, OFFER) + frame(Type.RESET, 3, b"\0\6"), 0.0)
    assert sent(taken(session), Type.OPEN) == [129, 131]
    streams[66].reset(Code.IDLE)
    for stream in streams[4:66]:
        stream.reset(Code.IDLE)
    data = taken(session, 1 << 20)
    # One that was given up before its OPEN went is never mentioned.
    assert sent(data, Type.OPEN) == [stream.id for stream in streams[67:]]
    assert 2 * 66 + 1 not in sent(data, Type.RESET)
    assert sent(data, Type.DATA) == [199]


def test_five_hundred_streams_at_once_are_all_opened() -> None:
    pair = Pair()
    pair.turn()
    for _ in range(500):
        pair.a.open({}).send(b"x")
    while any(stream.state == State.OPENING for stream in pair.a.streams.values()):
        before = len(pair.events["b"])
        pair.turn()
        for event in pair.events["b"][before:]:
            assert not isinstance(event, Reset)
            if isinstance(event, Opened):
                event.stream.accept()
    pair.settle()
    assert pair.got == {("b", 1 + 2 * index): b"x" for index in range(500)}


def test_more_opens_than_may_wait_are_refused() -> None:
    session = greeted()
    events = session.receive(opens(MAX_OPENING + 2), 0.0)
    assert [type(event) for event in events] == [Opened] * MAX_OPENING
    assert sent(taken(session), Type.RESET) == [129, 131]
    for event in events[:2]:
        assert isinstance(event, Opened)
        event.stream.accept()
    assert len(session.receive(opens(3, first=133), 0.0)) == 2


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_more_streams_than_allowed_are_refused(limit: int) -> None:
    session = greeted(settings=Settings(max_streams=limit))
    events = session.receive(opens(4), 0.0)
    assert len(events) == limit
    resets = [one for one in frames(taken(session)) if one[0] == Type.RESET]
    assert [stream for _, stream, _ in resets] == [1 + 2 * index for index in range(limit, 4)]
    assert all(payload == b"\0\x09too many streams" for _, _, payload in resets)


def test_early_data_of_a_refused_stream_is_no_offence() -> None:
    session = greeted(settings=Settings(max_streams=0))
    session.receive(opens(1) + frame(Type.DATA, 1, b"x" * 60_000), 0.0)
    assert session._streams._unknown == 0


def test_a_stream_that_closed_makes_room() -> None:
    session = greeted(settings=Settings(max_streams=1))
    (event,) = session.receive(opens(1), 0.0)
    assert isinstance(event, Opened)
    event.stream.reset(Code.IDLE)
    assert len(session.receive(opens(1, first=3), 0.0)) == 1


def test_we_keep_to_the_peers_limit() -> None:
    session = greeted(initiator=True)
    session._inbox.peer = None
    session.receive(frame(Type.HELLO, 0, {"v": [1], "max_streams": 2}), 0.0)
    first = session.open({})
    session.open({})
    with pytest.raises(OpenRefused, match="2 streams are open") as refused:
        session.open({})
    assert refused.value.code == Code.BUSY
    first.reset(Code.IDLE)
    session.open({})


def test_no_new_streams_while_too_much_waits() -> None:
    session = greeted()
    stream = session.adopt(1)
    for megabytes in range(20):
        assert session.full == (megabytes >= 16)
        stream.send(b"x" * (1 << 20))
    with pytest.raises(OpenRefused) as refused:
        session.open({})
    assert refused.value.code == Code.BUSY
    assert session.receive(frame(Type.OPEN, 3, OFFER), 0.0) == []
    assert sent(taken(session), Type.RESET) == [3]
    # A peer cannot know how full we are, so asking often is no offence.
    for index in range(10_000):
        session.receive(frame(Type.OPEN, 5 + 2 * index, OFFER), 0.0)
        taken(session)
    stream.reset(Code.IDLE)
    session.open({})


def test_after_our_goaway_the_peers_streams_are_refused() -> None:
    session = greeted()
    session.goaway(Code.GOING_AWAY, "restart")
    assert session.going_away
    taken(session)
    assert session.receive(frame(Type.OPEN, 1, OFFER), 0.0) == []
    assert frames(taken(session)) == [(Type.RESET, 1, b"\0\x0cgoing away")]
    with pytest.raises(OpenRefused) as refused:
        session.open({})
    assert refused.value.code == Code.GOING_AWAY


def test_late_frames_of_a_closed_stream_are_dropped_for_a_minute() -> None:
    session = greeted()
    session.adopt(1).reset(Code.REVOKED)
    late = frame(Type.DATA, 1, b"x" * 1000) + frame(Type.WINDOW, 1, b"\0\1\0\0")
    assert session.receive(late, 59.9) == []
    assert session._streams._unknown == 0
    session.receive(late, 60.1)
    assert session._streams._unknown == 2


def test_late_data_is_dropped_as_far_as_the_window_allowed_it() -> None:
    session = greeted()
    session.adopt(1).reset(Code.REVOKED)
    chunk = frame(Type.DATA, 1, b"x" * 65_535)
    session.receive(chunk * 4, 1.0)
    assert session._streams._unknown == 0
    for _ in range(MAX_UNKNOWN):
        session.receive(chunk, 1.0)
    with pytest.raises(WireError, match="unknown streams"):
        session.receive(chunk, 1.0)


def test_late_frames_without_data_are_few() -> None:
    session = greeted()
    session.adopt(1).reset(Code.REVOKED)
    session.receive(frame(Type.NOTICE, 1, b"x") * 8, 1.0)
    assert session._streams._unknown == 0
    with pytest.raises(WireError, match="unknown streams"):
        session.receive(frame(Type.NOTICE, 1, b"x") * (MAX_UNKNOWN + 1), 1.0)


@pytest.mark.parametrize("kind", [Type.DATA, Type.EOF, Type.WINDOW, Type.ACCEPT, Type.RESET])
def test_frames_of_streams_that_never_were_end_the_session_when_there_are_too_many(
    kind: int,
) -> None:
    payload = {Type.WINDOW: b"\0\1\0\0", Type.ACCEPT: b"{}", Type.RESET: b"\0\1", Type.EOF: b""}
    one = frame(kind, 77, payload.get(kind, b"x"))
    session = greeted()
    for index in range(MAX_UNKNOWN):
        assert session.receive(one, index / 10) == []
    with pytest.raises(WireError) as refused:
        session.receive(one, 1000.0)
    assert refused.value.code == Code.PROTOCOL


def test_an_unknown_frame_counts_once_in_however_many_pieces_it_comes() -> None:
    session = greeted()
    for byte in frame(Type.DATA, 77, b"x" * 5000):
        session.receive(bytes((byte,)), 0.0)
    assert session._streams._unknown == 1


def test_what_is_remembered_of_closed_streams_is_bounded() -> None:
    session = greeted()
    for index in range(20_000):
        (event,) = session.receive(frame(Type.OPEN, 1 + 2 * index, OFFER), index / 1000)
        assert isinstance(event, Opened)
        event.stream.reset(Code.DIAL_REFUSED)
        taken(session)
    assert len(session._streams._past) == 4096
    session.receive(frame(Type.OPEN, 99_999, OFFER), 1000.0)
    session.streams[99_999].reset(Code.IDLE)
    assert len(session._streams._past) == 1


def test_streams_that_come_and_go_leave_nothing_behind() -> None:
    pair = Pair()
    pair.turn()
    for index in range(300):
        stream = pair.a.open({})
        stream.send(b"ping")
        pair.turn()
        event = pair.events["b"][-2]
        assert isinstance(event, Opened)
        event.stream.accept()
        if index % 3:
            event.stream.send(b"pong")
            event.stream.end()
            stream.end()
        else:
            event.stream.reset(Code.IDLE)
        pair.settle()
        pair.events = {"a": [], "b": []}
    for session in (pair.a, pair.b):
        streams = session._streams
        assert (session.streams, session.queued, streams.purse.used) == ({}, 0, 0)
        assert (streams._ours, streams._theirs) == (0, 0)
        assert (streams._opening, streams._offered, streams._unknown) == (0, 0, 0)


def test_frames_before_hello_count_for_nothing() -> None:
    session = greeted()
    assert isinstance(session.adopt(1), Stream)
    with pytest.raises(WireError, match="HELLO twice"):
        session.receive(HELLO, 0.0)
