from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.edge.door import TUNNEL_PATH
from heim_proxy.live import EndReason
from heim_proxy.tunnel.dialling import Dialling
from tests.fakes.heim import Wire, user
from tests.fakes.tunnel import (
    TunnelSite,
    cli_login,
    refused,
    tcp_backend,
    tunnel_head,
    tunnel_role,
    tunnel_site,
)

NAMES = ("web1", "dead", "nowhere", "hole", "gone", "late")


class Hole:
    """An address that answers no SYN: its backlog is full."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self._fillers: list[socket.socket] = []
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)

    def close(self) -> None:
        for one in (self._listener, *self._fillers):
            one.close()


@pytest.fixture
async def hole() -> AsyncIterator[Hole]:
    made = Hole()
    yield made
    made.close()


@pytest.fixture
async def site(tmp_path: Path, hole: Hole) -> AsyncIterator[TunnelSite]:
    backends = [
        tcp_backend("dead", "127.0.0.1:1"),
        tcp_backend("nowhere", "no-such-name.invalid:22"),
        tcp_backend("hole", hole.address, timeouts={"connect": "300ms"}),
        tcp_backend("gone", f"unix:{tmp_path}/missing"),
        tcp_backend("late", hole.address, timeouts={"connect": "20s"}),
    ]
    roles = [tunnel_role("ops", *NAMES)]
    async with tunnel_site(tmp_path, backends=backends, roles=roles) as built:
        yield built


def request(site: TunnelSite, name: str) -> bytes:
    return tunnel_head(site.login.token(), host=f"{name}.example.test")


@pytest.mark.parametrize(
    ("name", "status", "code", "words"),
    [
        ("dead", 502, "dial_refused", "connection refused"),
        ("gone", 502, "dial_refused", "no such file or directory"),
        ("nowhere", 502, "dns", "its name does not resolve"),
        ("hole", 504, "dial_timeout", "no answer within 0.3s"),
    ],
)
async def test_an_upstream_that_cannot_be_reached_is_told_truly_and_without_its_address(
    site: TunnelSite, name: str, status: int, code: str, words: str
) -> None:
    answer, problem = await refused(site.heim, request(site, name), sni=f"{name}.example.test")
    assert (answer.status, problem["code"]) == (status, code)
    assert name in problem["detail"]
    assert words in problem["detail"]
    assert "127.0.0.1" not in answer.body.decode()
    assert "invalid" not in answer.body.decode()
    assert site.live == 0
    line = await site.line(problem["request_id"])
    assert (line["status"], line["decision"], line["backend"]) == (status, f"deny:{code}", name)
    assert line["user"] == "alice@example.com"


async def test_the_log_says_what_the_answer_does_not(
    site: TunnelSite, caplog: pytest.LogCaptureFixture
) -> None:
    _, problem = await refused(site.heim, request(site, "dead"), sni="dead.example.test")
    (record,) = [one for one in caplog.records if one.message == "upstream.failed"]
    assert vars(record)["upstream"] == "tcp://127.0.0.1:1"
    assert vars(record)["request_id"] == problem["request_id"]


async def test_a_refusal_leaves_the_connection_to_go_on(site: TunnelSite) -> None:
    wire = await site.heim.connect("dead.example.test")
    for _ in range(2):
        wire.send(request(site, "dead"))
        async with asyncio.timeout(3):
            assert (await wire.answer()).status == 502


async def dialling(site: TunnelSite, name: str = "late") -> tuple[Wire, Dialling]:
    """A request whose upstream does not answer."""
    wire = await site.heim.connect(f"{name}.example.test")
    wire.send(request(site, name))
    await site.heim.until(lambda: site.live == 1)
    (found,) = site.heim.proxy._live._exchanges
    assert isinstance(found, Dialling)
    return wire, found


async def problem_of(wire: Wire) -> tuple[int, dict[str, Any]]:
    async with asyncio.timeout(3):
        answer = await wire.answer()
    return answer.status, json.loads(answer.body)


async def test_it_is_registered_before_it_dials_and_no_longer_when_the_client_left(
    site: TunnelSite,
) -> None:
    wire, found = await dialling(site)
    wire.close()
    await site.heim.until(lambda: site.live == 0)
    assert found.over
    door = site.heim.proxy._edge.door.at(TUNNEL_PATH)  # type: ignore[union-attr]
    assert not door.places


async def test_a_dial_takes_ten_seconds_at_most_whatever_is_configured(
    site: TunnelSite,
) -> None:
    _, found = await dialling(site)
    assert found._front._expect_s == 10.5


async def test_a_client_that_leaves_during_the_dial_leaves_no_connection(
    site: TunnelSite,
) -> None:
    for _ in range(20):
        wire = await site.heim.connect("web1.example.test")
        wire.send(request(site, "web1"))
        # Anywhere between the request and the answer.
        await asyncio.sleep(0.0005)
        wire.close()
    await site.heim.until(lambda: site.live == 0 and site.upstream.open == 0)


@pytest.mark.parametrize("reason", [EndReason.REVOKED, EndReason.EXPIRED, EndReason.SHUTDOWN])
async def test_a_permission_that_ends_meanwhile_is_refused(
    site: TunnelSite, reason: EndReason
) -> None:
    wire, _ = await dialling(site)
    if reason is EndReason.EXPIRED:
        site.clock.time += 1000
    site.heim.proxy._live.end_session(site.login.session, reason)
    status, problem = await problem_of(wire)
    assert (status, problem["code"]) == {
        EndReason.REVOKED: (403, "revoked"),
        EndReason.EXPIRED: (401, "expired"),
        EndReason.SHUTDOWN: (503, "going_away"),
    }[reason]
    assert site.live == 0


async def test_access_that_is_withdrawn_meanwhile_is_refused(site: TunnelSite) -> None:
    wire, _ = await dialling(site)
    await site.change(roles=[tunnel_role("ops", *(name for name in NAMES if name != "late"))])
    status, problem = await problem_of(wire)
    assert (status, problem["code"]) == (403, "revoked")


async def test_a_stream_that_cannot_be_begun_is_refused_and_leaves_nothing(
    site: TunnelSite, caplog: pytest.LogCaptureFixture
) -> None:
    # A name that does not fit into READY: providers have said stranger things.
    who = dataclasses.replace(user("odd"), email="x" * 5000 + "@example.com")
    members = [{"issuer": who.issuer, "subject": who.subject}]
    await site.change(roles=[tunnel_role("odd", "web1", members=members)])
    login = await cli_login(site.heim, who)
    request = tunnel_head(login.token(), host="web1.example.test")
    answer, problem = await refused(site.heim, request, sni="web1.example.test")
    assert (answer.status, problem["code"]) == (500, "internal")
    assert [one.message for one in caplog.records if one.levelname == "ERROR"] == [
        "tunnel.open_failed"
    ]
    await site.heim.until(lambda: site.live == 0 and site.upstream.open == 0)
    door = site.heim.proxy._edge.door.at(TUNNEL_PATH)  # type: ignore[union-attr]
    assert not door.places


async def test_early_bytes_are_bounded_while_nobody_takes_them(site: TunnelSite) -> None:
    wire, found = await dialling(site)
    size = 8 * 1024 * 1024
    wire.send(bytes(size))
    await asyncio.sleep(0.3)
    assert 0 < found._early._size <= 256 * 1024
    assert found._front.gate.holds
    # It is read again, to its end, once there is nothing to wait for.
    site.heim.proxy._live.end_session(site.login.session, EndReason.REVOKED)
    wire.close()
    await site.heim.until(lambda: not site.heim.proxy._edge.connections)  # type: ignore[union-attr]


async def test_early_bytes_of_a_refused_stream_are_no_request(site: TunnelSite) -> None:
    wire, _ = await dialling(site)
    wire.send(b"GET /smuggled HTTP/1.1\r\nHost: web1.example.test\r\n\r\n")
    await asyncio.sleep(0.05)
    site.heim.proxy._live.end_session(site.login.session, EndReason.REVOKED)
    assert (await problem_of(wire))[0] == 403
    assert await wire.closed() == b""
    assert "smuggled" not in site.heim.log.read_text()
