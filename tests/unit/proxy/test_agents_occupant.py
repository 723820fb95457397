from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from heim_proxy.agents.occupant import ChannelOccupant
from heim_wire.errors import Code


class Carriage:
    """A channel that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *more: self.told.append((name, *more))


class Guest(ChannelOccupant):
    ends = 0

    def timed_out(self, kind: str) -> None:
        raise NotImplementedError

    def event(self, channel: Any, event: Any) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        self.ends += 1


@pytest.fixture
def guest() -> Guest:
    done: list[Any] = []
    front: Any = SimpleNamespace(
        client=SimpleNamespace(address="192.0.2.1"), keep_alive=True, exchange_done=done.append,
        done=done,
    )  # fmt: skip
    guest = Guest(SimpleNamespace(), front)  # type: ignore[arg-type]
    guest.channel = Carriage()  # type: ignore[assignment]
    return guest


def test_what_the_edge_says_reaches_the_channel(guest: Guest) -> None:
    assert guest.client_data(b"bytes") == b""
    guest.hold_upstream()
    guest.release_upstream()
    guest.client_gone()
    assert guest.channel.told == [  # type: ignore[attr-defined]
        ("feed", b"bytes"), ("pause_writing",), ("resume_writing",), ("connection_lost", None),
    ]  # fmt: skip
    assert guest.request_done
    assert guest.upgraded
    assert guest.address == "192.0.2.1"


@pytest.mark.parametrize(
    ("code", "word"), [(0, "left"), (Code.AGENT_LOST, "agent_lost"), (999, "left")]
)
def test_the_end_has_a_word(guest: Guest, code: int, word: str) -> None:
    guest.closed(guest.channel, code, "")
    assert guest.end_reason == word
    assert guest._front.done == [guest]  # type: ignore[attr-defined]
    assert not guest._front.keep_alive


def test_it_ends_once_and_by_our_reason_if_we_had_one(guest: Guest) -> None:
    guest.end_reason = "revoked"
    guest.closed(guest.channel, Code.REVOKED, "")
    guest.closed(guest.channel, Code.AGENT_LOST, "")
    assert (guest.ends, guest.end_reason, guest.over) == (1, "revoked", True)


def test_who_gave_the_connection_away_hears_no_more(guest: Guest) -> None:
    guest.over = True
    guest.closed(guest.channel, 0, "")
    assert guest.ends == 0
    assert guest._front.done == []  # type: ignore[attr-defined]
