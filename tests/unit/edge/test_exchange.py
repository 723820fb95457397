from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.edge.limits import INTERIM_RESPONSES, POOL_FRESH_S, RESPONSE_HEADER_BYTES
from heim_proxy.live import EndReason
from tests.fakes.snapshots import app, configured, snapshot
from tests.unit.edge.heads import HOST
from tests.unit.edge.wires import OK, Client, Theatre, answer, divided, theatre, turns

OWN = f"Origin: https://{HOST}"
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
    OWN,
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as built:
        yield built


def status(data: bytes) -> int:
    return int(data.split(b" ", 2)[1])


def problem(data: bytes) -> str:
    code: str = json.loads(divided(data)[2])["code"]
    return code


async def answered(
    stage: Theatre, reply: bytes, *more: bytes, request: bytes | None = None, close: bool = False
) -> tuple[bytes, Client]:
    """What a client is told when the upstream answers so; and the client."""
    client = stage.client()
    upstream = await stage.asked(client, request)
    for part in (reply, *more):
        upstream.feed(part)
        await turns(2)
    if close:
        upstream.hang_up()
        await turns()
    return client.wire.taken(), client


class TestFraming:
    @pytest.mark.parametrize(
        ("reply", "framing", "body"),
        [
            pytest.param(OK, ["Content-Length: 2"], b"ok", id="length"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ["Content-Length: 0"], b"",
                id="empty",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"2;x=y\r\nok\r\n0\r\nX-Auth-Id: root\r\n\r\n",
                ["Transfer-Encoding: chunked"], b"2\r\nok\r\n0\r\n\r\n", id="chunked",
            ),
            pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", [], b"", id="204"),
            pytest.param(
                b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", [], b"",
                id="204 has no length (RFC 9110, 8.6)",
            ),
            pytest.param(b"HTTP/1.1 304 Not Modified\r\n\r\n", [], b"", id="304"),
            pytest.param(
                b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
                ["Content-Length: 99"], b"", id="304 may tell the length",
            ),
        ],
    )  # fmt: skip
    async def test_an_answer_keeps_its_framing_and_its_connection(
        self, stage: Theatre, reply: bytes, framing: list[str], body: bytes
    ) -> None:
        told, client = await answered(stage, reply)
        fields = divided(told)[1]
        assert [one for one in fields if one.startswith(("Content-L", "Transfer"))] == framing
        assert divided(told)[2] == body
        # Both connections go on.
        assert await client.send(stage.request("/2")) == b""
        assert stage.upstream.asked == 1
        assert stage.upstream.last.taken().count(b"GET /2 ") == 1

    @pytest.mark.parametrize("split", range(1, 60, 7))
    async def test_an_answer_may_come_in_any_pieces(self, stage: Theatre, split: int) -> None:
        reply = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n3\r\nyes\r\n0\r\n\r\n"
        )
        pieces = [reply[at : at + split] for at in range(0, len(reply), split)]
        told, _ = await answered(stage, *pieces)
        assert divided(told)[2] == b"2\r\nok\r\n3\r\nyes\r\n0\r\n\r\n"
        assert len(stage.stage.live) == 0

    async def test_an_answer_that_ends_with_its_connection_is_chunked_for_the_client(
        self, stage: Theatre
    ) -> None:
        told, client = await answered(stage, b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo", close=True)
        assert "Transfer-Encoding: chunked" in divided(told)[1]
        assert divided(told)[2] == b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
        assert not client.over

    async def test_for_http_1_0_clients_the_connection_is_the_end(self, stage: Theatre) -> None:
        old = stage.request(version="HTTP/1.0", headers=("Connection: keep-alive",))
        told, client = await answered(
            stage,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            request=old,
        )
        assert "Connection: close" in divided(told)[1]
        assert not any("Transfer" in field for field in divided(told)[1])
        assert divided(told)[2] == b"ok"
        await turns()
        assert client.over

    async def test_an_answer_to_head_has_headers_only(self, stage: Theatre) -> None:
        head = stage.request(method="HEAD")
        told, client = await answered(
            stage, b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", request=head
        )
        assert "Content-Length: 999" in divided(told)[1]
        assert divided(told)[2] == b""
        await stage.asked(client)
        assert stage.upstream.asked == 1

    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(OK + b"HTTP/1.1 200 OK\r\n\r\nevil", id="more than its length"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200",
                id="more than its chunks",
            ),
            pytest.param(b"HTTP/1.1 304 Not Modified\r\n\r\nevil", id="body of a 304"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", id="close"
            ),
            pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/1.0"),
        ],
    )
    async def test_a_connection_that_is_out_of_step_is_not_used_again(
        self, stage: Theatre, reply: bytes
    ) -> None:
        told, client = await answered(stage, reply)
        assert b"evil" not in told
        assert status(told) in (200, 304)
        await turns()
        assert stage.upstream.last.lost
        await client.send(stage.request())
        assert stage.upstream.asked == 2

    @pytest.mark.parametrize(
        ("first", "more"),
        [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab", b"cdevil"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", b"0\r\n\r\nevil"),
        ],
        ids=["length", "chunks"],
    )
    async def test_so_is_one_that_falls_out_of_step_later(
        self, stage: Theatre, first: bytes, more: bytes
    ) -> None:
        told, _ = await answered(stage, first, more)
        assert b"ab" in told
        assert b"evil" not in told
        await turns()
        assert stage.upstream.last.lost

    async def test_bytes_that_nobody_asked_for_end_an_idle_connection(self, stage: Theatre) -> None:
        _, client = await answered(stage, OK)
        stage.upstream.last.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await turns()
        assert stage.upstream.last.aborted
        upstream = await stage.asked(client)
        assert upstream is stage.upstream.made[1]
        upstream.feed(OK)
        assert b"evil" not in client.wire.taken()


