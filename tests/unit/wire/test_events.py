from __future__ import annotations

import pytest

from heim_wire.events import (
    Accepted,
    Auth,
    Closed,
    Data,
    Dead,
    Drained,
    Ended,
    Event,
    GoAway,
    Hello,
    Notice,
    Opened,
    Ready,
    Reset,
)
from tests.unit.wire.pairs import greeted

STREAM = greeted().adopt(1)
SECRET = {"kind": "bearer", "token": "secret"}
EVENTS = [
    Hello(SECRET),
    Auth(SECRET),
    Ready(SECRET),
    Opened(STREAM, SECRET),
    Accepted(STREAM, SECRET),
    Data(STREAM, b"secret"),
    Data(STREAM, memoryview(b"secret")),
    Ended(STREAM),
    Closed(STREAM),
    Reset(STREAM, 6, "connection refused"),
    Drained(STREAM),
    Notice(None, "a restart at 17:00"),
    GoAway(12, reconnect_in=1.5, try_for=30.0, drain=300.0, reason="restart"),
    Dead("nothing was received for 25 s"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_shows_itself_without_what_it_carries(event: Event) -> None:
    shown = repr(event)
    assert shown.startswith(f"<{type(event).__name__} ")
    assert "secret" not in shown


def test_what_is_no_secret_is_shown() -> None:
    assert repr(Data(STREAM, b"12345")).startswith("<Data payload=[5] stream=<Stream 1 open")
    assert repr(Dead("silence")) == "<Dead reason='silence'>"


def test_an_event_has_no_room_for_more() -> None:
    with pytest.raises(AttributeError):
        Dead("silence").stream = STREAM  # type: ignore[attr-defined]
