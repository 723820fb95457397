from __future__ import annotations

import itertools

import pytest

from heim_wire.errors import Code
from heim_wire.events import Accepted, Closed, Data, Drained, Ended, Event, Notice, Opened, Reset
from heim_wire.frames import Type
from heim_wire.session import Session
from heim_wire.stream import TRANSITIONS, Act, State, Stream
from heim_wire.window import MAX_CREDIT
from tests.unit.wire.pairs import frame, frames, greeted, taken

STATES = [value for name, value in vars(State).items() if name.isupper()]
ACTS = [value for name, value in vars(Act).items() if name.isupper()]
MINE, THEIRS = 2, 1


def offered(session: Session) -> Stream:
    (event,) = session.receive(frame(Type.OPEN, THEIRS, {}), 0.0)
    assert isinstance(event, Opened)
    return event.stream


def in_state(state: str) -> tuple[Session, Stream]:
    """An acceptor with one stream in a state; everything that led there was written."""
    session = greeted()
    if state == State.OPENING:
        stream = session.open({})
    elif state == State.OFFERED:
        stream = offered(session)
    else:
        stream = session.adopt(THEIRS)
    if state == State.LOCAL_OPEN:
        session.receive(frame(Type.EOF, THEIRS), 0.0)
    elif state == State.REMOTE_OPEN:
        stream.end()
    elif state == State.CLOSED:
        stream.reset(Code.IDLE)
    taken(session)
    session.events()
    assert stream.state == state
    return session, stream


RECEIVED = {
    Act.RECV_ACCEPT: (Type.ACCEPT, b"{}"),
    Act.RECV_DATA: (Type.DATA, b"x"),
    Act.RECV_EOF: (Type.EOF, b""),
    Act.RECV_RESET: (Type.RESET, b"\0\x0d"),
}
SENT = {
    Act.SEND_ACCEPT: (Type.ACCEPT, lambda stream: stream.accept()),
    Act.SEND_DATA: (Type.DATA, lambda stream: stream.send(b"x")),
    Act.SEND_EOF: (Type.EOF, lambda stream: stream.end()),
    Act.SEND_RESET: (Type.RESET, lambda stream: stream.reset(Code.IDLE)),
}
ALIVE = [state for state in STATES if state not in (State.IDLE, State.CLOSED)]


def test_the_table_names_states_and_acts_that_exist() -> None:
    assert {state for state, _ in TRANSITIONS} == {*ALIVE, State.IDLE}
    assert {act for _, act in TRANSITIONS} == set(ACTS)
    assert set(TRANSITIONS.values()) == set(STATES) - {State.IDLE}


@pytest.mark.parametrize(("state", "act"), list(itertools.product(ALIVE, RECEIVED)))
def test_what_a_peer_may_send_when(state: str, act: str) -> None:
    session, stream = in_state(state)
    kind, payload = RECEIVED[act]
    events = session.receive(frame(kind, stream.id, payload), 1.0)
    if (state, act) in TRANSITIONS:
        assert stream.state == TRANSITIONS[state, act]
        assert act == Act.RECV_RESET or not any(isinstance(event, Reset) for event in events)
    else:
        # One stream's mistake; the session goes on.
        assert stream.state == State.CLOSED
        (event,) = events
        assert isinstance(event, Reset)
        assert (event.stream, event.code) == (stream, Code.PROTOCOL)
        assert frames(taken(session))[-1][:2] == (Type.RESET, stream.id)


@pytest.mark.parametrize(("state", "act"), list(itertools.product(ALIVE, SENT)))
def test_what_an_owner_may_do_when(state: str, act: str) -> None:
    session, stream = in_state(state)
    kind, do = SENT[act]
    try:
        do(stream)
    except ValueError:
        assert (state, act) not in TRANSITIONS
        assert act in (Act.SEND_ACCEPT, Act.SEND_DATA)
        assert stream.state == state
        return
    sent = [one for one, stream_id, _ in frames(taken(session)) if stream_id == stream.id]
    # EOF is said again without harm, and waits for ACCEPT.
    assert (kind in sent) == ((state, act) in TRANSITIONS)
    assert stream.state == TRANSITIONS.get((state, act), state)


@pytest.mark.parametrize(("kind", "payload"), RECEIVED.values(), ids=RECEIVED)
def test_what_comes_for_a_closed_stream_is_dropped(kind: int, payload: bytes) -> None:
    session, stream = in_state(State.CLOSED)
    assert session.receive(frame(kind, stream.id, payload), 1.0) == []
    assert not session.wants_write


