from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from heim_proxy.observe.admin import Admin
from heim_proxy.observe.metrics import Metrics
from tests.fakes.loops import LOOPS, run_on


def admin() -> Admin:
    return Admin(Metrics(version="1"), status=lambda: {"generation": 7, "hash": "abc"})


@asynccontextmanager
async def started(
    subject: Admin, address: tuple[str, int] | Path = ("127.0.0.1", 0)
) -> AsyncIterator[Admin]:
    await subject.start(address)
    try:
        yield subject
    finally:
        await subject.stop()


async def ask(
    subject: Admin, path: str, *, method: str = "GET", host: str = "localhost:9440"
) -> tuple[int, dict[str, str], bytes]:
    address: Any = subject.addresses[0]
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", address[1])
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(4):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body


async def test_alive_ready_and_status() -> None:
    subject = admin()
    subject.check("store", lambda: (True, ""))
    subject.check("config", lambda: (True, "still generation 3"))
    async with started(subject):
        assert (await ask(subject, "/livez"))[::2] == (200, b"ok\n")
        status, headers, body = await ask(subject, "/readyz")
        words = {"store": "ok", "config": "still generation 3"}
        assert (status, json.loads(body)) == (200, {"ready": True, "checks": words})
        assert headers["cache-control"] == "no-store"
        assert json.loads((await ask(subject, "/status"))[2]) == {"generation": 7, "hash": "abc"}


async def test_not_ready_says_which_check_and_why() -> None:
    def broken() -> tuple[bool, str]:
        raise ZeroDivisionError("nothing secret here, but it might be")

    subject = admin()
    subject.check("config", lambda: (False, "the last reload failed: heim.yaml:3"))
    subject.check("store", broken)
    subject.check("listener", lambda: (True, ""))
    async with started(subject):
        status, _, body = await ask(subject, "/readyz")
        assert status == 503
        assert json.loads(body) == {
            "ready": False,
            "checks": {
                "config": "the last reload failed: heim.yaml:3",
                "store": "the check failed: ZeroDivisionError",
                "listener": "ok",
            },
        }
        assert (await ask(subject, "/livez"))[0] == 200


async def test_metrics_are_the_text_exposition() -> None:
    subject = admin()
    async with started(subject):
        status, headers, body = await ask(subject, "/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b'heim_info{version="1"} 1.0' in body


async def test_only_get_and_head() -> None:
    subject = admin()
    async with started(subject):
        assert (await ask(subject, "/livez", method="HEAD"))[::2] == (200, b"")
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for path in ("/livez", "/metrics", "/debug/tasks"):
                assert (await ask(subject, path, method=method))[0] == 405


@pytest.mark.parametrize("path", ["/", "/admin", "/debug", "/debug/", "/debug/x", "/metrics/x"])
async def test_everything_else_is_not_found(path: str) -> None:
    subject = admin()
    async with started(subject):
        assert (await ask(subject, path))[0] == 404


@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_debug_answers_on_loopback_and_unix_sockets(
    loop_name: str, over: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        subject = admin()
        subject.debug("sessions-count", lambda: {"sessions": 3})
        address = tmp_path / "admin.sock" if over == "unix" else ("127.0.0.1", 0)
        async with started(subject, address):
            assert json.loads((await ask(subject, "/debug/sessions-count"))[2]) == {"sessions": 3}
            tasks = json.loads((await ask(subject, "/debug/tasks"))[2])
            assert any("bounded" in task["at"] for task in tasks)

    run_on(loop_name, scenario())


async def test_facts_that_are_many_come_in_pages() -> None:
    subject = admin()
    subject.debug_pages("names", lambda limit, after: [limit, after])
    async with started(subject):
        assert json.loads((await ask(subject, "/debug/names"))[2]) == [1_000, ""]
        asked = await ask(subject, "/debug/names?limit=7&after=b/x")
        assert json.loads(asked[2]) == [7, "b/x"]


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1e3", "\u0663", "9" * 500])
async def test_a_page_has_a_bound(limit: str) -> None:
    subject = admin()
    subject.debug_pages("names", lambda limit, after: [limit, after])
    async with started(subject):
        asked = await ask(subject, f"/debug/names?limit={quote(limit)}")
        assert asked[0] == 400


HOSTS = {
    "localhost": ("localhost", 200),
    "with-port": ("LOCALHOST:9440", 200),
    "ipv4": ("127.0.0.1:1", 200),
    "ipv6": ("[::1]:9440", 200),
    "ipv6-without-port": ("[::1]", 200),
    "rebinding": ("evil.test:9440", 404),
    "suffix": ("localhost.evil.test", 404),
    "userinfo": ("localhost@evil.test", 404),
    "empty": ("", 404),
    "other-address": ("10.0.0.1:9440", 404),
}


@pytest.mark.parametrize(("host", "status"), HOSTS.values(), ids=HOSTS)
async def test_debug_answers_only_to_loopback_hosts(host: str, status: int) -> None:
    subject = admin()
    async with started(subject):
        answered = (await ask(subject, "/debug/tasks", host=host))[0]
        assert answered == status or (status == 404 and answered == 400)
        assert (await ask(subject, "/readyz", host="10.0.0.1:9440"))[0] == 200


async def test_debug_does_not_answer_where_others_can_reach_it() -> None:
    """security.md M8, decision 22."""
    subject = admin()
    async with started(subject, ("0.0.0.0", 0)):
        assert (await ask(subject, "/debug/tasks"))[0] == 404
        assert (await ask(subject, "/metrics"))[0] == 200


async def test_the_unix_socket_is_its_owners_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    mask = os.umask(0)
    try:
        async with started(admin(), path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)
    assert not path.exists()


async def test_the_socket_of_a_dead_process_is_replaced_and_a_living_ones_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with started(admin(), path) as living:
        with pytest.raises(OSError, match="in use"):
            await admin().start(path)
        assert (await ask(living, "/livez"))[0] == 200


async def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        await admin().start(path)
    assert path.read_text() == "precious"
