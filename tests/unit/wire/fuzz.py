"""What fuzzing needs: hostile frames, and a session that is fed them by a careless owner."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from heim_wire.errors import Code, WireError
from heim_wire.events import Data, Event, Opened
from heim_wire.frames import HEAD, MAX_FRAME
from heim_wire.session import Session
from heim_wire.stream import State
from tests.unit.wire.pairs import HELLO

__all__ = ["CORPUS", "fed", "hostile"]

CORPUS = Path(__file__).parent / "corpus"

_payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([
        b"{}", b'{"v":[1]}', b'{"v":[1],"max_streams":-1}', b'{"a":[[[[[]]]]]}', b"[", b"\0\1",
        b"\0\0\0\0", b"\0\1\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"12345678",
        b"\0" * 14, b"x" * 514, b"y" * 4096, b"z" * 20_000,
    ]),
)  # fmt: skip


@st.composite
def _frames(draw: st.DrawFn) -> bytes:
    payload = draw(_payloads)
    kind = draw(st.integers(0, 17) | st.integers(0, 255))
    flags = draw(st.sampled_from([0, 0, 0, 1, 254]))
    # Nearly always the right length; sometimes one that lies.
    length = draw(st.sampled_from([len(payload)] * 9 + [0, 1, 4096, 4097, 65_535]))
    stream = draw(st.integers(0, 6) | st.sampled_from([0x7FFF_FFFF, 0xFFFF_FFFF]))
    return HEAD.pack(kind, flags, length, stream) + payload


hostile = st.lists(st.one_of(_frames(), _frames(), st.binary(max_size=30)), max_size=25).map(
    b"".join
)


def fed(data: bytes, *, greeted: bool, size: int = 1 << 20) -> list[Event]:
    """Feed `data` to an acceptor with stream 1 open, `size` bytes at a time; nothing may go wrong.

    Whatever the peer sends: no exception but WireError, memory that is bounded by what the windows
    allow, and a session that can be closed afterwards.
    """
    session = Session(initiator=False, now=0.0, entropy=bytes)
    session.adopt(1).send(b"x" * 100)
    if greeted:
        session.receive(HELLO, 0.0)
    found: list[Event] = []
    try:
        for at in range(0, len(data), size):
            found += session.receive(data[at : at + size], 1.0 + at / 1e6)
            _react(session, found)
            assert len(session._inbox._reader._kept) <= MAX_FRAME
            session.take(10_000)
            found += session.events()
    except WireError:
        found += session.events()
    received = sum(len(event.payload) for event in found if isinstance(event, Data))
    assert received <= len(data)
    for _ in range(200):
        if not session.take(65_536)[1]:
            break
    session.close(Code.INTERNAL, "the end")
    assert session._streams.purse.used == 0
    assert session.queued == 0
    assert session.streams == {}
    return found


def _react(session: Session, events: list[Event]) -> None:
    """What an owner does: answers, echoes, ends; no matter what state things are in."""
    for event in events[-50:]:
        if isinstance(event, Opened) and event.stream.state == State.OFFERED:
            if event.stream.id % 3:
                event.stream.accept({})
            else:
                event.stream.reset(Code.FORBIDDEN)
        elif isinstance(event, Data) and event.stream.context is None:
            if event.stream.queued > 50_000:
                event.stream.context = "ended"
                event.stream.end()
            elif event.stream.state == State.OPEN:
                event.stream.send(event.payload)
    assert len(session.streams) <= 1025
