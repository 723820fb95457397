from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.access.policy import Allow
from heim_proxy.edge.connection import Front
from heim_proxy.edge.dial import AgentDialError
from heim_proxy.edge.record import Streamed
from heim_proxy.edge.responses import Refusal
from heim_proxy.live import EndReason
from heim_proxy.observe.audit import AUDIT_LOGGER
from heim_wire.errors import Code
from tests.fakes.sessions import BOB
from tests.fakes.snapshots import app, configured, role, snapshot
from tests.unit.edge.heads import HOST, head_bytes
from tests.unit.edge.wires import OK, Theatre, answer, theatre, turns

PREFLIGHT = ("Origin: https://friend.test", "Access-Control-Request-Method: GET")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Theatre]:
    async with theatre(tmp_path) as built:
        yield built


def entries(stage: Theatre) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stage.lines()]


async def served(stage: Theatre, data: bytes, reply: bytes = OK) -> dict[str, Any]:
    """The log line of one request."""
    client = stage.client()
    await client.send(data)
    for dialled in (*stage.upstreams, stage.portal):
        if dialled.made and not dialled.last.lost:
            dialled.last.feed(reply)
    await turns()
    return entries(stage)[-1]


class TestAccessLog:
    async def test_a_forwarded_request_is_told_whole(self, stage: Theatre) -> None:
        data = stage.request("/a/../b?c=d", method="POST", headers=("Content-Length: 3",)) + b"xyz"
        line = await served(stage, data, answer(b"hello", status="201 Created"))
        assert line["method"] == "POST"
        assert line["path"] == "/a/../b?c=d"
        assert (line["status"], line["bytes_in"], line["bytes_out"]) == (201, 3, 5)
        assert (line["client"], line["host"], line["user"]) == (
            "203.0.113.9", HOST, "alice@example.test",
        )  # fmt: skip
        assert (line["backend"], line["decision"]) == ("app", "allow")
        assert line["rule"] == "role everything: app/all any /"
        assert line["upstream"] == "http://127.0.0.1:3000"
        assert (line["protocol"], line["end"]) == ("HTTP/1.1", None)
        assert line["duration_ms"] >= line["upstream_ms"] >= 0

    async def test_each_request_of_a_connection_is_told_as_it_was(self, stage: Theatre) -> None:
        client = stage.client()
        for version, path in (("HTTP/1.1", "/1"), ("HTTP/1.0", "/2"), ("HTTP/1.1", "/3")):
            keep = ("Connection: keep-alive",)
            await client.send(stage.request(path, version=version, headers=keep))
            stage.upstream.last.feed(OK)
            await turns()
        told = [(one["path"], one["protocol"]) for one in entries(stage)]
        assert told == [("/1", "HTTP/1.1"), ("/2", "HTTP/1.0"), ("/3", "HTTP/1.1")]

    async def test_the_trace_that_a_caller_names_is_told_for_its_request_alone(
        self, stage: Theatre
    ) -> None:
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        valid = f"Traceparent: 00-{trace}-00f067aa0ba902b7-01"
        for headers in ((valid,), (), (valid[:-1],), (f"{valid}-more",)):
            for who in (True, False):
                line = await served(stage, stage.request(headers=headers, who=who))
                assert line.get("trace_id") == (trace if headers == (valid,) else None)
                assert line["status"] == (200 if who else 401)
                assert "client" in line

    @pytest.mark.parametrize(
        ("asked", "secure", "status"),
        [
            pytest.param(head_bytes(headers=("Accept: text/html",)), True, 303, id="sign in"),
            pytest.param(head_bytes(), False, 308, id="to https"),
            pytest.param(head_bytes(), True, 401, id="refused"),
            pytest.param(
                head_bytes(method="OPTIONS", headers=PREFLIGHT), True, 204, id="preflight"
            ),
        ],
    )
    async def test_the_id_of_a_line_is_in_the_answer(
        self, tmp_path: Path, asked: bytes, secure: bool, status: int
    ) -> None:
        async with theatre(tmp_path, cors={"allow_origins": ["https://friend.test"]}) as stage:
            told = await stage.client(secure=secure).send(asked)
            (line,) = entries(stage)
        assert line["status"] == status
        assert told.count(b"\r\nX-Request-Id: %b\r\n" % line["id"].encode()) == 1
        assert told.count(b"\r\nDate: ") == 1

    async def test_two_people_on_one_connection_are_told_apart(self, stage: Theatre) -> None:
        built = snapshot(configured(
            [app(http=[{"path": "/", "upstream": "http://127.0.0.1:3000"}])],
            [role("all", "app/all", members=[
                {"user": "alice@example.test"},
                {"issuer": "https://idp.example.test", "subject": "1002"},
            ])],
        ), generation=2)  # fmt: skip
        stage.edge.swap(built)
        bob = await stage.stage.sign_in(BOB)
        cookie = stage.stage.cookie(bob, HOST).decode()
        client = stage.client()
        for data in (
            stage.request(),
            head_bytes(headers=(f"Cookie: __Host-heim={cookie}",)),
            stage.request(),
        ):
            await client.send(data)
            stage.upstream.last.feed(OK)
            await turns()
        assert [one["user"] for one in entries(stage)] == [
            "alice@example.test", "1002", "alice@example.test",
        ]  # fmt: skip

    async def test_an_end_is_told_once_and_not_again(self, stage: Theatre) -> None:
        client = stage.client()
        upstream = await stage.asked(client)
        upstream.hang_up()
        await turns()
        await stage.asked(client)
        stage.upstream.last.feed(OK)
        await turns()
        first, second = entries(stage)
        assert (first["status"], first["end"]) == (502, "upstream_closed")
        assert (second["status"], second["end"]) == (200, None)

    async def test_a_client_that_left_has_no_status(self, stage: Theatre) -> None:
        client = stage.client()
        await stage.asked(client)
        client.wire.hang_up()
        await turns()
        (line,) = entries(stage)
        assert (line["status"], line["end"]) == (0, "client_gone")

    async def test_queries_under_our_prefix_are_secrets(self, stage: Theatre) -> None:
        line = await served(stage, head_bytes("/.heim/handoff?t=secret-ticket"), answer(b""))
        assert "secret-ticket" not in json.dumps(line)
        assert line["path"].startswith("/.heim/handoff")
        assert (line["backend"], line["decision"], line["user"]) == (None, "portal", None)

    @pytest.mark.parametrize(
        "target", ["/x?token=secret", "/%ff?token=secret", "/.heim/../x?token=secret"]
    )
    async def test_queries_of_refused_requests_are_not_told(
        self, stage: Theatre, target: str
    ) -> None:
        await stage.client().send(head_bytes(target))
        assert "secret" not in stage.lines()[-1]

    async def test_what_is_public_says_so(self, tmp_path: Path) -> None:
        async with theatre(tmp_path, public=True) as stage:
            line = await served(stage, stage.request("/x"))
            assert (line["decision"], line["user"]) == ("public", None)

    async def test_redirects_and_preflights_are_decisions(self, tmp_path: Path) -> None:
        async with theatre(tmp_path, cors={"allow_origins": ["https://a.test"]}) as stage:
            client = stage.client()
            await client.send(head_bytes(headers=("Accept: text/html",)))
            asks = ("Origin: https://a.test", "Access-Control-Request-Method: GET")
            await client.send(head_bytes(method="OPTIONS", headers=asks))
            await stage.client(secure=False).send(head_bytes())
            told = [(one["status"], one["decision"]) for one in entries(stage)]
            assert told == [(303, "anonymous"), (204, "preflight"), (308, "https")]

    async def test_nothing_a_client_sends_can_end_a_line(self, stage: Theatre) -> None:
        target = '/"\\u000a{}<>' + "x" * 3000
        await stage.client().send(head_bytes(target.replace("\\", "%5B")))
        (line,) = stage.lines()
        assert json.loads(line)["path"].startswith('/"')


