from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.edge.limits import SWEEP_S
from heim_proxy.live import EndReason
from heim_proxy.observe.audit import AUDIT_LOGGER
from heim_proxy.tunnel.passage import TOKEN_GRACE_S
from heim_proxy.tunnel.streams import TunnelStream
from heim_proxy.tunnel.terms import NOTICE_S
from heim_wire.errors import Code
from heim_wire.frames import Type, plain_frame
from heim_wire.liveness import HELLO_WITHIN
from heim_wire.websocket import WebSocket
from tests.fakes.heim import user
from tests.fakes.tunnel import (
    TcpServer,
    TunnelClient,
    TunnelSite,
    cli_login,
    rst,
    service_token,
    tcp_backend,
    tunnel_head,
    tunnel_role,
    tunnel_site,
)

# The promise (decision 2): everything ends within this many seconds.
PROMISE_S = 2.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[TunnelSite]:
    async with tunnel_site(tmp_path) as built:
        yield built


def streams(site: TunnelSite) -> list[TunnelStream]:
    exchanges = site.heim.proxy._live._exchanges
    return [one for one in exchanges if isinstance(one, TunnelStream)]


class TestBytes:
    async def test_they_pass_both_ways(self, site: TunnelSite) -> None:
        client = await site.connect()
        client.send(b"ping")
        assert await client.read(4) == b"ping"
        assert client.readies == [
            {
                "user": "alice@example.com",
                "backend": "web1",
                "expires": int(site.clock.now()) + 900,
                "request_id": client.answer.get("heim-request-id"),
            }
        ]

    @pytest.mark.parametrize("size", [1, 16_367, 16_368, 16_369, 65_535, 65_536, 65_537])
    async def test_any_size_arrives_whole(self, site: TunnelSite, size: int) -> None:
        client = await site.connect()
        data = random.Random(size).randbytes(size)
        client.send(data)
        assert await client.read(size) == data

    async def test_megabytes_arrive_as_they_were(self, site: TunnelSite) -> None:
        client = await site.connect()
        source = random.Random(7)
        sent, got = hashlib.sha256(), hashlib.sha256()
        left = 8 * 1024 * 1024
        arrived = 0
        while left or arrived < 8 * 1024 * 1024:
            if left and not client.stream.full:
                piece = source.randbytes(min(left, source.choice((1, 700, 16_000, 200_000))))
                left -= len(piece)
                sent.update(piece)
                client.send(piece)
            else:
                await client.until(lambda: client.received)
            arrived += len(client.received)
            got.update(client.received)
            client.received.clear()
        assert got.digest() == sent.digest()

    async def test_a_unix_socket_is_an_upstream_like_any(
        self, site: TunnelSite, tmp_path: Path
    ) -> None:
        server = await TcpServer().start(path=str(tmp_path / "s"))
        backends = [*site.heim.document["backends"], tcp_backend("sock", f"unix:{tmp_path}/s")]
        await site.change(backends=backends, roles=[tunnel_role("ops", "web1", "sock")])
        client = await site.connect(host="sock.example.test")
        client.send(b"ping")
        assert await client.read(4) == b"ping"
        await server.stop()

    async def test_what_the_upstream_says_first_is_heard(self, site: TunnelSite) -> None:
        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-test\r\n")
            await reader.read()

        site.upstream.script = greet
        client = await site.connect()
        assert await client.read(14) == b"SSH-2.0-test\r\n"


class TestHalfClose:
    async def test_the_clients_end_leaves_the_answer_to_come(self, site: TunnelSite) -> None:
        async def at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(-1)
            writer.write(b"got %d" % len(data))

        site.upstream.script = at_the_end
        client = await site.connect()
        client.send(b"x" * 5)
        client.end()
        assert await client.read(5) == b"got 5"
        await client.until(lambda: client.ended)

    async def test_the_upstreams_end_leaves_the_client_to_go_on(self, site: TunnelSite) -> None:
        heard = asyncio.Event()

        async def quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write_eof()
            assert await reader.readexactly(4) == b"late"
            heard.set()
            await reader.read()

        site.upstream.script = quick
        client = await site.connect()
        await client.until(lambda: client.ended)
        client.send(b"late")
        async with asyncio.timeout(3):
            await heard.wait()
        assert site.live == 1

    async def test_both_ends_close_it_in_good_order(self, site: TunnelSite) -> None:
        client = await site.connect()
        client.send(b"bye")
        client.end()
        await client.until(lambda: client.ended)
        assert await client.read(3) == b"bye"
        client.goodbye()
        await client.over()
        assert client.close is not None
        assert client.close.code == 1000
        await site.heim.until(lambda: site.live == 0 and site.upstream.open == 0)
        assert site.upstream.ended == "eof"

    async def test_ends_at_the_same_moment_are_fine(self, site: TunnelSite) -> None:
        async def quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"all")
            writer.write_eof()
            await reader.read()

        site.upstream.script = quick
        client = await site.connect()
        client.send(b"and all")
        client.end()
        await client.until(lambda: client.ended)
        assert await client.read(3) == b"all"
        client.goodbye()
        await client.over()
        assert client.reset is None