@pytest.mark.parametrize("do", SENT.values(), ids=SENT)
def test_what_is_done_with_a_closed_stream_does_nothing(do: tuple[int, object]) -> None:
    session, stream = in_state(State.CLOSED)
    do[1](stream)  # type: ignore[operator]
    stream.consumed(10)
    session.notice("nobody hears this", stream)
    assert not session.wants_write
    assert stream.queued == 0


def test_end_means_end() -> None:
    _, stream = in_state(State.OPEN)
    stream.send(b"x")
    stream.end()
    with pytest.raises(ValueError, match="cannot send"):
        stream.send(b"y")


def test_eof_follows_all_data() -> None:
    session, stream = in_state(State.OPEN)
    for _ in range(3):
        stream.send(b"x" * 30_000)
    stream.end()
    stream.end()
    assert stream.state == State.OPEN
    session.receive(frame(Type.WINDOW, stream.id, (1 << 20).to_bytes(4, "big")), 0.0)
    kinds = [kind for kind, _, _ in frames(taken(session, 200_000))]
    assert kinds == [Type.DATA, Type.DATA, Type.EOF]
    assert stream.state == State.REMOTE_OPEN


def test_an_empty_chunk_is_no_frame() -> None:
    session, stream = in_state(State.OPEN)
    stream.send(b"")
    assert not session.wants_write


def test_an_end_before_the_answer_is_said_after_it() -> None:
    session, stream = in_state(State.OPENING)
    stream.end()
    assert not session.wants_write
    events = session.receive(frame(Type.ACCEPT, stream.id, {"peer": "x"}), 0.0)
    assert [type(event) for event in events] == [Accepted]
    assert frames(taken(session)) == [(Type.EOF, stream.id, b"")]


def test_early_data_goes_before_the_answer_and_eof_after() -> None:
    session, stream = in_state(State.OPENING)
    stream.send(b"hello")
    stream.end()
    assert frames(taken(session)) == [(Type.DATA, stream.id, b"hello")]
    session.receive(frame(Type.ACCEPT, stream.id, {}), 0.0)
    assert frames(taken(session)) == [(Type.EOF, stream.id, b"")]


def test_an_offered_stream_that_was_ended_ends_once_it_is_accepted() -> None:
    session, stream = in_state(State.OFFERED)
    stream.end()
    assert not session.wants_write
    stream.accept({"peer": "x"})
    kinds = [kind for kind, _, _ in frames(taken(session))]
    assert kinds == [Type.ACCEPT, Type.EOF, Type.WINDOW]


def test_early_data_is_bounded_by_the_first_window() -> None:
    session, stream = in_state(State.OFFERED)
    events = session.receive(frame(Type.DATA, stream.id, b"x" * 65_535), 0.0)
    events += session.receive(frame(Type.DATA, stream.id, b"x"), 0.0)
    assert [type(event) for event in events] == [Data, Data]
    (event,) = session.receive(frame(Type.DATA, stream.id, b"x"), 0.0)
    assert isinstance(event, Reset)
    assert event.code == Code.FLOW


def test_more_than_the_window_allows_ends_the_stream_alone() -> None:
    session, stream = in_state(State.OPEN)
    other = session.open({})
    chunk = frame(Type.DATA, stream.id, b"x" * 65_535)
    events: list[Event] = []
    for _ in range(5):
        events += session.receive(chunk, 0.0)
    assert [type(event) for event in events] == [Data] * 4 + [Reset]
    assert isinstance(events[-1], Reset)
    assert events[-1].code == Code.FLOW
    sent = frames(taken(session))
    assert (Type.RESET, stream.id, b"\0\x11more DATA than the window allowed") in sent
    assert other.state == State.OPENING


@pytest.mark.parametrize("times", [1, 1024])
def test_more_credit_than_a_session_has_is_refused(times: int) -> None:
    session, stream = in_state(State.OPEN)
    credit = MAX_CREDIT if times == 1 else 65_536
    events = session.receive(frame(Type.WINDOW, stream.id, credit.to_bytes(4, "big")) * times, 0.0)
    (event,) = events
    assert isinstance(event, Reset)
    assert (event.code, stream.state) == (Code.FLOW, State.CLOSED)


def test_as_much_credit_as_a_session_has_is_fine() -> None:
    session, stream = in_state(State.OPEN)
    credit = MAX_CREDIT - stream.credit
    assert session.receive(frame(Type.WINDOW, stream.id, credit.to_bytes(4, "big")), 0.0) == []
    assert stream.credit == MAX_CREDIT