class TestMetrics:
    async def test_requests_are_counted_by_backend_and_class(self, stage: Theatre) -> None:
        await served(stage, stage.request())
        await served(stage, stage.request(), answer(b"", status="404 Not Found"))
        stats = stage.edge.metrics.backend("app")
        assert stats.classes == [0, 0, 1, 0, 1, 0]
        assert stats.down == 2

    async def test_the_portal_is_no_backend(self, stage: Theatre) -> None:
        await served(stage, head_bytes("/.heim/me"), answer(b""))
        assert not stage.edge.metrics.backend("app").classes[2]

    async def test_refusals_are_counted_by_reason(self, stage: Theatre) -> None:
        client = stage.client()
        await client.send(head_bytes())
        await client.send(head_bytes(host="unknown.example.test"))
        assert stage.edge.metrics.denied.read() == {"sign_in_required": 1}
        assert stage.edge.metrics.rejected.read() == {"not_found": 1}

    async def test_only_what_upstreams_do_counts_as_their_failure(self, stage: Theatre) -> None:
        client = stage.client()
        (await stage.asked(client)).hang_up()
        await turns()
        await stage.asked(client)
        client.wire.hang_up()
        await turns()
        assert stage.edge.metrics.upstream_failures.read() == {"upstream_closed": 1}

    async def test_what_agents_fail_at_counts_too(self, tmp_path: Path) -> None:
        async with theatre(tmp_path, through=True) as stage:
            stage.agents.dialled.error = AgentDialError(Code.AGENT_OFFLINE, "agent desktop is away")
            client = stage.client()
            assert b"agent_offline" in await client.send(stage.request())
            assert stage.edge.metrics.upstream_failures.read() == {"agent_offline": 1}
            assert stage.edge.metrics.ended.read() == {}


