from __future__ import annotations

import pytest

from heim_wire.errors import Code, WireError
from heim_wire.events import Auth, Data, Event, GoAway, Hello, Notice, Opened, Ready
from heim_wire.frames import HEAD, MAX_DATA, Type
from heim_wire.pace import BURST
from heim_wire.session import Session
from tests.unit.wire.pairs import HELLO, frame, frames, greeted, taken

DATA = frame(Type.DATA, 1, b"x")


def fresh(*, initiator: bool = False) -> Session:
    return Session(initiator=initiator, now=0.0)


def opened() -> Session:
    """An acceptor whose stream 1 is open."""
    session = greeted()
    session.adopt(1)
    taken(session)
    return session


def feed(session: Session, pieces: list[bytes], seconds: float = 0.0) -> None:
    """Hand over pieces, so many seconds apart."""
    for index, piece in enumerate(pieces):
        session.receive(piece, 1.0 + index * seconds)


NOT_HELLO = [
    pytest.param(frame(Type.AUTH, 0, {}), id="auth"),
    pytest.param(frame(Type.READY, 0, {}), id="ready"),
    pytest.param(frame(Type.OPEN, 1, {}), id="open"),
    pytest.param(frame(Type.ACCEPT, 1, {}), id="accept"),
    pytest.param(DATA, id="data"),
    pytest.param(frame(Type.DATA, 1), id="empty data"),
    pytest.param(DATA[:9], id="a piece of data"),
    pytest.param(frame(Type.EOF, 1), id="eof"),
    pytest.param(frame(Type.RESET, 1, b"\0\1"), id="reset"),
    pytest.param(frame(Type.WINDOW, 1, b"\0\1\0\0"), id="window"),
    pytest.param(frame(Type.PING, 0, b"12345678"), id="ping"),
    pytest.param(frame(Type.PONG, 0, b"12345678"), id="pong"),
    pytest.param(frame(Type.GOAWAY, 0, b"\0" * 14), id="goaway"),
    pytest.param(frame(Type.NOTICE, 0, b"hi"), id="notice"),
    pytest.param(frame(99, 0, b"grease"), id="unknown"),
]


@pytest.mark.parametrize("adopts", [False, True])
@pytest.mark.parametrize("data", NOT_HELLO)
def test_the_first_frame_is_hello(data: bytes, adopts: bool) -> None:
    session = fresh()
    if adopts:
        session.adopt(1)
    with pytest.raises(WireError, match="first frame is not HELLO"):
        session.receive(data, 0.0)


BAD = [
    pytest.param(HELLO, id="hello twice"),
    pytest.param(frame(Type.READY, 0, {}), id="ready from the initiator"),
    pytest.param(frame(Type.AUTH, 0, b"[]"), id="auth that is no object"),
    pytest.param(frame(Type.AUTH, 0, b'{"a":1,"a":1}'), id="auth with a key twice"),
    pytest.param(frame(Type.AUTH, 0, b'{"token":"\xff"}'), id="auth that is no UTF-8"),
    pytest.param(frame(Type.OPEN, 3, b'{"hop":NaN}'), id="open with NaN"),
    pytest.param(frame(Type.OPEN, 3, b'{"a":[[[[1]]]]}'), id="open that is too deep"),
    pytest.param(frame(Type.OPEN, 2, {}), id="open of a number of ours"),
    pytest.param(frame(Type.OPEN, 1, {}), id="open of a stream that is open"),
    pytest.param(frame(Type.ACCEPT, 1, b"{,}"), id="accept that is no JSON"),
    pytest.param(frame(99, 1, b"x", flags=1), id="critical and unknown"),
    pytest.param(HEAD.pack(Type.WINDOW, 0, 3, 1) + b"\0\0\0", id="a head that cannot be"),
]


@pytest.mark.parametrize("data", BAD)
@pytest.mark.parametrize("piecewise", [False, True])
def test_what_breaks_the_protocol_ends_the_session(data: bytes, piecewise: bool) -> None:
    session = opened()
    pieces = [data[at : at + 1] for at in range(len(data))] if piecewise else [data]
    with pytest.raises(WireError) as refused:
        feed(session, pieces)
    assert refused.value.code == Code.PROTOCOL


def test_auth_from_the_acceptor_ends_the_session() -> None:
    with pytest.raises(WireError, match="AUTH from the acceptor"):
        greeted(initiator=True).receive(frame(Type.AUTH, 0, {}), 0.0)


@pytest.mark.parametrize(
    "message",
    [{}, {"v": []}, {"v": [2, 3]}, {"v": 1}, {"v": "1"}, {"v": {"1": 1}}, {"v": None}],
    ids=str,
)
def test_without_a_common_version_there_is_no_session(message: dict[str, object]) -> None:
    with pytest.raises(WireError, match="no common version"):
        fresh().receive(frame(Type.HELLO, 0, message), 0.0)


@pytest.mark.parametrize("versions", [[1], [1, 2], [7, 1]], ids=str)
def test_one_common_version_is_enough(versions: list[int]) -> None:
    session = fresh()
    (event,) = session.receive(frame(Type.HELLO, 0, {"v": versions, "x": "new"}), 0.0)
    assert isinstance(event, Hello)
    assert event.message == session.peer == {"v": versions, "x": "new"}


@pytest.mark.parametrize("limit", ["7", True, None, 1.5, [1]], ids=str)
def test_a_limit_that_is_no_number_is_none(limit: object) -> None:
    session = fresh(initiator=True)
    session.receive(frame(Type.HELLO, 0, {"v": [1], "max_streams": limit}), 0.0)
    assert session.open({}).id == 1