def test_a_reset_drops_what_was_queued() -> None:
    session, stream = in_state(State.OPEN)
    stream.send(b"x" * 100_000)
    stream.reset(Code.REVOKED, "access was\nwithdrawn")
    assert (stream.queued, session.queued) == (0, 0)
    assert frames(taken(session)) == [(Type.RESET, stream.id, b"\0\x0aaccess was withdrawn")]


def test_a_reset_takes_back_credit_that_was_not_granted_yet() -> None:
    session, stream = in_state(State.OPEN)
    session.receive(frame(Type.DATA, stream.id, b"x" * 65_535) * 3, 0.0)
    stream.consumed(3 * 65_535)
    stream.reset(Code.IDLE)
    assert [kind for kind, _, _ in frames(taken(session))] == [Type.RESET]


def test_a_reset_says_why() -> None:
    session, stream = in_state(State.OPEN)
    payload = b"\0\x06" + "10.0.3.7:22: \x1b[31mrefused\xff".encode("latin-1")
    (event,) = session.receive(frame(Type.RESET, stream.id, payload), 0.0)
    assert isinstance(event, Reset)
    # What is no UTF-8 is shown as such; what would speak to a terminal is gone.
    assert (event.code, event.reason) == (6, "10.0.3.7:22: [31mrefused\ufffd")


def test_a_code_of_a_newer_version_is_passed_on() -> None:
    session, stream = in_state(State.OPEN)
    (event,) = session.receive(frame(Type.RESET, stream.id, b"\x12\x34"), 0.0)
    assert isinstance(event, Reset)
    assert (event.code, event.reason) == (0x1234, "")


def test_a_reason_is_cut_where_the_peer_would_refuse_it() -> None:
    session, stream = in_state(State.OPEN)
    stream.reset(Code.INTERNAL, "ä" * 1000)
    ((_, _, payload),) = frames(taken(session))
    assert payload == b"\0\x12" + "ä".encode() * 256


def test_both_ends_make_a_stream_well_over() -> None:
    session, stream = in_state(State.OPEN)
    stream.send(b"bye")
    stream.end()
    assert [type(event) for event in session.receive(frame(Type.EOF, stream.id), 0.0)] == [Ended]
    taken(session)
    (event,) = session.events()
    assert isinstance(event, Closed)
    assert event.stream is stream
    assert session.streams == {}


def test_the_peers_end_last() -> None:
    session, stream = in_state(State.REMOTE_OPEN)
    events = session.receive(frame(Type.EOF, stream.id), 0.0)
    assert [type(event) for event in events] == [Ended, Closed]


def test_a_stream_that_sends_still_gets_data_after_our_end() -> None:
    session, stream = in_state(State.REMOTE_OPEN)
    (event,) = session.receive(frame(Type.DATA, stream.id, b"late"), 0.0)
    assert isinstance(event, Data)
    stream.consumed(4)


def test_credit_is_not_granted_to_a_peer_that_ended() -> None:
    session, stream = in_state(State.OPEN)
    session.receive(frame(Type.DATA, stream.id, b"x" * 65_535) * 3 + frame(Type.EOF, stream.id), 0)
    stream.consumed(3 * 65_535)
    assert not session.wants_write


def test_a_full_queue_says_so_and_says_when_it_is_not() -> None:
    session, stream = in_state(State.OPEN)
    session.receive(frame(Type.WINDOW, stream.id, (1 << 20).to_bytes(4, "big")), 0.0)
    stream.send(b"x" * 131_072)
    assert stream.full
    taken(session)
    assert session.events() == []
    taken(session, 70_000)
    (event,) = session.events()
    assert isinstance(event, Drained)
    assert not stream.full


def test_a_notice_about_a_stream_reaches_its_owner() -> None:
    session, stream = in_state(State.OPEN)
    (event,) = session.receive(frame(Type.NOTICE, stream.id, b"ends at 17:00\x07"), 0.0)
    assert isinstance(event, Notice)
    assert (event.stream, event.text) == (stream, "ends at 17:00")


def test_an_accept_says_what_the_owner_says() -> None:
    session, stream = in_state(State.OFFERED)
    stream.accept({"peer": "10.0.0.5:22"})
    assert frames(taken(session))[0] == (Type.ACCEPT, stream.id, b'{"peer":"10.0.0.5:22"}')


def test_a_stream_has_a_place_for_its_owner_and_shows_itself() -> None:
    _, stream = in_state(State.OPEN)
    stream.context = "relay"
    stream.sink_paused = True
    assert stream.sink_paused
    assert repr(stream) == "<Stream 1 open queued=0 credit=65536>"