class TestResets:
    async def test_an_upstream_that_resets_is_told_as_such(self, site: TunnelSite) -> None:
        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(4)
            rst(writer)

        site.upstream.script = cut
        client = await site.connect()
        client.send(b"ping")
        await client.until(lambda: client.reset)
        assert client.reset is not None
        assert client.reset.code == Code.CONNECTION_RESET
        client.goodbye()
        await client.over()
        line = await site.line(client.readies[0]["request_id"])
        assert (line["status"], line["end"]) == (101, "connection_reset")

    async def test_a_client_that_resets_is_no_clean_end_to_the_upstream(
        self, site: TunnelSite
    ) -> None:
        client = await site.connect()
        client.send(b"ping")
        await client.read(4)
        client.cut(Code.CONNECTION_RESET, "cut")
        await site.heim.until(lambda: site.upstream.open == 0)
        assert site.upstream.ended == "reset"

    @pytest.mark.parametrize("code", [Code.REVOKED, Code.EXPIRED, Code.GOING_AWAY, 9999])
    async def test_no_number_of_a_clients_puts_words_into_our_log(
        self, site: TunnelSite, code: int
    ) -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        client = await site.connect()
        client.cut(code)
        await client.over()
        assert (await site.line(client.readies[0]["request_id"]))["end"] == "client_gone"
        assert site.live == 0
        assert not faults

    async def test_a_client_that_vanishes_is_no_clean_end_to_the_upstream(
        self, site: TunnelSite
    ) -> None:
        client = await site.connect()
        client.send(b"ping")
        await client.read(4)
        request_id = client.readies[0]["request_id"]
        client.abort()
        await site.heim.until(lambda: site.upstream.open == 0)
        assert site.upstream.ended == "reset"
        assert (await site.line(request_id))["end"] == "client_gone"
        assert site.live == 0

    async def test_a_goodbye_in_the_middle_is_no_clean_end_either(self, site: TunnelSite) -> None:
        client = await site.connect()
        client.send(b"ping")
        await client.read(4)
        client.goodbye()
        await client.over()
        await site.heim.until(lambda: site.upstream.open == 0)
        assert site.upstream.ended == "reset"


class TestMemory:
    async def test_an_upstream_that_does_not_read_stops_the_client(self, site: TunnelSite) -> None:
        go_on = asyncio.Event()

        async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await go_on.wait()
            while data := await reader.read(65_536):
                site.upstream.received += data

        site.upstream.script = stalled
        client = await site.connect()
        size = 16 * 1024 * 1024
        client.stream.send(bytes(size))
        before = -1
        # Until no credit has come for a while.
        while client.stream.queued != before:
            before = client.stream.queued
            client.flush()
            await asyncio.sleep(0.2)
        assert client.stream.queued > size // 4, "the proxy took what nobody reads"
        (stream,) = streams(site)
        transport = stream._relay._transport
        assert transport is not None
        # What the client may send and we have not passed on is its window, beside what was
        # credited at once: as long as less than the relay's high-water mark waits.
        window = next(iter(stream._wire.streams.values())).window.size
        assert transport.get_write_buffer_size() <= window + 128 * 1024
        go_on.set()
        await site.heim.until(lambda: len(site.upstream.received) == size)

    async def test_a_client_that_does_not_read_stops_the_upstream(self, site: TunnelSite) -> None:
        written = 0
        size = 32 * 1024 * 1024

        async def generous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal written
            while written < size:
                writer.write(bytes(65_536))
                await writer.drain()
                written += 65_536
            writer.write_eof()
            await reader.read()

        site.upstream.script = generous
        client = await site.connect()
        client.stalled = True
        before = -1
        while written != before:
            before = written
            await asyncio.sleep(0.2)
        assert written < size
        (stream,) = streams(site)
        wire = next(iter(stream._wire.streams.values()))
        assert wire.queued <= (128 + 256) * 1024
        assert len(client.received) <= 256 * 1024
        client.credit()
        await client.until(lambda: client.ended)
        assert len(client.received) == size


