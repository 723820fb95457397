from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heim_wire.errors import Code, WireError
from heim_wire.frames import (
    CRITICAL,
    HEAD,
    HEAD_BYTES,
    KINDS,
    MAX_DATA,
    MAX_FRAME,
    MAX_PAYLOAD,
    FrameReader,
    Scope,
    Type,
    goaway_frame,
    goaway_payload,
    plain_frame,
    reset_frame,
    reset_payload,
    window_frame,
)
from tests.unit.wire.pairs import frame

Found = list[tuple[int, int, bytes]]


class Reading:
    """A reader and what it found; DATA pieces of one stream in a row are joined."""

    def __init__(self) -> None:
        self.reader = FrameReader()
        self.found: Found = []
        self.pieces: list[bytes | memoryview] = []
        self._open = False

    def on_data(self, stream: int, payload: bytes | memoryview) -> None:
        assert payload
        self.pieces.append(payload)
        if self._open:
            kind, same, before = self.found.pop()
            assert (kind, same) == (Type.DATA, stream)
            self.found.append((kind, stream, before + bytes(payload)))
        else:
            self.found.append((Type.DATA, stream, bytes(payload)))
        self._open = self.reader.left > 0

    def on_frame(self, kind: int, stream: int, payload: bytes) -> None:
        assert type(payload) is bytes
        self.found.append((kind, stream, payload))

    def feed(self, *pieces: bytes | memoryview) -> Reading:
        for piece in pieces:
            self.reader.feed(piece, self.on_data, self.on_frame)
        return self


def kept(reader: FrameReader) -> int:
    return len(reader._kept)


WELL_FORMED = [
    (Type.HELLO, 0, b'{"v":[1]}'), (Type.OPEN, 3, b"{}"), (Type.DATA, 1, b"x"), (Type.DATA, 1, b""),
    (Type.DATA, 7, b"y" * MAX_DATA), (Type.EOF, 1, b""), (Type.RESET, 1, b"\0\6refused"),
    (Type.WINDOW, 1, b"\0\1\0\0"), (Type.PING, 0, b"12345678"), (Type.NOTICE, 0, b"hello"),
    (Type.NOTICE, 0xFFFF_FFFF, b""), (Type.READY, 0, b" " * MAX_PAYLOAD),
    (Type.RESET, 1, b"\0\6" + b"r" * 512), (Type.GOAWAY, 0, b"\0" * 14 + b"r" * 512),
]  # fmt: skip


def test_frames_come_out_as_they_went_in() -> None:
    data = b"".join(frame(kind, stream, payload) for kind, stream, payload in WELL_FORMED)
    assert Reading().feed(data).found == WELL_FORMED
    assert Reading().feed(memoryview(data)).found == WELL_FORMED


def test_one_byte_at_a_time_is_the_same() -> None:
    small = [one for one in WELL_FORMED if len(one[2]) < 1000]
    data = b"".join(frame(kind, stream, payload) for kind, stream, payload in small)
    assert Reading().feed(*(data[index : index + 1] for index in range(len(data)))).found == small


known = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.tuples(
        st.just(kind),
        st.just(0) if KINDS[kind].scope is Scope.SESSION else st.integers(1, 9),
        st.binary(min_size=KINDS[kind].smallest, max_size=min(KINDS[kind].largest, 60)),
        st.integers(0, 255),
    )
)
unknown = st.tuples(st.integers(13, 255), st.integers(0, 9), st.binary(max_size=60), st.just(2))
sizes = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@given(st.lists(known | unknown, max_size=12), sizes)
@settings(deadline=None)
def test_pieces_of_any_size_are_the_same(
    sent: list[tuple[int, int, bytes, int]], cuts: list[int]
) -> None:
    data = b"".join(frame(*one) for one in sent)
    pieces, at = [], 0
    while at < len(data):
        cut = cuts[len(pieces) % len(cuts)]
        pieces.append(memoryview(data)[at : at + cut])
        at += cut
    whole, cut_up = Reading().feed(data), Reading().feed(*pieces)
    assert cut_up.found == whole.found
    assert [kind for kind, _, _ in whole.found] == [one[0] for one in sent]


def test_data_is_passed_on_before_its_frame_is_complete() -> None:
    reading = Reading().feed(frame(Type.DATA, 1, b"x" * 60_000)[:1000])
    assert reading.found == [(Type.DATA, 1, b"x" * 992)]
    assert reading.reader.left == 59_008
    assert kept(reading.reader) == 0


def test_a_large_piece_is_a_view_and_a_small_one_a_copy() -> None:
    data = frame(Type.DATA, 1, b"x" * 9_000) + frame(Type.DATA, 3, b"y" * 100)
    large, small = Reading().feed(data).pieces
    assert isinstance(large, memoryview)
    assert large.obj is data
    # A view of it would keep all of `data` alive for as long as 100 bytes wait somewhere.
    assert type(small) is bytes


def test_what_is_all_data_is_passed_on_as_it_is() -> None:
    reading = Reading().feed(frame(Type.DATA, 1, b"x" * 1000)[:8])
    data = b"x" * 1000
    assert reading.feed(data).pieces[0] is data


