from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from heim_proxy.edge.door import TUNNEL_PATH
from heim_proxy.identity.bearer import Bearer, BearerProblem
from heim_proxy.store.base import StoreUnavailable
from heim_proxy.tunnel.entrance import Entrance
from tests.fakes.heim import LOGIN_HOST, Wire
from tests.fakes.tunnel import (
    PATH,
    TunnelSite,
    refused,
    tcp_backend,
    tunnel_head,
    tunnel_role,
    tunnel_site,
)

HOST = "web1.example.test"
Judge = Callable[[str, float], Bearer | BearerProblem]


class Bearers:
    """Judges tokens when it is told to."""

    def __init__(self, site: TunnelSite) -> None:
        self.asked: list[str] = []
        self.answer = asyncio.Event()
        self.error: Exception | None = None
        self._door = site.heim.proxy._edge.door.at(TUNNEL_PATH)  # type: ignore[union-attr]
        self._true = self._door.bearers  # type: ignore[attr-defined]
        self._door.bearers = self  # type: ignore[attr-defined]

    async def authenticate(self, token: str, now: float) -> Bearer | BearerProblem:
        self.asked.append(token)
        await self.answer.wait()
        if self.error is not None:
            raise self.error
        found: Bearer | BearerProblem = await self._true.authenticate(token, now)
        return found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[TunnelSite]:
    roles = [tunnel_role("ops", "web1", "web2")]
    async with tunnel_site(
        tmp_path,
        backends=[tcp_backend("web2", "127.0.0.1:1"), tcp_backend("db", "127.0.0.1:1")],
        roles=roles,
        tunnel={"streams_per_user": 2},
    ) as built:
        yield built


def entrances(site: TunnelSite) -> list[Entrance]:
    edge = site.heim.proxy._edge
    assert edge is not None
    return [front.exchange for front in edge._fronts if isinstance(front.exchange, Entrance)]


async def asked(site: TunnelSite, more: bytes = b"") -> tuple[Wire, Bearers]:
    """A request whose token is being judged."""
    bearers = Bearers(site)
    wire = await site.heim.connect(HOST)
    wire.send(tunnel_head(site.login.token(), host=HOST) + more)
    await site.heim.until(lambda: bearers.asked)
    return wire, bearers


class TestWhoIsAsking:
    async def test_a_login_that_is_over_is_401_with_where_to_log_in(self, site: TunnelSite) -> None:
        token = site.login.token()
        await site.later(901)
        answer, problem = await refused(site.heim, tunnel_head(token, host=HOST), sni=HOST)
        assert (answer.status, problem["code"]) == (401, "unauthenticated")
        assert problem["login_url"] == "https://auth.example.test"
        assert "expired" in problem["detail"]
        assert (answer.get("www-authenticate") or "").startswith("Bearer")

    async def test_a_bad_service_token_sends_nobody_to_log_in(self, site: TunnelSite) -> None:
        answer, problem = await refused(site.heim, tunnel_head("heim_st_x_y", host=HOST), sni=HOST)
        assert answer.status == 401
        assert "login_url" not in problem
        assert "service token" in problem["hint"]

    async def test_without_the_store_it_is_503_and_not_101(self, site: TunnelSite) -> None:
        bearers = Bearers(site)
        bearers.error = StoreUnavailable("gone")
        bearers.answer.set()
        answer, problem = await refused(
            site.heim, tunnel_head(site.login.token(), host=HOST), sni=HOST
        )
        assert (answer.status, problem["code"]) == (503, "busy")
        assert answer.get("retry-after") == str(problem["retry_after"])

    async def test_an_exception_in_a_decision_is_a_refusal(self, site: TunnelSite) -> None:
        bearers = Bearers(site)
        bearers.error = KeyError("our bug")
        bearers.answer.set()
        answer, problem = await refused(
            site.heim, tunnel_head(site.login.token(), host=HOST), sni=HOST
        )
        assert (answer.status, problem["code"]) == (500, "internal")
        assert "our bug" not in answer.body.decode()

    async def test_a_token_that_is_never_judged_is_refused_in_time(self, site: TunnelSite) -> None:
        wire, _ = await asked(site)
        (entrance,) = entrances(site)
        entrance.timed_out("load")
        async with asyncio.timeout(2):
            assert (await wire.answer()).status == 503
        assert site.live == 0

    async def test_a_refused_token_is_not_judged_twice(self, site: TunnelSite) -> None:
        wire = await site.heim.connect(HOST)
        for _ in range(2):
            wire.send(tunnel_head("nonsense", host=HOST))
            async with asyncio.timeout(2):
                assert (await wire.answer()).status == 401