class TestEarlyBytes:
    async def test_what_came_before_101_is_not_lost(self, site: TunnelSite) -> None:
        sent: list[bytes] = []
        client = await site.connect(silent=True, early=b"")
        # The same bytes as one write: HELLO and DATA right behind the request.
        client.send(b"ping")
        sent.append(await client.read(4))
        assert sent == [b"ping"]

    async def test_data_in_the_same_write_as_the_request_waits_for_the_upstream(
        self, site: TunnelSite
    ) -> None:
        hello = plain_frame(Type.HELLO, 0, b'{"v":[1]}')
        data = plain_frame(Type.DATA, 1, b"early")
        frame = _masked(hello + data)
        client = await site.connect(silent=True, early=frame)
        assert await client.read(5) == b"early"


def _masked(payload: bytes) -> bytes:
    """One binary frame of a client's, masked with zeros."""
    assert len(payload) < 126
    return bytes((0x82, 0x80 | len(payload), 0, 0, 0, 0)) + payload


class TestTime:
    async def test_silence_ends_it_where_that_is_configured(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, backend={"idle": "60s"}) as site:
            client = await site.connect()
            await site.later(50)
            client.send(b"ping")
            await client.read(4)
            await site.later(50)
            assert site.live == 1
            await site.later(60)
            await client.until(lambda: client.reset)
            assert client.reset is not None
            assert (client.reset.code, client.reset.reason) == (
                Code.IDLE, "closed after 1m without data",
            )  # fmt: skip
            await client.over()
            assert (await site.line(client.readies[0]["request_id"]))["end"] == "idle_timeout"

    async def test_pings_are_no_data(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, backend={"idle": "60s"}) as site:
            client = await site.connect()
            await site.later(0)
            client.frame(plain_frame(Type.PING, 0, b"12345678"))
            await site.later(30)
            client.frame(plain_frame(Type.PING, 0, b"12345678"))
            await asyncio.sleep(0.05)
            await site.later(31)
            await client.until(lambda: client.reset)

    async def test_silence_ends_nothing_where_it_is_not_configured(self, site: TunnelSite) -> None:
        client = await site.connect()
        await site.later(600)
        client.send(b"ping")
        assert await client.read(4) == b"ping"

    async def test_age_is_announced_and_then_ends_it(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, backend={"max_duration": "10m"}) as site:
            client = await site.connect()
            await site.later(0)
            assert not client.notices
            await site.later(600 - NOTICE_S)
            await client.until(lambda: client.notices)
            assert client.notices[0].startswith("this connection ends at ")
            await site.later(NOTICE_S)
            await client.until(lambda: client.reset)
            assert client.reset is not None
            assert client.reset.code == Code.MAX_DURATION

    async def test_a_client_without_hello_is_cut(self, site: TunnelSite) -> None:
        client = await site.connect(silent=True)
        wire = streams(site)[0]._wire
        assert wire.deadline <= time.monotonic() + HELLO_WITHIN
        # The channel's timer, as if its time had come.
        wire._liveness._began -= HELLO_WITHIN
        wire._liveness._heard -= HELLO_WITHIN
        streams(site)[0]._channel._alarm()
        await client.over()
        await site.heim.until(lambda: site.live == 0)

    async def test_a_client_that_acknowledges_nothing_is_given_up_by_the_kernel(
        self, site: TunnelSite
    ) -> None:
        await site.connect()
        sock = streams(site)[0]._front.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    async def test_a_client_that_fell_silent_is_found_out(self, site: TunnelSite) -> None:
        client = await site.connect()
        client.send(b"ping")
        await client.read(4)
        stream = streams(site)[0]
        assert stream._wire.deadline <= time.monotonic() + 25
        stream._wire._liveness._heard -= 26
        stream._channel._alarm()
        await site.heim.until(lambda: site.live == 0)
        assert (await site.line(client.readies[0]["request_id"]))["end"] == "peer_lost"


