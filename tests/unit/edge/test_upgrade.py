from __future__ import annotations

import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

from heim_proxy.edge.upgrade import FrameBorders, close_frame
from tests.fakes.thorough import examples


def frame(payload: bytes, *, mask: bool, opcode: Opcode = Opcode.BINARY, fin: bool = True) -> bytes:
    """A frame as the websockets library writes it."""
    return Frame(opcode, payload, fin=fin).serialize(mask=mask)


def read(data: bytes, *, mask: bool) -> Frame:
    """A frame as the websockets library reads it; nothing may be left over."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    steps = Frame.parse(reader.read_exact, mask=mask)
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        found: Frame = stop.value
    assert not reader.buffer
    return found


SIZES = [0, 1, 2, 125, 126, 127, 200, 65535, 65536]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mask", [True, False], ids=["masked", "bare"])
def test_a_border_is_where_a_frame_ends_wherever_it_is_split(size: int, mask: bool) -> None:
    data = frame(bytes(size), mask=mask)
    cuts = range(len(data)) if len(data) < 300 else [*range(20), len(data) - 1]
    for cut in cuts:
        borders = FrameBorders()
        assert borders.feed(data[:cut]) == -1
        assert borders.at_border is (cut == 0)
        assert borders.feed(data[cut:]) == len(data) - cut
        assert borders.at_border


def test_the_last_border_in_what_was_fed_is_told() -> None:
    one, two = frame(b"x" * 10, mask=False), frame(b"y" * 300, mask=False)
    borders = FrameBorders()
    assert borders.feed(one + one + two[:50]) == 2 * len(one)
    assert not borders.at_border
    assert borders.feed(two[50:] + one[:1]) == len(two) - 50
    assert not borders.at_border
    assert borders.feed(one[1:]) == len(one) - 1
    assert borders.at_border


def test_nothing_is_between_frames_and_moves_nothing() -> None:
    borders = FrameBorders()
    assert borders.feed(b"") == -1
    assert borders.at_border


def test_control_frames_and_fragments_are_frames_too() -> None:
    stream = (
        frame(b"a", mask=True, opcode=Opcode.TEXT, fin=False)
        + frame(b"", mask=True, opcode=Opcode.PING)
        + frame(b"b", mask=True, opcode=Opcode.CONT)
        + frame(Close(1000, "").serialize(), mask=True, opcode=Opcode.CLOSE)
    )
    borders = FrameBorders()
    assert borders.feed(stream) == len(stream)
    assert borders.at_border


def test_a_frame_of_any_length_needs_no_memory() -> None:
    borders = FrameBorders()
    assert borders.feed(b"\x82\x7f" + (2**62).to_bytes(8, "big")) == -1
    for _ in range(100):
        assert borders.feed(bytes(65536)) == -1
    assert len(borders._header) <= 14


@settings(
    phases=(Phase.explicit, Phase.generate, Phase.shrink), deadline=None, max_examples=examples(300)
)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 5, 125, 126, 400, 70_000]), st.booleans()), max_size=5
    ),
    st.integers(0, 2**32),
)
def test_borders_are_those_of_the_websockets_library(
    frames: list[tuple[int, bool]], seed: int
) -> None:
    choose = random.Random(seed)
    written = [frame(bytes(size), mask=mask) for size, mask in frames]
    stream = b"".join(written)
    ends = {sum(map(len, written[: index + 1])) for index in range(len(written))}
    borders = FrameBorders()
    position = 0
    while position < len(stream):
        step = choose.choice([1, 2, 3, 7, 14, 100, 40_000])
        piece = stream[position : position + step]
        inside = [end - position for end in ends if position < end <= position + len(piece)]
        assert borders.feed(piece) == max(inside, default=-1)
        position += len(piece)
        assert borders.at_border is (position in ends)


@pytest.mark.parametrize("mask", [True, False], ids=["masked", "bare"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [(1001, ""), (4401, "heim: session revoked"), (1000, "x" * 500), (1001, "für heute Schluß")],
)
def test_a_close_frame_is_read_by_others(code: int, reason: str, mask: bool) -> None:
    data = close_frame(code, reason, masked=mask)
    found = read(data, mask=mask)
    assert (found.opcode, found.fin) == (Opcode.CLOSE, True)
    assert Close.parse(found.data) == Close(code, reason[:123])


def test_a_reason_is_never_cut_inside_a_character() -> None:
    data = close_frame(1001, "ä" * 100, masked=False)
    found = Close.parse(read(data, mask=False).data)
    assert found.reason == "ä" * 61


def test_masks_are_fresh() -> None:
    assert len({close_frame(1001, "bye", masked=True) for _ in range(20)}) == 20