class TestWhileItIsAsked:
    async def test_a_client_that_leaves_is_forgotten(self, site: TunnelSite) -> None:
        wire, bearers = await asked(site)
        wire.close()
        edge = site.heim.proxy._edge
        assert edge is not None
        await site.heim.until(lambda: not edge.connections)
        bearers.answer.set()
        await asyncio.sleep(0.05)
        assert site.live == 0
        assert site.upstream.total == 0

    async def test_a_shutdown_is_an_answer(self, site: TunnelSite) -> None:
        wire, bearers = await asked(site)
        draining = asyncio.ensure_future(site.heim.proxy.drain())
        await asyncio.sleep(0.05)
        bearers.answer.set()
        async with asyncio.timeout(2):
            answer = await wire.answer()
        assert answer.status == 503
        assert b'"going_away"' in answer.body
        await draining

    async def test_a_change_of_policy_holds_at_once(self, site: TunnelSite) -> None:
        wire, bearers = await asked(site)
        await site.change(roles=[])
        bearers.answer.set()
        async with asyncio.timeout(2):
            assert (await wire.answer()).status == 403
        assert site.upstream.total == 0

    async def test_what_comes_meanwhile_is_no_request(self, site: TunnelSite) -> None:
        wire, bearers = await asked(site, b"GET /smuggled HTTP/1.1\r\n\r\n")
        bearers.error = KeyError()
        bearers.answer.set()
        async with asyncio.timeout(2):
            assert (await wire.answer()).status == 500
        assert await wire.closed() == b""

    async def test_the_token_is_forgotten_with_the_head(self, site: TunnelSite) -> None:
        await asked(site)
        (entrance,) = entrances(site)
        assert entrance._front.head.fields == []


class TestRefusedAtOnce:
    async def test_what_follows_a_request_that_was_no_upgrade_is_the_next_one(
        self, site: TunnelSite
    ) -> None:
        wire = await site.heim.connect(HOST)
        plain = f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        wire.send(plain + plain)
        for _ in range(2):
            async with asyncio.timeout(2):
                assert (await wire.answer()).status == 426

    async def test_what_follows_an_upgrade_is_not(self, site: TunnelSite) -> None:
        wire = await site.heim.connect(HOST)
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: web1.example.test\r\n\r\n"
        wire.send(tunnel_head(None, host=HOST) + smuggled)
        async with asyncio.timeout(2):
            assert (await wire.answer()).status == 401
        assert await wire.closed() == b""

    async def test_a_body_ends_the_connection(self, site: TunnelSite) -> None:
        wire = await site.heim.connect(HOST)
        head = tunnel_head(site.login.token(), host=HOST, extra=("Content-Length: 5",))
        wire.send(head + b"hello")
        async with asyncio.timeout(2):
            assert (await wire.answer()).status == 400
        assert await wire.closed() == b""

    async def test_a_refused_connection_serves_the_next_request(self, site: TunnelSite) -> None:
        wire = await site.heim.connect(HOST)
        for token, status in ((None, 401), ("x", 401), (site.login.token(), 101)):
            wire.send(tunnel_head(token, host=HOST))
            async with asyncio.timeout(2):
                assert (await wire.answer()).status == status


class TestTheNumberOfStreams:
    async def test_one_more_than_allowed_is_429(self, site: TunnelSite) -> None:
        first, _ = await site.connect(), await site.connect()
        request = tunnel_head(site.login.token(), host=HOST)
        answer, problem = await refused(site.heim, request, sni=HOST)
        assert (answer.status, problem["code"]) == (429, "busy")
        assert "2" in problem["detail"]
        assert answer.get("retry-after") == str(problem["retry_after"])
        first.abort()
        await site.heim.until(lambda: site.live == 1)
        await site.connect()

    async def test_refused_streams_take_no_place(self, site: TunnelSite) -> None:
        dead = tunnel_head(site.login.token(), host="web2.example.test")
        for _ in range(3):
            answer, _ = await refused(site.heim, dead, sni="web2.example.test")
            assert answer.status == 502
        await site.connect()


async def test_the_login_host_takes_a_backends_name(site: TunnelSite) -> None:
    for name in ("web1", HOST):
        client = await site.connect(host=LOGIN_HOST, backend=name)
        assert client.readies[0]["backend"] == "web1"
        client.abort()
        await site.heim.until(lambda: site.live == 0)