class TestTokens:
    async def test_a_newer_token_keeps_it_running(self, site: TunnelSite) -> None:
        client = await site.connect()
        for _ in range(3):
            await site.later(800)
            client.auth(site.login.token())
            expected = len(client.readies) + 1
            await client.until(lambda n=expected: len(client.readies) == n)  # type: ignore[misc]
            assert client.readies[-1]["expires"] == int(site.clock.now()) + 900
        client.send(b"ping")
        assert await client.read(4) == b"ping"

    async def test_a_token_that_is_not_renewed_ends_it_after_a_grace(
        self, site: TunnelSite
    ) -> None:
        client = await site.connect()
        await site.later(900 + TOKEN_GRACE_S - 2)
        client.send(b"ping")
        assert await client.read(4) == b"ping"
        await site.later(3)
        await client.until(lambda: client.reset)
        assert client.reset is not None
        assert client.reset.code == Code.EXPIRED
        assert "not renewed in time" in client.reset.reason
        await client.over(PROMISE_S)
        assert (await site.line(client.readies[0]["request_id"]))["end"] == "expired"

    async def test_a_token_of_another_login_is_refused(self, site: TunnelSite) -> None:
        client = await site.connect()
        for who in ("alice", "bob"):
            other = await cli_login(site.heim, user(who))
            client.notices.clear()
            client.auth(other.token())
            await client.until(lambda: client.notices)
            assert "of another login" in client.notices[0]
        await site.later(900 + TOKEN_GRACE_S + 1)
        await client.until(lambda: client.reset)

    @pytest.mark.parametrize(
        ("token", "kind", "words"),
        [("nonsense", "bearer", "refused"), ("x", "password", "does not know")],
        ids=["not a token", "not a bearer"],
    )
    async def test_a_bad_credential_is_told_and_changes_nothing(
        self, site: TunnelSite, token: str, kind: str, words: str
    ) -> None:
        client = await site.connect()
        client.auth(token, kind)
        await client.until(lambda: client.notices)
        assert words in client.notices[0]
        assert len(client.readies) == 1
        client.send(b"ping")
        assert await client.read(4) == b"ping"

    async def test_an_older_token_takes_nothing_away(self, site: TunnelSite) -> None:
        client = await site.connect()
        client.auth(site.login.token(site.clock.now() - 600))
        await client.until(lambda: len(client.readies) == 2)
        assert client.readies[1]["expires"] == client.readies[0]["expires"]

    async def test_a_renewal_counts_as_use_of_the_login(self, site: TunnelSite) -> None:
        client = await site.connect()
        await site.later(800)
        client.auth(site.login.token())
        await client.until(lambda: len(client.readies) == 2)
        assert site.login.session.last_seen == site.clock.now()

    async def test_a_service_token_needs_no_renewal(self, tmp_path: Path) -> None:
        roles = [tunnel_role("bots", "web1", members=[{"service_account": "ci"}])]
        async with tunnel_site(tmp_path, roles=roles, service_accounts=[{"name": "ci"}]) as site:
            client = await site.connect(token=await service_token(site.heim, "ci"))
            assert client.readies[0]["user"] == "ci"
            assert client.readies[0]["expires"] is None
            await site.later(30 * 86400)
            client.send(b"ping")
            assert await client.read(4) == b"ping"


async def ends(client: TunnelClient, code: int, words: str) -> None:
    """The client is told why, and the connection is closed, within the promise."""
    await client.until(lambda: client.reset or client.gone, PROMISE_S)
    assert client.reset is not None
    assert client.reset.code == code
    assert words in client.reset.reason
    await client.over(PROMISE_S)


