from __future__ import annotations

import pytest

from heim_wire.errors import WireError
from heim_wire.events import Dead
from heim_wire.frames import Type, plain_frame
from heim_wire.outbox import Outbox
from heim_wire.scheduler import SendQueue
from tests.unit.wire.pairs import frames


def take(outbox: Outbox, limit: int = 65_536) -> list[tuple[int, int, bytes]]:
    parts, size = outbox.take(limit)
    data = b"".join(parts)
    assert len(data) == size <= limit
    return frames(data)


def notice(stream: int, size: int = 3) -> bytes:
    return plain_frame(Type.NOTICE, stream, b"n" * size)


def test_an_empty_outbox_has_nothing_to_say() -> None:
    outbox = Outbox()
    assert not outbox.wants_write
    assert outbox.take(65_536) == ([], 0)


def test_control_overtakes_data_and_stays_in_order() -> None:
    outbox = Outbox()
    outbox.scheduler.push(SendQueue(1, 100), b"data")
    outbox.grant(3, 65_536)
    outbox.control(notice(1))
    outbox.control(notice(2))
    assert outbox.wants_write
    kinds = [(kind, stream) for kind, stream, _ in take(outbox)]
    assert kinds == [(Type.NOTICE, 1), (Type.NOTICE, 2), (Type.WINDOW, 3), (Type.DATA, 1)]
    assert not outbox.wants_write


def test_grants_that_wait_become_one() -> None:
    outbox = Outbox()
    for _ in range(10):
        outbox.grant(1, 1000)
    outbox.grant(3, 7)
    outbox.ungrant(3)
    outbox.ungrant(3)
    assert take(outbox) == [(Type.WINDOW, 1, (10_000).to_bytes(4, "big"))]


def test_data_does_not_overtake_control_that_did_not_fit() -> None:
    """An OPEN that is left behind must not be overtaken by the stream's DATA, nor its WINDOW."""
    outbox = Outbox()
    outbox.control(notice(1))
    outbox.control(notice(1, 1000))
    outbox.grant(1, 65_536)
    outbox.scheduler.push(SendQueue(1, 100), b"data")
    assert [kind for kind, _, _ in take(outbox, 500)] == [Type.NOTICE]
    assert take(outbox, 500) == []
    assert outbox.wants_write
    kinds = [kind for kind, _, _ in take(outbox, 2000)]
    assert kinds == [Type.NOTICE, Type.WINDOW, Type.DATA]


@pytest.mark.parametrize("limit", [11, 12, 23, 24])
def test_grants_are_whole_or_wait(limit: int) -> None:
    outbox = Outbox()
    outbox.grant(1, 1)
    outbox.grant(3, 1)
    assert len(take(outbox, limit)) == limit // 12
    assert len(take(outbox)) == 2 - limit // 12


def test_what_a_take_brought_about_is_told_once() -> None:
    outbox = Outbox()
    event = Dead("x")
    outbox.happened.append(event)
    assert outbox.events() == [event]
    assert outbox.events() == []


def test_a_peer_that_reads_nothing_cannot_make_us_answer_without_end() -> None:
    outbox = Outbox()
    for _ in range(3_800):
        outbox.control(notice(1, 1024))
    outbox.check()
    for _ in range(300):
        outbox.control(notice(1, 1024))
    with pytest.raises(WireError, match="does not read"):
        outbox.check()
    take(outbox, 1 << 23)
    outbox.check()


def test_answers_to_every_stream_there_can_be_are_allowed() -> None:
    outbox = Outbox()
    for stream in range(1000):
        outbox.control(plain_frame(Type.ACCEPT, stream + 1, b" " * 4096))
    outbox.check()


def test_a_cleared_outbox_is_empty() -> None:
    outbox = Outbox()
    outbox.control(notice(1))
    outbox.grant(1, 1)
    outbox.happened.append(Dead("x"))
    outbox.clear()
    assert (outbox.wants_write, outbox.events(), outbox.take(100)) == (False, [], ([], 0))
