from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from heim_runtime.service_manager import ServiceManager, reporting
from heim_runtime.tasks import running


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(2)
        yield sock


def told(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


def test_it_is_told_what_happens(listener: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname()})
    assert manager.notify("READY=1", "STATUS=connected")
    assert told(listener) == ["READY=1", "STATUS=connected"]


def test_a_text_from_elsewhere_cannot_add_a_line(listener: socket.socket) -> None:
    ServiceManager({"NOTIFY_SOCKET": listener.getsockname()}).notify("STATUS=a\nREADY=1")
    assert told(listener) == ["STATUS=a READY=1"]


def test_an_abstract_name_has_an_at() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"heim-test-{os.getpid()}"
        sock.bind(f"\0{name}")
        sock.settimeout(2)
        assert ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).notify("READY=1")
        assert told(sock) == ["READY=1"]


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/nowhere/at/all"])
def test_without_one_nothing_happens(address: str) -> None:
    assert not ServiceManager({"NOTIFY_SOCKET": address}).notify("READY=1")
    assert not ServiceManager({}).notify("READY=1")


def test_one_that_does_not_read_stops_nobody(listener: socket.socket) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname()})
    while manager.notify("WATCHDOG=1"):
        pass
    assert not manager.notify("WATCHDOG=1")


@pytest.mark.parametrize(
    ("environ", "every"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
    ids=["any", "ours", "another's", "none", "nonsense", "no manager"],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_bites(
    environ: dict[str, str], every: float | None
) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/x", **environ}).watchdog_s == every
    assert ServiceManager(environ).watchdog_s is None


async def test_who_is_started_by_a_manager_reports_until_it_ends(
    listener: socket.socket,
) -> None:
    condition = ["serving"]
    manager = ServiceManager({"NOTIFY_SOCKET": listener.getsockname(), "WATCHDOG_USEC": "100000"})
    async with reporting(manager, lambda: condition[-1]):
        assert told(listener) == ["READY=1", "STATUS=serving"]
        condition.append("the latest was refused")
        assert await asyncio.to_thread(told, listener) == [
            "WATCHDOG=1",
            "STATUS=the latest was refused",
        ]
    last = [told(listener)]
    while last[-1] != ["STOPPING=1"]:
        last.append(told(listener))
    assert all(line == ["WATCHDOG=1", f"STATUS={condition[-1]}"] for line in last[:-1])


async def test_without_a_manager_nothing_runs_beside_the_service() -> None:
    before = running()
    async with reporting(ServiceManager({}), lambda: "serving"):
        assert running() == before