def test_messages_reach_whom_they_are_for() -> None:
    acceptor, initiator = greeted(), greeted(initiator=True)
    (auth,) = acceptor.receive(frame(Type.AUTH, 0, {"kind": "bearer", "token": "t"}), 0.0)
    (ready,) = initiator.receive(frame(Type.READY, 0, {"user": "alice"}), 0.0)
    assert isinstance(auth, Auth)
    assert auth.message == {"kind": "bearer", "token": "t"}
    assert isinstance(ready, Ready)
    assert ready.message == {"user": "alice"}


def test_a_ping_is_answered_with_what_it_held() -> None:
    session = greeted()
    assert session.receive(frame(Type.PING, 0, b"abcdefgh"), 1.0) == []
    assert frames(taken(session)) == [(Type.PONG, 0, b"abcdefgh")]


def test_a_goaway_says_when_to_come_back() -> None:
    session = greeted()
    payload = bytes.fromhex("000c 000005dc 00007530 000493e0") + b"restart\x1b[2J"
    (event,) = session.receive(frame(Type.GOAWAY, 0, payload), 0.0)
    assert isinstance(event, GoAway)
    assert (event.code, event.reason) == (Code.GOING_AWAY, "restart [2J")
    assert (event.reconnect_in, event.try_for, event.drain) == (1.5, 30.0, 300.0)
    assert session.going_away


def test_a_notice_for_the_session_is_for_everybody() -> None:
    (event,) = greeted().receive(frame(Type.NOTICE, 0, b"a restart\r\nat 17:00"), 0.0)
    assert isinstance(event, Notice)
    assert (event.stream, event.text) == (None, "a restart at 17:00")


def test_grease_changes_nothing() -> None:
    """Types and flags that do not exist yet, between any two frames (RFC 8701 has the idea)."""
    session = opened()
    events: list[Event] = []
    for kind in range(13, 256):
        events += session.receive(frame(kind, kind % 3, b"grease", flags=0xFE) + DATA, 0.0)
    assert [type(event) for event in events] == [Data] * 243


def test_data_without_bytes_is_harmless() -> None:
    session = opened()
    events = session.receive(frame(Type.DATA, 1) + DATA + frame(Type.DATA, 1), 0.0)
    assert [type(event) for event in events] == [Data]


STORM = {
    "ping": frame(Type.PING, 0, b"12345678"),
    "pong": frame(Type.PONG, 0, b"12345678"),
    "notice": frame(Type.NOTICE, 0, b"hi"),
    "notice for a stream": frame(Type.NOTICE, 1, b"hi"),
    "auth": frame(Type.AUTH, 0, {}),
    "goaway": frame(Type.GOAWAY, 0, b"\0" * 14),
    "unknown": frame(77, 0, b"x"),
    "empty data": frame(Type.DATA, 1),
    "tiny windows": frame(Type.WINDOW, 1, b"\0\0\0\1"),
    "windows of nothing": frame(Type.WINDOW, 1, b"\0\0\0\0"),
}


@pytest.mark.parametrize("data", STORM.values(), ids=STORM)
def test_a_storm_ends_the_session(data: bytes) -> None:
    session = opened()
    session.receive(data * BURST, 0.0)
    with pytest.raises(WireError, match="control frames a second"):
        session.receive(data, 0.0)


@pytest.mark.parametrize("data", STORM.values(), ids=STORM)
def test_what_is_sent_at_the_allowed_pace_goes_on_for_hours(data: bytes) -> None:
    session = opened()
    for tenth in range(3000):
        session.receive(data * 10, tenth / 10)
        taken(session)


def test_streams_that_are_opened_and_given_up_at_once_are_a_storm() -> None:
    """CVE-2023-44487: each costs its sender nothing and makes us dial."""
    session = greeted()
    cycle = (
        frame(Type.OPEN, 1 + 2 * index, {}) + frame(Type.RESET, 1 + 2 * index, b"\0\1")
        for index in range(BURST + 1)
    )
    with pytest.raises(WireError, match="control frames a second"):
        session.receive(b"".join(cycle), 0.0)


def test_a_fast_link_is_no_storm() -> None:
    """10 Gbit/s with windows of 64 KiB: 20,000 WINDOW frames a second, all of them needed."""
    session = opened()
    stream = session.streams[1]
    window = frame(Type.WINDOW, 1, (65_536).to_bytes(4, "big"))
    for index in range(20_000):
        stream.send(b"x" * 65_536)
        taken(session, 2 * MAX_DATA)
        session.receive(window, index / 20_000)
    assert stream.credit > 0


def test_streams_that_come_and_go_are_no_storm() -> None:
    session = greeted()
    for index in range(3 * BURST):
        number = 1 + 2 * index
        (event,) = session.receive(frame(Type.OPEN, number, {}), index / 5000)
        assert isinstance(event, Opened)
        event.stream.accept()
        event.stream.end()
        both = frame(Type.DATA, number, b"x") + frame(Type.EOF, number)
        session.receive(both, index / 5000)
        taken(session)
        # Its WINDOW crossed our EOF.
        session.receive(frame(Type.WINDOW, number, b"\0\3\0\0"), index / 5000)
    assert session.streams == {}


def test_a_peer_that_asks_and_does_not_read_is_let_go() -> None:
    session = greeted()
    cycle = b"".join(frame(Type.PING, 0, b"12345678") for _ in range(50))
    with pytest.raises(WireError, match="does not read"):
        feed(session, [cycle] * 10_000, seconds=0.5)
    parts, size = session.take(1 << 30)
    # A small object costs as much again as it holds, and more.
    assert size + len(parts) * 64 < 5 << 20
