from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.edge.limits import (
    BODY_IDLE_S,
    HEAD_S,
    KEEP_ALIVE_S,
    LINGER_BYTES,
    LINGER_S,
    PIPELINE_BYTES,
    SESSION_LOAD_S,
    WRITE_STALL_S,
)
from heim_proxy.live import EndReason
from tests.unit.edge.heads import HOST, head_bytes
from tests.unit.edge.wires import OK, Theatre, answer, divided, theatre, turns


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as built:
        yield built


def status(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


def problem(data: bytes) -> str:
    """The code of a refusal."""
    code: str = json.loads(divided(data)[2])["code"]
    return code


class TestRequests:
    async def test_a_request_goes_up_and_its_answer_comes_down(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client, stage.request("/x?y"))
        line, fields, _ = divided(upstream.taken())
        assert line == "GET /x?y HTTP/1.1"
        assert "X-Auth-Id: alice@example.test" in fields
        assert not any("ookie" in field for field in fields)
        upstream.feed(answer(b"hello", "X-A: b"))
        line, fields, body = divided(client.wire.taken())
        assert (line, body) == ("HTTP/1.1 200 OK", b"hello")
        assert fields[0] == "X-A: b"
        assert fields[1].startswith("Date: ")
        assert fields[2:4] == ["Server: heim", "Content-Length: 5"]
        assert not client.wire.is_closing()

    async def test_date_and_server_of_an_answer_stay(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client, stage.request())
        upstream.feed(answer(b"hello", "date: then", "SERVER: theirs"))
        _, fields, _ = divided(client.wire.taken())
        assert fields[:3] == ["date: then", "SERVER: theirs", "Content-Length: 5"]

    async def test_a_head_may_come_byte_by_byte(self, stage: Theatre) -> None:
        client = stage.client()
        for byte in stage.request("/x"):
            client.wire.feed(bytes((byte,)))
        await turns()
        assert stage.upstream.last.taken().startswith(b"GET /x ")

    async def test_requests_of_one_connection_share_an_upstream_connection(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        for path in ("/1", "/2", "/3"):
            upstream = await stage.asked(client, stage.request(path))
            assert upstream.taken().startswith(f"GET {path} ".encode())
            upstream.feed(OK)
            assert status(client.wire.taken()) == 200
        assert stage.upstream.asked == 1

    async def test_pipelined_requests_are_answered_in_order_and_judged_alone(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        stranger = head_bytes("/2")
        data = stage.request("/1") + stranger + stage.request("/3")
        assert await client.send(data) == b""
        upstream = stage.upstream.last
        assert upstream.taken().count(b"GET ") == 1
        upstream.feed(OK)
        await turns()
        # The second is refused by itself, the third goes on.
        told = client.wire.taken()
        assert [status(part) for part in told.split(b"HTTP/1.1")[1:]] == [200, 401] or (
            told.count(b"HTTP/1.1 200") == 1 and told.count(b"HTTP/1.1 401") == 1
        )
        assert told.index(b" 200 ") < told.index(b" 401 ")
        assert upstream.taken().startswith(b"GET /3 ")

    async def test_a_head_that_is_refused_ends_the_connection(self, stage: Theatre) -> None:
        client = stage.client()
        told = await client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + stage.request())
        assert status(told) == 400
        assert "Connection: close" in divided(told)[1]
        assert await client.send(stage.request()) == b""
        assert stage.upstream.asked == 0

    async def test_requests_before_a_bad_one_are_served(self, stage: Theatre) -> None:
        client = stage.client()
        assert await client.send(stage.request() + b"BOO\r\n\r\n") == b""
        stage.upstream.last.feed(OK)
        await turns()
        told = client.wire.taken()
        assert told.index(b" 200 ") < told.index(b" 400 ")

    @pytest.mark.parametrize(
        ("version", "header", "kept"),
        [
            ("HTTP/1.1", None, True),
            ("HTTP/1.1", "Connection: close", False),
            ("HTTP/1.0", None, False),
            ("HTTP/1.0", "Connection: keep-alive", True),
        ],
    )
    async def test_the_connection_stays_as_the_client_asks(
        self, stage: Theatre, version: str, header: str | None, kept: bool
    ) -> None:
        client = stage.client()
        headers = (header,) if header else ()
        data = stage.request(version=version, headers=headers)
        upstream = await stage.asked(client, data)
        upstream.feed(OK)
        fields = divided(client.wire.taken())[1]
        assert ("Connection: close" in fields) is not kept
        assert ("Connection: keep-alive" in fields) is (kept and version == "HTTP/1.0")
        await turns()
        assert client.over is not kept

    async def test_a_refusal_keeps_the_connection_like_any_answer(self, stage: Theatre) -> None:
        client = stage.client()
        for _ in range(3):
            told = await client.send(stage.request("/x", who=False))
            assert (status(told), problem(told)) == (401, "sign_in_required")
            assert "Connection: close" not in divided(told)[1]
        closing = await client.send(stage.request(who=False, headers=("Connection: close",)))
        assert "Connection: close" in divided(closing)[1]
        await turns()
        assert client.over

    async def test_a_refused_head_request_has_no_body(self, stage: Theatre) -> None:
        client = stage.client()
        told = await client.send(stage.request(who=False, method="HEAD"))
        assert status(told) == 401
        assert divided(told)[2] == b""
        told = await client.send(stage.request(who=False))
        assert divided(told)[2]

    async def test_an_exception_in_a_decision_is_a_refusal(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            def judge(self, *args: object) -> object:
                raise RuntimeError("fell over")

        stage.edge.judge = Broken()  # type: ignore[assignment]
        client = stage.client()
        told = await client.send(stage.request())
        assert (status(told), problem(told)) == (500, "internal_error")
        assert b"fell over" not in told
        await turns()
        assert client.over
        assert stage.upstream.asked == 0
        assert stage.edge.metrics.rejected.read()["judge_failed"] == 1
        assert "request.judge_failed" in caplog.text


class TestBackPressure:
    async def test_pipelined_bytes_are_bounded(self, stage: Theatre) -> None:
        client = stage.client()
        await stage.asked(client)
        for _ in range(20):
            client.wire.feed(b"G" * 16 * 1024)
        assert not client.wire.reading
        assert len(client.front._buffer) <= PIPELINE_BYTES + 16 * 1024

    async def test_a_client_that_does_not_read_pauses_the_upstream(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        client.front.pause_writing()
        assert not upstream.reading
        client.front.resume_writing()
        assert upstream.reading

    async def test_a_client_that_does_not_read_gets_no_further_answers(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        client.front.pause_writing()
        assert await client.send(stage.request(who=False)) == b""
        client.front.resume_writing()
        await turns()
        assert status(client.wire.taken()) == 401

    async def test_a_client_that_does_not_read_cannot_fill_memory_with_requests(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        # The answer is complete, but the client's socket is full.
        client.front.pause_writing()
        upstream.reading = True
        upstream.feed(OK)
        await turns()
        assert client.front.exchange is None
        for _ in range(100):
            client.wire.feed(stage.request(who=False) * 100)
        held = len(client.front._buffer)
        assert held <= PIPELINE_BYTES + 64 * 1024
        assert not client.wire.reading

    async def test_a_slow_upstream_pauses_the_client(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(
            client, stage.request(method="POST", headers=("Content-Length: 1000000",))
        )
        upstream.protocol.pause_writing()
        assert not client.wire.reading
        upstream.protocol.resume_writing()
        assert client.wire.reading

    async def test_a_body_waits_within_a_bound_while_the_upstream_is_dialled(
        self, stage: Theatre
    ) -> None:
        import asyncio

        stage.upstream.hold = asyncio.Event()
        client = stage.client()
        head = stage.request(method="POST", headers=("Content-Length: 1000000",))
        await client.send(head)
        for _ in range(30):
            client.wire.feed(b"x" * 16 * 1024)
        assert not client.wire.reading
        stage.upstream.hold.set()
        await turns()
        sent = stage.upstream.last.taken()
        assert client.wire.reading
        assert divided(sent)[2].count(b"x") >= 64 * 1024


class TestDeadlines:
    async def test_an_idle_connection_is_closed_without_a_word(self, stage: Theatre) -> None:
        client = stage.client()
        client.late(KEEP_ALIVE_S - 1)
        assert not client.wire.is_closing()
        client.late(KEEP_ALIVE_S + 1)
        await turns()
        assert client.over
        assert client.wire.taken() == b""

    async def test_a_head_that_dribbles_in_is_408(self, stage: Theatre) -> None:
        client = stage.client()
        now = stage.edge.loop.time()
        client.wire.feed(b"GET / HTTP/1.1\r\n")
        client.front.check(now)
        for second in range(1, int(HEAD_S)):
            client.wire.feed(b"X-A: b\r\n")
            client.front.check(now + second)
        assert client.wire.taken() == b""
        client.wire.feed(b"X-A: b\r\n")
        client.front.check(now + HEAD_S + 1)
        assert status(client.wire.taken()) == 408

    async def test_an_upstream_that_does_not_answer_is_504_naming_the_setting(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        client.late(59)
        assert client.wire.taken() == b""
        client.late(61)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (504, "upstream_timeout")
        assert b"timeouts.first_byte" in told
        (failed,) = [one for one in caplog.records if one.message == "upstream.failed"]
        assert vars(failed)["upstream"] == "http://127.0.0.1:3000"
        assert vars(failed)["request_id"].encode() in told
        await turns()
        assert upstream.aborted

    async def test_an_upstream_that_does_not_connect_is_504(self, stage: Theatre) -> None:
        import asyncio

        stage.upstream.hold = asyncio.Event()
        client = stage.client()
        await client.send(stage.request())
        client.late(7)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (504, "upstream_connect_timeout")
        stage.upstream.hold.set()
        await turns()

    async def test_a_body_that_stops_is_408(self, stage: Theatre) -> None:
        client = stage.client()
        await stage.asked(client, stage.request(method="POST", headers=("Content-Length: 10",)))
        now = stage.edge.loop.time()
        client.front.check(now)
        client.wire.feed(b"x")
        client.front.check(now + BODY_IDLE_S - 1)
        client.front.check(now + BODY_IDLE_S + 1)
        assert client.wire.taken() == b""
        client.front.check(now + 2 * BODY_IDLE_S)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (408, "request_body_timeout")

    async def test_an_upstream_that_stops_reading_a_body_is_504(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = stage.client()
        data = stage.request(method="POST", headers=("Content-Length: 10",))
        upstream = await stage.asked(client, data)
        upstream.protocol.pause_writing()
        client.late(BODY_IDLE_S + 1)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (504, "upstream_stalled")
        assert "upstream.failed" in caplog.text

    async def test_an_answer_that_stops_is_cut_and_progress_renews_it(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        now = stage.edge.loop.time()
        client.front.check(now)
        for quarter in range(1, 9):
            upstream.feed(b"x")
            client.front.check(now + quarter * 800)
            assert not client.wire.aborted
        client.front.check(now + 8 * 800 + 901)
        assert client.wire.aborted
        await turns()
        assert upstream.aborted

    async def test_a_client_that_never_reads_is_dropped(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
        client.front.pause_writing()
        client.late(WRITE_STALL_S - 1)
        assert not client.wire.aborted
        client.late(WRITE_STALL_S + 1)
        assert client.wire.aborted
        await turns()
        assert upstream.aborted
        assert '"end":"client_stalled"' in stage.lines()[-1]


class TestLingering:
    async def test_what_comes_after_a_refusal_is_read_and_dropped(self, stage: Theatre) -> None:
        client = stage.client()
        head = stage.request(method="POST", who=False, headers=("Content-Length: 1000000",))
        told = await client.send(head + b"x" * 1000)
        assert status(told) == 401
        assert "Connection: close" in divided(told)[1]
        assert not client.wire.is_closing()
        assert await client.send(stage.request() * 3) == b""
        client.late(LINGER_S + 0.1)
        await turns()
        assert client.over
        assert not client.wire.aborted
        assert stage.upstream.asked == 0

    async def test_but_only_so_much_of_it(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(stage.request(method="POST", who=False, headers=("Content-Length: 9",)))
        for _ in range(LINGER_BYTES // 65536 + 1):
            assert not client.wire.aborted
            await client.send(b"x" * 65536)
        assert client.wire.aborted

    async def test_plain_connections_are_half_closed_meanwhile(self, stage: Theatre) -> None:
        client = stage.client(secure=False)
        told = await client.send(head_bytes(method="POST", headers=("Content-Length: 9",)))
        assert status(told) == 308
        assert client.wire.eof_written
        assert not client.wire.is_closing()

    async def test_expect_with_a_refusal_is_the_final_status(self, stage: Theatre) -> None:
        client = stage.client()
        headers = ("Content-Length: 5", "Expect: 100-continue")
        told = await client.send(stage.request(method="POST", who=False, headers=headers))
        assert told.startswith(b"HTTP/1.1 401 ")
        assert b"100" not in told.split(b"\r\n", 1)[0]


class TestSessionsThatMustBeLoaded:
    async def restarted(self, stage: Theatre) -> None:
        """The edge of a process that has just started."""
        after = await stage.stage.restarted()
        stage.edge.sessions = after.sessions
        stage.edge.swap(stage.edge.snapshot)

    async def test_the_request_waits_for_its_session(self, stage: Theatre) -> None:
        data = stage.request("/1") + stage.request("/2")
        await self.restarted(stage)
        client = stage.client()
        assert await client.send(data) == b""
        await turns(30)
        upstream = stage.upstream.last
        assert upstream.taken().startswith(b"GET /1 ")
        upstream.feed(OK)
        await turns()
        assert status(client.wire.taken()) == 200
        assert upstream.taken().startswith(b"GET /2 ")

    async def test_a_body_that_comes_meanwhile_is_kept(self, stage: Theatre) -> None:
        data = stage.request("/1", method="POST", headers=("Content-Length: 10",))
        await self.restarted(stage)
        client = stage.client()
        client.wire.feed(data + b"01234")
        client.wire.feed(b"56789")
        await turns(30)
        assert divided(stage.upstream.last.taken())[2] == b"0123456789"

    async def test_a_session_that_is_gone_is_anonymous(self, stage: Theatre) -> None:
        data = stage.request()
        await stage.stage.sessions.end(stage.alice.sid, EndReason.LOGOUT, stage.stage.now)
        await self.restarted(stage)
        client = stage.client()
        client.wire.feed(data)
        await turns(30)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (401, "sign_in_required")
        assert any("Max-Age=0" in field for field in divided(told)[1])

    async def test_without_the_store_it_is_503_and_not_200(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = stage.request()
        await self.restarted(stage)
        stage.stage.store.down = "disk on fire"
        client = stage.client()
        client.wire.feed(data)
        await turns(30)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (503, "session_store_unavailable")
        assert b"disk on fire" not in told
        assert stage.upstream.asked == 0
        assert stage.edge.metrics.store_errors.read()["load_session"] == 1

    async def test_a_client_that_leaves_meanwhile_is_forgotten(self, stage: Theatre) -> None:
        data = stage.request()
        await self.restarted(stage)
        client = stage.client()
        client.wire.feed(data)
        client.wire.hang_up()
        await turns(30)
        assert stage.upstream.asked == 0
        assert len(stage.stage.live) == 0

    async def test_a_store_that_hangs_ends_the_connection_in_time(self, stage: Theatre) -> None:
        data = stage.request()
        await self.restarted(stage)
        stage.stage.store.delay_s = 60.0
        client = stage.client()
        client.wire.feed(data)
        await turns()
        client.late(2 * SESSION_LOAD_S + 1)
        assert client.wire.aborted


class TestForwardedAddresses:
    @pytest.mark.parametrize(
        ("peer", "seen", "request_id"),
        [("10.0.0.1", "198.51.100.7", True), ("203.0.113.9", "203.0.113.9", False)],
        ids=["trusted", "anybody"],
    )
    async def test_only_trusted_proxies_are_believed(
        self, tmp_path: Path, peer: str, seen: str, request_id: bool
    ) -> None:
        async with theatre(tmp_path, trusted_proxies=["10.0.0.0/8"]) as stage:
            client = stage.client(ip=peer)
            headers = ("X-Forwarded-For: 198.51.100.7", "X-Request-Id: chosen-by-them")
            await client.send(stage.request(headers=headers))
            fields = divided(stage.upstream.last.taken())[1]
            assert [one for one in fields if "Forwarded-For" in one] == [f"X-Forwarded-For: {seen}"]
            assert ("X-Request-Id: chosen-by-them" in fields) is request_id
            # The next request of the same connection may be of somebody else.
            stage.upstream.last.feed(OK)
            await client.send(stage.request())
            fields = divided(stage.upstream.last.taken())[1]
            assert f"X-Forwarded-For: {peer}" in fields


class TestEnds:
    async def test_a_client_that_leaves_takes_its_exchange_along(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        assert len(stage.stage.live) == 1
        client.wire.hang_up()
        await turns()
        assert upstream.aborted
        assert len(stage.stage.live) == 0
        assert stage.edge.connections == 0
        assert '"end":"client_gone"' in stage.lines()[-1]

    async def test_a_half_closed_client_still_gets_its_answer_on_plain_http(
        self, tmp_path: Path
    ) -> None:
        async with theatre(tmp_path, public=True, allow_http=True) as stage:
            client = stage.client(secure=False)
            upstream = await stage.asked(client, head_bytes())
            assert client.front.eof_received()
            upstream.feed(OK)
            assert status(client.wire.taken()) == 200
            await turns()
            assert client.over

    async def test_eof_in_the_middle_of_a_request_closes(self, stage: Theatre) -> None:
        client = stage.client(secure=False)
        await client.send(b"GET / HT")
        assert not client.front.eof_received()

    async def test_draining_closes_idle_connections_and_lets_busy_ones_finish(
        self, stage: Theatre
    ) -> None:
        idle, busy = stage.client(), stage.client()
        upstream = await stage.asked(busy)
        stage.edge.draining = True
        idle.front.drain()
        busy.front.drain()
        await turns()
        assert (idle.over, busy.over) == (True, False)
        upstream.feed(OK)
        assert "Connection: close" in divided(busy.wire.taken())[1]
        await turns()
        assert busy.over

    async def test_closed_connections_give_their_place_back(self, stage: Theatre) -> None:
        left: list[int] = []

        class Place:
            def leave(self) -> None:
                left.append(1)

        client = stage.client()
        client.front.peer._place = Place()  # type: ignore[assignment]
        client.wire.hang_up()
        assert left == [1]

    async def test_an_idle_connection_holds_no_request(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client, stage.request("/secret"))
        upstream.feed(OK)
        head = client.front.head
        assert (head.target.path, head.fields, head.host) == (b"", [], None)
        assert client.front._buffer == b""


async def test_the_portal_is_told_in_reserved_headers(stage: Theatre) -> None:
    client = stage.client()
    data = stage.request("/.heim/me", headers=("X-Heim-Session: forged", "x_heim_host: forged"))
    assert await client.send(data) == b""
    line, fields, _ = divided(stage.portal.last.taken())
    assert line == "GET /.heim/me HTTP/1.1"
    heim = {field for field in fields if field.lower().startswith(("x-heim", "x_heim"))}
    request_id = next(one for one in heim if one.startswith("X-Heim-Request"))
    assert heim == {
        f"X-Heim-Host: {HOST}",
        "X-Heim-Surface: backend",
        "X-Heim-Client: 203.0.113.9",
        "X-Heim-Scheme: https",
        "X-Heim-Backend: app",
        request_id,
    }
    # It, and only it, gets the whole Cookie header, and may set our cookies.
    assert any(field.startswith("Cookie: __Host-heim=") for field in fields)
    stage.portal.last.feed(answer(b"", "Set-Cookie: __Host-heim=new; Path=/"))
    assert "Set-Cookie: __Host-heim=new; Path=/" in divided(client.wire.taken())[1]
    assert stage.upstream.asked == 0


async def test_the_access_log_says_what_happened(stage: Theatre) -> None:
    client = stage.client()
    await client.send(stage.request("/x?q=1", who=False))
    upstream = await stage.asked(client, stage.request("/y?q=2"))
    upstream.feed(answer(b"hello"))
    await client.send(b"nonsense\r\n\r\n")
    first, second, third = (json.loads(line) for line in stage.lines())
    assert (first["status"], first["decision"]) == (401, "deny:sign_in_required")
    assert (second["status"], second["decision"], second["user"]) == (
        200,
        "allow",
        "alice@example.test",
    )
    assert (second["path"], second["bytes_out"], second["backend"]) == ("/y?q=2", 5, "app")
    assert (third["status"], third["decision"]) == (400, "deny:bad_request")