class TestAudit:
    async def test_a_denial_is_an_event(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        bob = await stage.stage.sign_in(BOB)
        cookie = stage.stage.cookie(bob, HOST).decode()
        with caplog.at_level(logging.INFO, AUDIT_LOGGER):
            await stage.client().send(
                head_bytes("/x?y", headers=(f"Cookie: __Host-heim={cookie}",))
            )
        (record,) = [one for one in caplog.records if one.name == AUDIT_LOGGER]
        assert record.message == "request.denied"
        facts = vars(record)
        assert {name: facts[name] for name in ("user", "backend", "reason", "method", "path")} == {
            "user": "1002", "backend": "app", "reason": "no_role", "method": "GET", "path": "/x",
        }  # fmt: skip

    async def test_anonymous_requests_are_none(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, AUDIT_LOGGER):
            await stage.client().send(head_bytes())
        assert not [one for one in caplog.records if one.name == AUDIT_LOGGER]

    async def test_a_refused_preflight_is_nobodys_and_none(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        asks = ("Origin: https://evil.test", "Access-Control-Request-Method: PUT")
        async with theatre(tmp_path, cors={"allow_origins": ["https://friend.test"]}) as stage:
            with caplog.at_level(logging.INFO, AUDIT_LOGGER):
                await stage.client().send(head_bytes(method="OPTIONS", headers=asks))
            assert entries(stage)[-1]["decision"] == "deny:cors_refused"
            assert stage.edge.metrics.denied.read() == {"cors_refused": 1}
        assert not [one for one in caplog.records if one.name == AUDIT_LOGGER]

    async def test_breaking_the_glass_is_told_once_per_session_and_backend(
        self, stage: Theatre, caplog: pytest.LogCaptureFixture
    ) -> None:
        emergency = {"name": "oncall", "members": [{"user": "alice@example.test"}],
                     "bindings": [], "break_glass": True}  # fmt: skip
        backend = app(http=[{"path": "/", "upstream": "http://127.0.0.1:3000"}])
        stage.edge.swap(snapshot(configured([backend], [emergency]), generation=2))
        with caplog.at_level(logging.INFO, AUDIT_LOGGER):
            for _ in range(3):
                await served(stage, stage.request())
        told = [one.message for one in caplog.records if one.name == AUDIT_LOGGER]
        assert told == ["access.break_glass"]


async def test_an_upstreams_failure_is_logged_with_what_the_page_hides(
    stage: Theatre, caplog: pytest.LogCaptureFixture
) -> None:
    line = await served(stage, stage.request(), b"nonsense\r\n\r\n")
    assert line["end"] == "upstream_bad_answer"
    (record,) = [one for one in caplog.records if one.message == "upstream.failed"]
    facts = vars(record)
    assert (facts["backend"], facts["upstream"]) == ("app", "http://127.0.0.1:3000")
    assert "Expected HTTP/" in facts["detail"]
    assert facts["request_id"] == line["id"]


async def test_a_session_that_ended_is_the_reason_in_the_log(stage: Theatre) -> None:
    client = stage.client()
    await stage.asked(client)
    await stage.stage.sessions.end(stage.alice.sid, EndReason.REVOKED, stage.stage.now)
    assert entries(stage)[-1]["end"] == "revoked"


@pytest.fixture
async def guest(stage: Theatre) -> Front:
    """A connection with a tunnel request."""
    client = stage.client()
    await client.send(head_bytes("/.heim/tunnel/connect?token=secret"))
    return client.front


def streamed(stage: Theatre, **keys: Any) -> Streamed:
    facts: dict[str, Any] = {
        "session": stage.alice,
        "allow": Allow("ssh", "role ops: ssh tcp"),
        "backend": "ssh",
        "upstream": "tcp://10.0.0.5:22",
        "request_id": b"0123456789abcdef",
        "bytes_in": 11,
        "bytes_out": 22,
        "duration": 1.5,
        "end": "",
        **keys,
    }
    return Streamed(**facts)


class TestStreams:
    async def test_one_that_ended_is_one_line(self, stage: Theatre, guest: Front) -> None:
        stage.edge.recorder.streamed(guest, streamed(stage))
        (line,) = entries(stage)
        assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 11, 22)
        assert (line["user"], line["backend"]) == ("alice@example.test", "ssh")
        assert (line["decision"], line["rule"]) == ("allow", "role ops: ssh tcp")
        assert (line["upstream"], line["end"]) == ("tcp://10.0.0.5:22", None)
        assert line["duration_ms"] == 1500
        assert line["path"] == "/.heim/tunnel/connect"
        assert "secret" not in stage.lines()[0]
        stats = stage.edge.metrics.backend("ssh")
        assert (stats.classes[1], stats.up, stats.down) == (1, 11, 22)
        assert not stage.edge.metrics.ended.read()

    async def test_why_it_ended_is_told_and_counted(self, stage: Theatre, guest: Front) -> None:
        stage.edge.recorder.streamed(guest, streamed(stage, end="revoked"))
        assert entries(stage)[0]["end"] == "revoked"
        assert stage.edge.metrics.ended.read() == {"revoked": 1}

    async def test_a_refusal_is_counted_by_its_code_alone(
        self, stage: Theatre, guest: Front, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, AUDIT_LOGGER):
            stage.edge.recorder.tunnel_refused(guest, Refusal(401, "unauthenticated", "x"), 100)
        (line,) = entries(stage)
        assert (line["status"], line["decision"]) == (401, "deny:unauthenticated")
        assert "secret" not in stage.lines()[0]
        assert stage.edge.metrics.tunnel_refused.read() == {"unauthenticated": 1}
        assert not stage.edge.metrics.rejected.read()
        assert not stage.edge.metrics.denied.read()
        assert not caplog.records

    async def test_a_denial_is_an_audit_event_like_any(
        self, stage: Theatre, guest: Front, caplog: pytest.LogCaptureFixture
    ) -> None:
        denial = Refusal(403, "forbidden", "no", backend="ssh", user="alice@example.test")
        with caplog.at_level(logging.INFO, AUDIT_LOGGER):
            stage.edge.recorder.tunnel_refused(guest, denial, 100)
        (record,) = [one for one in caplog.records if one.name == AUDIT_LOGGER]
        facts = vars(record)
        assert record.message == "request.denied"
        assert (facts["user"], facts["backend"]) == ("alice@example.test", "ssh")
        assert (facts["reason"], facts["path"]) == ("forbidden", "/.heim/tunnel/connect")

    async def test_breaking_the_glass_is_told_once(
        self, stage: Theatre, guest: Front, caplog: pytest.LogCaptureFixture
    ) -> None:
        allow = Allow("ssh", "role oncall: break-glass", break_glass=True)
        with caplog.at_level(logging.INFO, AUDIT_LOGGER):
            for _ in range(3):
                stage.edge.recorder.break_glass(guest, stage.alice, allow, b"r1")
        told = [one.message for one in caplog.records if one.name == AUDIT_LOGGER]
        assert told == ["access.break_glass"]