class TestPermission:
    @pytest.mark.parametrize(
        ("reason", "words"),
        [(EndReason.REVOKED, "revoked"), (EndReason.LOGOUT, "signed out")],
        ids=["revoked", "signed out"],
    )
    async def test_the_end_of_the_login_ends_its_streams(
        self, site: TunnelSite, reason: EndReason, words: str
    ) -> None:
        client = await site.connect()
        other = await cli_login(site.heim, user("alice"))
        unharmed = await site.connect(token=other.token())
        sessions = site.heim.proxy._sessions
        assert sessions is not None
        await sessions.end(site.login.session.sid, reason, site.clock.now())
        await ends(client, Code.REVOKED, words)
        await site.heim.until(lambda: site.upstream.open == 1)
        unharmed.send(b"ping")
        assert await unharmed.read(4) == b"ping"
        line = await site.line(client.readies[0]["request_id"])
        assert line["end"] == reason.value

    async def test_a_client_that_does_not_listen_is_cut_in_time(self, site: TunnelSite) -> None:
        async def generous(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                writer.write(bytes(65_536))
                await writer.drain()

        site.upstream.script = generous
        client = await site.connect()
        await client.read(1)
        # It does not even read its socket any more, nor close it, which would be an end.
        reader = client.wire.reader
        reader._maybe_resume_transport = lambda: None  # type: ignore[attr-defined]
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        assert site.live == 1
        sessions = site.heim.proxy._sessions
        assert sessions is not None
        await sessions.end(site.login.session.sid, EndReason.REVOKED, site.clock.now())
        await site.heim.until(lambda: site.live == 0 and site.upstream.open == 0, PROMISE_S)

    async def test_a_client_that_answers_nothing_is_cut_when_its_token_is_over(
        self, site: TunnelSite
    ) -> None:
        wire = await site.heim.connect("web1.example.test")
        wire.send(tunnel_head(site.login.token(), host="web1.example.test"))
        assert (await wire.answer()).status == 101
        hello = plain_frame(Type.HELLO, 0, b'{"v":[1]}')
        wire.send(WebSocket(client=True).frame([hello], len(hello)))
        await site.heim.until(lambda: site.upstream.open == 1)
        # The sweep finds it over again and again until the connection is gone.
        site.clock.time += 900 + TOKEN_GRACE_S + 1
        try:
            await site.heim.until(lambda: site.live == 0, PROMISE_S + SWEEP_S)
        finally:
            wire.close()

    async def test_the_login_that_expires_announces_it(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, session={"lifetime": "20m", "idle": "20m"}) as site:
            client = await site.connect()
            for _ in range(2):
                await site.later(450)
                client.auth(site.login.token())
                expected = len(client.readies) + 1
                await client.until(
                    lambda n=expected: len(client.readies) == n  # type: ignore[misc]
                )
            await site.later(1)
            await client.until(lambda: client.notices)
            assert client.notices[0].startswith("your login ends at ")
            await site.later(300)
            await ends(client, Code.EXPIRED, "run: heim-tunnel login")

    async def test_a_login_that_grows_too_old_for_the_backend(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, backend={"max_session_age": "10m"}) as site:
            client = await site.connect()
            await site.later(601)
            await ends(client, Code.EXPIRED, "web1 needs a recent login")
            line = await site.line(client.readies[0]["request_id"])
            assert line["end"] == "session_too_old"

    async def test_a_change_that_leaves_it_alone_leaves_it_alone(self, site: TunnelSite) -> None:
        client = await site.connect()
        more = [*site.heim.document["backends"], tcp_backend("other", "127.0.0.1:1")]
        await site.change(backends=more)
        client.send(b"ping")
        assert await client.read(4) == b"ping"

    async def test_access_that_is_withdrawn_ends_it(self, site: TunnelSite) -> None:
        client = await site.connect()
        await site.change(roles=[])
        await ends(client, Code.REVOKED, "access to web1 was withdrawn")
        line = await site.line(client.readies[0]["request_id"])
        assert line["end"] == "policy_changed"

    @pytest.mark.parametrize("change", ["removed", "http only", "another host"])
    async def test_a_backend_that_is_gone_ends_it(self, site: TunnelSite, change: str) -> None:
        client = await site.connect()
        (web1,) = site.heim.document["backends"]
        http = [{"path": "/", "upstream": "http://127.0.0.1:1"}]
        backends = {
            "removed": [tcp_backend("other", "127.0.0.1:1")],
            "http only": [{"name": "web1", "http": http}],
            "another host": [{**web1, "host": "moved.example.test"}],
        }[change]
        roles = [tunnel_role("ops", "web1")] if change == "another host" else []
        await site.change(backends=backends, roles=roles)
        await ends(client, Code.NO_SUCH_TARGET, "web1 takes no more connections")

    async def test_a_backend_that_moves_takes_nobody_along(self, site: TunnelSite) -> None:
        client = await site.connect()
        await site.change(backends=[tcp_backend("web1", "127.0.0.1:1")])
        await ends(client, Code.GOING_AWAY, "web1 has moved")
        line = await site.line(client.readies[0]["request_id"])
        assert line["end"] == "backend_moved"

    async def test_new_limits_hold_for_what_runs(self, site: TunnelSite) -> None:
        client = await site.connect()
        backend = tcp_backend("web1", site.upstream.address, max_duration="10m")
        await site.change(backends=[backend])
        await site.later(601)
        await client.until(lambda: client.reset)
        assert client.reset is not None
        assert client.reset.code == Code.MAX_DURATION


class TestDrain:
    async def test_streams_are_told_run_on_and_are_ended(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, drain="1s") as site:
            client = await site.connect()
            draining = asyncio.ensure_future(site.heim.proxy.drain())
            await client.until(lambda: client.goaway and client.notices)
            assert client.goaway is not None
            assert client.goaway.code == Code.GOING_AWAY
            assert client.goaway.drain == 1.0
            assert "restarting" in client.notices[0]
            client.send(b"ping")
            assert await client.read(4) == b"ping"
            await ends(client, Code.GOING_AWAY, "restarting")
            await draining
            assert site.live == 0

    async def test_one_that_finishes_in_time_is_not_cut(self, tmp_path: Path) -> None:
        async with tunnel_site(tmp_path, drain="5s") as site:
            client = await site.connect()
            draining = asyncio.ensure_future(site.heim.proxy.drain())
            await client.until(lambda: client.goaway)
            client.end()
            await client.until(lambda: client.ended)
            client.goodbye()
            await client.over()
            assert client.reset is None
            async with asyncio.timeout(2):
                await draining


class TestWhatIsTold:
    async def test_one_line_in_the_access_log(self, site: TunnelSite) -> None:
        client = await site.connect()
        client.send(b"12345")
        await client.read(5)
        client.end()
        await client.until(lambda: client.ended)
        client.goodbye()
        await client.over()
        line = await site.line(client.readies[0]["request_id"])
        assert line["status"] == 101
        assert (line["bytes_in"], line["bytes_out"], line["end"]) == (5, 5, None)
        assert (line["user"], line["backend"]) == ("alice@example.com", "web1")
        assert (line["decision"], line["rule"]) == ("allow", "role ops: web1 tcp")
        assert line["upstream"] == f"tcp://{site.upstream.address}"
        assert line["path"] == "/.heim/tunnel/connect"
        assert line["duration_ms"] > 0

    async def test_audit_events_at_both_ends(
        self, site: TunnelSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, AUDIT_LOGGER)
        client = await site.connect()
        client.send(b"12345")
        await client.read(5)
        client.abort()
        await site.heim.until(lambda: any(r.message == "tunnel.closed" for r in caplog.records))
        told = {r.message: vars(r) for r in caplog.records if r.name == AUDIT_LOGGER}
        request_id = client.readies[0]["request_id"]
        for event in ("tunnel.opened", "tunnel.closed"):
            assert told[event]["user"] == "alice@example.com"
            assert told[event]["backend"] == "web1"
            assert told[event]["request_id"] == request_id
            assert site.login.session.sid.startswith(told[event]["session"])
            assert len(told[event]["session"]) == 6
            assert told[event]["client"] == "127.0.0.1"
        assert told["tunnel.closed"]["bytes_in"] == 5
        assert told["tunnel.closed"]["bytes_out"] == 5
        assert told["tunnel.closed"]["reason"] == "client_gone"

    async def test_the_token_is_nowhere_to_be_found(
        self, site: TunnelSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        token = site.login.token()
        client = await site.connect(token=token)
        client.auth(token)
        await client.until(lambda: len(client.readies) == 2)
        (stream,) = streams(site)
        assert token.encode() not in b"".join(stream._front.head.fields)
        client.abort()
        line = await site.line(client.readies[0]["request_id"])
        assert token not in str(line)
        assert not [r for r in caplog.records if token in str(vars(r))]
        assert not [r for r in caplog.records if site.login.session.sid in str(vars(r))]
