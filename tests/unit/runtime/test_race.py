from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from heim_runtime import race
from heim_runtime.complaints import NO_HOST, Complaint

Address = tuple[int, tuple[str, int]]


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


@pytest.fixture
def live() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield socket.AF_INET, listener.getsockname()


@pytest.fixture
def refusing() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.AF_INET, listener.getsockname()


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that drops what knocks: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        with socket.create_connection(where):
            yield socket.AF_INET, where


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("a.b.LOCALHOST.", True), ("localhost.example", False), ("x", False)],
)
def test_names_below_localhost_are_loopback(host: str, loopback: bool) -> None:
    assert race.is_loopback_name(host) is loopback
    if loopback:
        found = race.resolve(host, 443, soon())
        assert found == [
            (socket.AF_INET, ("127.0.0.1", 443)),
            (socket.AF_INET6, ("::1", 443, 0, 0)),
        ]


@pytest.mark.parametrize(
    ("host", "family"), [("10.0.0.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)]
)
def test_an_address_is_not_looked_up(host: str, family: int) -> None:
    [(found, where)] = race.resolve(host, 443, soon(0))
    assert (found, where[:2]) == (family, (host, 443))


def test_a_name_that_does_not_exist_is_told() -> None:
    with pytest.raises(Complaint, match=r"cannot resolve heim\.invalid: ") as caught:
        race.resolve("heim.invalid", 443, soon())
    assert caught.value.status == NO_HOST


def test_a_resolver_that_hangs_is_left_at_the_deadline() -> None:
    with pytest.raises(Complaint, match="no answer from DNS for"):
        race.resolve("heim.invalid", 443, time.monotonic() - 1)


def test_the_first_that_answers_is_taken(live: Address) -> None:
    with race.connect([live], "h:443", soon()) as sock:
        assert sock.getpeername() == live[1]


def test_one_that_refuses_gives_way_at_once(live: Address, refusing: Address) -> None:
    begin = time.monotonic()
    with race.connect([refusing, live], "h:443", soon()) as sock:
        assert sock.getpeername() == live[1]
    assert time.monotonic() - begin < race.STAGGER_S


def test_56_one_that_is_dead_holds_up_by_the_stagger_only(live: Address, silent: Address) -> None:
    begin = time.monotonic()
    with race.connect([silent, live], "h:443", soon()) as sock:
        assert sock.getpeername() == live[1]
    assert race.STAGGER_S <= time.monotonic() - begin < 2


def test_when_none_answers_each_is_named(refusing: Address, silent: Address) -> None:
    with pytest.raises(Complaint) as caught:
        race.connect([refusing, silent], "h:443", soon(0.4))
    assert caught.value.text == (
        "cannot connect to h:443 (127.0.0.1: connection refused; 127.0.0.1: no answer)"
    )


def test_a_family_that_this_machine_lacks_is_passed_over(live: Address) -> None:
    unreachable = (socket.AF_INET6, ("2001:db8::1", 1, 0, 0))
    with race.connect([unreachable, live], "h:443", soon()) as sock:
        assert sock.getpeername() == live[1]