BAD_HEADS = [
    pytest.param(HEAD.pack(kind, 0, length, stream), id=name)
    for name, kind, length, stream in [
        ("hello for a stream", Type.HELLO, 9, 1),
        ("hello without a message", Type.HELLO, 0, 0),
        ("hello too long", Type.HELLO, 4097, 0),
        ("auth for a stream", Type.AUTH, 9, 1),
        ("auth too long", Type.AUTH, 4097, 0),
        ("ready for a stream", Type.READY, 9, 1),
        ("open for the session", Type.OPEN, 2, 0),
        ("open without a message", Type.OPEN, 1, 1),
        ("open too long", Type.OPEN, 4097, 1),
        ("accept for the session", Type.ACCEPT, 2, 0),
        ("accept too long", Type.ACCEPT, 65_535, 1),
        ("data for the session", Type.DATA, 1, 0),
        ("empty data for the session", Type.DATA, 0, 0),
        ("eof with a payload", Type.EOF, 1, 1),
        ("eof for the session", Type.EOF, 0, 0),
        ("reset without a code", Type.RESET, 1, 1),
        ("reset with an endless reason", Type.RESET, 515, 1),
        ("reset for the session", Type.RESET, 2, 0),
        ("window too short", Type.WINDOW, 3, 1),
        ("window too long", Type.WINDOW, 5, 1),
        ("window for the session", Type.WINDOW, 4, 0),
        ("ping too short", Type.PING, 7, 0),
        ("ping too long", Type.PING, 9, 0),
        ("ping for a stream", Type.PING, 8, 1),
        ("pong too long", Type.PONG, 4096, 0),
        ("pong for a stream", Type.PONG, 8, 1),
        ("goaway too short", Type.GOAWAY, 13, 0),
        ("goaway with an endless reason", Type.GOAWAY, 527, 0),
        ("goaway for a stream", Type.GOAWAY, 14, 1),
        ("notice too long", Type.NOTICE, 1025, 1),
        ("unknown and too long", 99, 4097, 0),
    ]
]


@pytest.mark.parametrize("head", BAD_HEADS)
@pytest.mark.parametrize("cut", [0, 1, 7])
def test_a_bad_head_is_refused_before_its_payload_comes(head: bytes, cut: int) -> None:
    with pytest.raises(WireError) as refused:
        Reading().feed(head[:cut], head[cut:])
    assert refused.value.code == Code.PROTOCOL


@pytest.mark.parametrize("kind", [13, 14, 15, 16, 200, 255])
def test_an_unknown_frame_is_skipped_unless_it_is_critical(kind: int) -> None:
    after = frame(Type.EOF, 1)
    for payload in (b"", b"grease" * 600):
        reading = Reading().feed(frame(kind, 5, payload, flags=0xFE) + after)
        assert reading.found == [(kind, 5, b""), (Type.EOF, 1, b"")]
        with pytest.raises(WireError):
            Reading().feed(frame(kind, 5, payload, flags=CRITICAL))


def test_flags_of_known_frames_mean_nothing_yet() -> None:
    assert Reading().feed(frame(Type.EOF, 1, b"", flags=0xFF)).found == [(Type.EOF, 1, b"")]


@given(st.binary(max_size=9000))
@settings(deadline=None)
def test_a_reader_never_keeps_more_than_one_small_frame(noise: bytes) -> None:
    reading = Reading()
    with contextlib.suppress(WireError):
        for at in range(0, len(noise), 100):
            reading.feed(noise[at : at + 100])
            assert kept(reading.reader) < MAX_FRAME


@pytest.mark.parametrize(
    ("kind", "size"), [(Type.AUTH, MAX_PAYLOAD), (99, MAX_PAYLOAD), (Type.DATA, MAX_DATA)]
)
def test_an_endless_frame_costs_no_more_than_it_may(kind: int, size: int) -> None:
    reading = Reading().feed(HEAD.pack(kind, 0, size, kind == Type.DATA))
    for _ in range(size - 1):
        reading.feed(b"x")
    assert kept(reading.reader) <= MAX_FRAME
    assert len(reading.found) <= 1


def test_reasons_and_codes_survive() -> None:
    sent = reset_frame(7, 19, "abgelehnt, weil …".encode())
    assert sent == b"\x07\x00" + (2 + 19).to_bytes(2, "big") + b"\0\0\0\x07\0\x13" + sent[10:]
    assert reset_payload(sent[HEAD_BYTES:]) == (19, "abgelehnt, weil …".encode())
    assert window_frame(9, 65_536) == bytes.fromhex("0800 0004 00000009 00010000")
    assert plain_frame(Type.PING, 0, b"12345678") == b"\x09\0\0\x08\0\0\0\0" + b"12345678"


def test_times_of_a_goaway_are_milliseconds() -> None:
    sent = goaway_frame(12, (1.5, 30.0, 300.0), b"restart")
    assert sent[HEAD_BYTES:] == bytes.fromhex("000c 000005dc 00007530 000493e0") + b"restart"
    assert goaway_payload(sent[HEAD_BYTES:]) == (12, (1.5, 30.0, 300.0), b"restart")


def test_times_that_cannot_be_said_are_said_as_well_as_possible() -> None:
    _, times, _ = goaway_payload(goaway_frame(12, (-1.0, 1e12, 0.0004), b"")[HEAD_BYTES:])
    assert times == (0.0, 0xFFFF_FFFF / 1000, 0.0)