class TestBadAnswers:
    @pytest.mark.parametrize(
        "reply",
        [
            pytest.param(b"hello\r\n\r\n", id="HTTP/0.9"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                id="CL+TE",
            ),
            pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", id="bare LF"),
            pytest.param(
                b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", id="204 with a body"
            ),
            pytest.param(
                b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
                id="204 with chunks",
            ),
            pytest.param(SWITCH, id="F19 101 nobody asked for"),
            pytest.param(
                b"HTTP/1.1 103 Early Hints\r\n\r\n" * (INTERIM_RESPONSES + 1), id="1xx storm"
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nA: " + b"x" * RESPONSE_HEADER_BYTES + b"\r\n\r\n",
                id="long head",
            ),
            pytest.param(b"x" * (RESPONSE_HEADER_BYTES + 1), id="head without end"),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", id="bad chunk"
            ),
        ],
    )
    async def test_it_is_502_and_the_connection_goes(
        self, stage: Theatre, reply: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        told, client = await answered(stage, reply)
        last = told[told.rindex(b"HTTP/1.1 ") :]
        assert (status(last), problem(last)) == (502, "upstream_bad_answer")
        assert b"evil" not in told
        await turns()
        assert stage.upstream.last.aborted
        assert not client.over
        assert "upstream.failed" in caplog.text

    async def test_an_answer_that_breaks_after_its_head_is_cut(self, stage: Theatre) -> None:
        told, client = await answered(
            stage, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"xyz\r\n"
        )
        assert status(told) == 200
        assert not told.endswith(b"0\r\n\r\n")
        assert client.wire.aborted
        assert '"end":"upstream_broken"' in stage.lines()[-1]

    @pytest.mark.parametrize(
        "reply",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        ],
        ids=["length", "chunked"],
    )
    async def test_an_upstream_that_dies_mid_answer_is_noticed_by_the_client(
        self, stage: Theatre, reply: bytes
    ) -> None:
        told, client = await answered(stage, reply, close=True)
        assert b"half" in told
        assert not told.endswith(b"0\r\n\r\n")
        assert client.wire.aborted
        assert '"end":"upstream_died"' in stage.lines()[-1]

    async def test_an_upstream_that_breaks_an_answer_without_length_is_noticed_too(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        upstream.hang_up(ConnectionResetError("reset"))
        await turns()
        assert client.wire.aborted

    @pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-"], ids=["none", "half"])
    async def test_an_upstream_that_closes_before_its_answer_is_502(
        self, stage: Theatre, reply: bytes
    ) -> None:
        told, client = await answered(stage, *([reply] if reply else [b""]), close=True)
        assert (status(told), problem(told)) == (502, "upstream_closed")
        assert not client.over


class TestInterimAnswers:
    async def test_they_are_passed_on_to_those_who_know_them(self, stage: Theatre) -> None:
        told, _ = await answered(
            stage, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 100 X\r\n\r\n" + OK
        )
        # A 100 that nobody asked the upstream for ends here.
        assert told.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")

    async def test_http_1_0_clients_do_not_see_them(self, stage: Theatre) -> None:
        told, _ = await answered(
            stage, b"HTTP/1.1 103 X\r\n\r\n" + OK, request=stage.request(version="HTTP/1.0")
        )
        assert told.startswith(b"HTTP/1.1 200 OK")


class TestBodies:
    async def test_a_body_of_known_length_goes_up_as_it_comes(self, stage: Theatre) -> None:
        client = stage.client()
        head = stage.request("/up", method="POST", headers=("Content-Length: 10",))
        upstream = await stage.asked(client, head + b"01")
        assert divided(upstream.taken())[2] == b"01"
        await client.send(b"2345")
        assert upstream.taken() == b"2345"
        await client.send(b"6789" + stage.request("/next"))
        assert upstream.taken() == b"6789"
        upstream.feed(OK)
        await turns()
        assert status(client.wire.taken()) == 200
        assert upstream.taken().startswith(b"GET /next ")

    async def test_a_chunked_body_is_framed_anew_and_its_trailers_stay_here(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        head = stage.request(method="PUT", headers=("Transfer-Encoding: chunked",))
        upstream = await stage.asked(client, head + b"3;x=y\r\nab")
        await client.send(b"c\r\n0\r\nX-Auth-Id: root\r\n\r\n" + stage.request("/next"))
        _, fields, body = divided(upstream.taken())
        assert "Transfer-Encoding: chunked" in fields
        assert body == b"3\r\nabc\r\n0\r\n\r\n"
        upstream.feed(OK)
        await turns()
        assert upstream.taken().startswith(b"GET /next ")

    @pytest.mark.parametrize("early", [True, False], ids=["with the head", "later"])
    async def test_a_body_that_breaks_its_framing_is_400_and_the_upstream_is_dropped(
        self, stage: Theatre, early: bool
    ) -> None:
        client = stage.client()
        head = stage.request(method="PUT", headers=("Transfer-Encoding: chunked",))
        if early:
            told = await client.send(head + b"zz\r\n")
            assert stage.upstream.asked == 0
        else:
            upstream = await stage.asked(client, head + b"3\r\nabc\r\n")
            told = await client.send(b"zz\r\n")
            assert upstream.aborted
        assert (status(told), problem(told)) == (400, "bad_request")
        assert "Connection: close" in divided(told)[1]
        assert await client.send(stage.request()) == b""

    async def test_an_answer_before_the_body_ends_the_connection(self, stage: Theatre) -> None:
        client = stage.client()
        head = stage.request(method="POST", headers=("Content-Length: 10",))
        upstream = await stage.asked(client, head + b"01")
        upstream.feed(answer(b"no", status="413 Content Too Large"))
        await turns()
        told = client.wire.taken()
        assert status(told) == 413
        assert "Connection: close" in divided(told)[1]
        # F22: what is still to come must not become somebody's request.
        assert upstream.aborted
        assert await client.send(b"23456789" + stage.request()) == b""
        assert stage.upstream.asked == 1

    async def test_a_client_that_leaves_mid_body_takes_the_upstream_along(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        head = stage.request(method="POST", headers=("Content-Length: 10",))
        upstream = await stage.asked(client, head + b"01")
        client.wire.hang_up()
        await turns()
        assert upstream.aborted
        assert len(stage.edge._pools[next(iter(stage.edge._pools))]) == 0


class TestRetries:
    async def warmed(self, stage: Theatre) -> Client:
        """A client after one request: an upstream connection is idle."""
        _, client = await answered(stage, OK)
        return client

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    async def test_a_connection_that_went_stale_is_replaced_once(
        self, stage: Theatre, method: str
    ) -> None:
        client = await self.warmed(stage)
        upstream = await stage.asked(client, stage.request("/again", method=method))
        upstream.hang_up()
        await turns()
        second = stage.upstream.made[1]
        assert second.taken().startswith(f"{method} /again ".encode())
        assert client.wire.taken() == b""
        second.hang_up()
        await turns()
        assert status(client.wire.taken()) == 502
        assert stage.upstream.asked == 2

    async def test_a_retry_sends_the_same_head(self, stage: Theatre) -> None:
        client = await self.warmed(stage)
        first = await stage.asked(client, stage.request("/again"))
        sent = first.taken()[-2000:]
        first.hang_up()
        await turns()
        assert sent.endswith(stage.upstream.made[1].taken())

    async def test_a_new_connection_that_closes_is_not_retried(self, stage: Theatre) -> None:
        told, _ = await answered(stage, b"", close=True)
        assert status(told) == 502
        assert stage.upstream.asked == 1

    @pytest.mark.parametrize(
        "keys",
        [
            {"method": "POST"},
            {"method": "DELETE"},
            {"method": "GET", "headers": ("Content-Length: 2",)},
        ],
        ids=["POST", "DELETE", "GET with a body"],
    )
    async def test_what_may_not_be_repeated_is_not(
        self, stage: Theatre, keys: dict[str, Any]
    ) -> None:
        client = await self.warmed(stage)
        upstream = await stage.asked(client, stage.request("/x", **keys))
        assert upstream is stage.upstream.made[0]
        upstream.hang_up()
        await turns()
        assert status(client.wire.taken()) == 502
        assert stage.upstream.asked == 1

    async def test_nor_is_what_has_been_answered_in_part(self, stage: Theatre) -> None:
        client = await self.warmed(stage)
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        upstream.hang_up()
        await turns()
        assert client.wire.taken().count(b"HTTP/1.1 502") == 1
        assert stage.upstream.asked == 1

    async def test_what_may_not_be_repeated_takes_only_a_fresh_connection(
        self, stage: Theatre
    ) -> None:
        client = await self.warmed(stage)
        (pool,) = stage.edge._pools.values()
        pool._idle[0].idle_since -= POOL_FRESH_S + 1
        await stage.asked(client, stage.request(method="POST"))
        assert stage.upstream.asked == 2


class TestSeveralUpstreams:
    async def test_requests_are_spread_and_a_dead_one_is_passed_over(self, tmp_path: Path) -> None:
        async with theatre(tmp_path, upstreams=3) as stage:
            clients = [stage.client() for _ in range(6)]
            for client in clients:
                await client.send(stage.request())
            assert [one.asked for one in stage.upstreams] == [2, 2, 2]
            stage.upstreams[0].refuse = "connection refused"
            for client in (stage.client() for _ in range(6)):
                await client.send(stage.request())
                assert client.wire.taken() == b""
            made = [len(one.made) for one in stage.upstreams]
            assert made[0] == 2
            assert sum(made) == 12

    async def test_when_all_are_dead_it_is_502_with_the_last_reason(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with theatre(tmp_path, upstreams=2) as stage:
            for one in stage.upstreams:
                one.refuse = "connection refused"
            told = await stage.client().send(stage.request())
            assert (status(told), problem(told)) == (502, "upstream_unreachable")
            assert b"connection refused" in told
            assert [one.asked for one in stage.upstreams] == [1, 1]
            assert caplog.text.count("upstream.failed") == 2

    async def test_idle_connections_take_turns(self, tmp_path: Path) -> None:
        async with theatre(tmp_path, upstreams=2) as stage:
            client = stage.client()
            for one in (client, stage.client()):
                await one.send(stage.request())
            for dialled in stage.upstreams:
                dialled.last.taken()
                dialled.last.feed(OK)
            served = []
            for _ in range(4):
                await client.send(stage.request())
                (busy,) = [one for one in stage.upstreams if one.last.taken()]
                served.append(stage.upstreams.index(busy))
                busy.last.feed(OK)
                await turns()
            assert served in ([0, 1, 0, 1], [1, 0, 1, 0])
            assert [one.asked for one in stage.upstreams] == [1, 1]


class TestUpgrades:
    async def opened(self, stage: Theatre, **keys: object) -> Client:
        client = stage.client()
        upstream = await stage.asked(client, stage.request(headers=WEBSOCKET))
        _, fields, _ = divided(upstream.taken())
        assert "Connection: Upgrade" in fields
        assert "Upgrade: websocket" in fields
        (name,) = (one.partition(": ")[2] for one in fields if one.startswith("X-Request-Id"))
        upstream.feed(SWITCH)
        await turns()
        line, fields, _ = divided(client.wire.taken())
        assert line == "HTTP/1.1 101 Switching Protocols"
        assert fields == ["Connection: Upgrade", "Upgrade: websocket"] or {
            "Connection: Upgrade", "Upgrade: websocket",
        } <= set(fields)  # fmt: skip
        assert f"X-Request-Id: {name}" in fields
        return client

    async def test_after_101_bytes_pass_both_ways(self, stage: Theatre) -> None:
        client = await self.opened(stage)
        upstream = stage.upstream.last
        await client.send(b"\x81\x80\x00\x00\x00\x00GET / HTTP/1.1\r\n\r\n")
        assert upstream.taken() == b"\x81\x80\x00\x00\x00\x00GET / HTTP/1.1\r\n\r\n"
        upstream.feed(b"\x81\x02hi")
        assert client.wire.taken() == b"\x81\x02hi"
        assert len(stage.stage.live) == 1

    async def test_frames_that_came_with_the_101_are_not_lost(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client, stage.request(headers=WEBSOCKET))
        upstream.feed(SWITCH + b"\x81\x02hi")
        assert client.wire.taken().endswith(b"\r\n\r\n\x81\x02hi")

    async def test_frames_that_came_before_the_101_wait_for_it(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client, stage.request(headers=WEBSOCKET) + b"early")
        assert not upstream.taken().endswith(b"early")
        upstream.feed(SWITCH)
        assert upstream.taken() == b"early"

    async def test_an_upgrade_that_is_declined_is_an_answer_and_what_follows_is_nobodys(
        self, stage: Theatre
    ) -> None:
        client = stage.client()
        evil = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        upstream = await stage.asked(client, stage.request(headers=WEBSOCKET) + evil)
        upstream.taken()
        upstream.feed(answer(b"no", status="403 Forbidden"))
        await turns()
        told = client.wire.taken()
        assert status(told) == 403
        assert "Connection: close" in divided(told)[1]
        assert upstream.taken() == b""
        assert b"smuggled" not in b"".join(wire.written for wire in stage.upstream.made)

    @pytest.mark.parametrize(
        "reply",
        [
            SWITCH.replace(b"websocket", b"h2c"),
            SWITCH.replace(
                b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
            ),
        ],
        ids=["another protocol", "extension nobody offered"],
    )
    async def test_a_switch_to_something_else_is_502(self, stage: Theatre, reply: bytes) -> None:
        told, _ = await answered(stage, reply, request=stage.request(headers=WEBSOCKET))
        assert status(told) == 502
        assert stage.upstream.last.aborted

    @pytest.mark.parametrize("side", ["client", "upstream"])
    async def test_when_one_side_closes_so_does_the_other(self, stage: Theatre, side: str) -> None:
        client = await self.opened(stage)
        upstream = stage.upstream.last
        (client.wire if side == "client" else upstream).hang_up()
        await turns()
        assert client.over
        assert upstream.lost
        assert len(stage.stage.live) == 0

    @pytest.mark.parametrize(
        ("reason", "frame"),
        [
            (EndReason.REVOKED, b"\x11\x31heim: revoked"),
            (EndReason.SHUTDOWN, b"\x03\xe9heim: shutdown"),
        ],
    )
    async def test_its_end_is_told_in_a_close_frame(
        self, stage: Theatre, reason: EndReason, frame: bytes
    ) -> None:
        client = await self.opened(stage)
        upstream = stage.upstream.last
        upstream.feed(b"\x81\x02hi")
        client.wire.taken()
        stage.stage.live.review(lambda _: reason)
        assert client.wire.taken() == bytes((0x88, len(frame))) + frame
        goodbye = upstream.taken()
        assert goodbye[:1] == b"\x88"
        assert goodbye[1] & 0x80
        await turns()
        assert client.over
        assert upstream.lost
        assert f'"end":"{reason.value}"' in stage.lines()[-1]

    async def test_in_the_middle_of_a_frame_the_goodbye_waits_for_its_end(
        self, stage: Theatre
    ) -> None:
        client = await self.opened(stage)
        upstream = stage.upstream.last
        upstream.feed(b"\x82\x04ab")
        client.wire.taken()
        stage.stage.live.review(lambda _: EndReason.REVOKED)
        assert client.wire.taken() == b""
        upstream.feed(b"cd\x81\x02xx")
        told = client.wire.taken()
        assert told.startswith(b"cd")
        assert b"\x88\x0f\x11\x31heim: revoked" in told
        await turns()
        assert client.over

    async def test_but_not_for_long(self, stage: Theatre) -> None:
        client = await self.opened(stage)
        stage.upstream.last.feed(b"\x82\x04ab")
        stage.stage.live.review(lambda _: EndReason.REVOKED)
        client.late(1.5)
        assert client.wire.aborted

    async def test_a_silent_one_ends_with_a_close_frame(self, stage: Theatre) -> None:
        client = await self.opened(stage)
        client.late(901)
        assert client.wire.taken() == b"\x88\x0f\x03\xe9idle for 900s"
        await turns()
        assert client.over


class TestWithdrawnDecisions:
    async def test_before_the_answer_it_is_a_refusal(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        await stage.stage.sessions.end(stage.alice.sid, EndReason.REVOKED, stage.stage.now)
        told = client.wire.taken()
        assert (status(told), problem(told)) == (401, "revoked")
        await turns()
        assert upstream.aborted

    async def test_in_the_middle_of_it_the_answer_is_cut(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.feed(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        await stage.stage.sessions.end(stage.alice.sid, EndReason.LOGOUT, stage.stage.now)
        assert client.wire.aborted
        assert not client.wire.taken().endswith(b"0\r\n\r\n")
        await turns()
        assert upstream.aborted
        assert '"end":"logout"' in stage.lines()[-1]

    async def test_while_it_is_dialled_nothing_is_sent_up(self, stage: Theatre) -> None:
        stage.upstream.hold = asyncio.Event()
        client = stage.client()
        await client.send(stage.request())
        await stage.stage.sessions.end(stage.alice.sid, EndReason.REVOKED, stage.stage.now)
        assert status(client.wire.taken()) == 401
        stage.upstream.hold.set()
        await turns()
        assert stage.upstream.last.taken() == b""

    async def test_an_expired_session_ends_what_runs_under_it(self, stage: Theatre) -> None:
        client = stage.client()
        await stage.asked(client)
        assert stage.stage.live.expire(stage.alice.expires - 1) == 0
        assert stage.stage.live.expire(stage.alice.expires) == 1
        assert status(client.wire.taken()) == 401

    async def test_a_page_that_wants_a_fresh_sign_in_says_so(self, tmp_path: Path) -> None:
        async with theatre(tmp_path, max_session_age="1h") as stage:
            client = stage.client()
            await stage.asked(client)
            stage.stage.clock.time += 3601
            assert stage.stage.live.expire(stage.stage.now) == 1
            told = client.wire.taken()
            assert (status(told), problem(told)) == (401, "session_too_old")

    async def test_a_new_configuration_ends_what_it_no_longer_allows(self, stage: Theatre) -> None:
        client, other = stage.client(), stage.client()
        upstream = await stage.asked(client)
        await stage.asked(other)
        upstream.feed(b"HTTP/1.1 200 OK\r\n\r\n")
        stage.edge.swap(snapshot(configured([app()], []), generation=2))
        assert client.wire.aborted
        told = other.wire.taken()
        assert (status(told), problem(told)) == (403, "policy_changed")
        assert len(stage.stage.live) == 0

    async def test_and_leaves_alone_what_it_still_allows(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        built = stage.edge.snapshot
        stage.edge.swap(built)
        upstream.feed(OK)
        assert status(client.wire.taken()) == 200
