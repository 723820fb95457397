"""R: what is secret stays out of logs, metrics and pages, and nobody forges a line of them."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Final

import aiohttp
import pytest
import pytest_asyncio

from heim_runtime.logs import JsonFormatter
from tests.fakes.heim import LOGIN_HOST, Answer
from tests.fakes.upstream import Received, answer, read_body
from tests.hostile.world import (
    ALICE,
    BOB,
    MALLORY,
    SWITCHING,
    World,
    host,
    websocket_head,
    within,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARIES: Final = {
    "authorization": "Bearer canary-authorization-7f3a",
    "basic": "Basic " + base64.b64encode(b"canary:basic-7f3a").decode(),
    "cookie": "canary-cookie-7f3a",
    "flow": "canary-flow-7f3a",
    "ticket": "canary-ticket-7f3a",
    "code": "canary-code-7f3a",
    "state": "canary-state-7f3a",
    "body": "canary-body-7f3a",
    "header": "canary-header-7f3a",
    "answer": "canary-answer-7f3a",
    "proxy-authorization": "canary-proxy-authorization-7f3a",
}


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """All that any logger says, from DEBUG on, with every field."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


async def told(world: World) -> str:
    """The access log and the metrics."""
    await asyncio.sleep(0.15)
    connector = aiohttp.UnixConnector(str(world.heim.directory / "admin.sock"))
    async with aiohttp.ClientSession(connector=connector) as client:
        texts = [world.heim.log.read_text()]
        for page in ("/metrics", "/status", "/readyz", "/debug/tasks", "/debug/connections"):
            async with client.get(f"http://localhost{page}") as response:
                texts.append(await response.text())
    return "\n".join(texts)


async def exercise(world: World) -> list[Answer]:
    """One of everything, with secrets in every place where secrets come."""

    async def script(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes | None:
        received.body = await read_body(received, reader)
        if received.get("upgrade"):
            writer.write(SWITCHING)
            await reader.read()
            return None
        if received.path.startswith("/broken"):
            return f"HTTP/1.1 200 OK\r\nX-A: {CANARIES['answer']}\0\r\n\r\n".encode()
        if received.path.startswith("/dies"):
            return None
        return answer(
            CANARIES["answer"].encode(), headers=f"Set-Cookie: {CANARIES['answer']}=1\r\n"
        )

    world.upstream.script = script
    headers = (
        ("Authorization", CANARIES["authorization"]),
        ("Authorization", CANARIES["basic"]),
        ("Proxy-Authorization", CANARIES["proxy-authorization"]),
        ("X-Api-Key", CANARIES["header"]),
        ("Accept", "text/html"),
    )
    own = f"a={CANARIES['cookie']}; __Host-heim-flow-{'0' * 20}={CANARIES['flow']}"
    answers: list[Answer] = []

    async def note(asked: Awaitable[Answer]) -> None:
        answers.append(await asked)

    for who in (ALICE, BOB, MALLORY, None):
        cookie = f"{await world.cookie(who)}; {own}" if who else own
        for target in ("/", "/admin", "/broken", "/dies", "/a%2fb", "/%00"):
            for method in ("GET", "POST"):
                await note(
                    world.get(
                        target,
                        method=method,
                        cookie=cookie,
                        headers=headers,
                        body=CANARIES["body"].encode() if method == "POST" else b"",
                    )
                )
    secret_query = f"t={CANARIES['ticket']}&code={CANARIES['code']}&state={CANARIES['state']}"
    for path in ("handoff", "callback", "login", "logout", "me", "nothing", "%68andoff", "x%2fy"):
        for at in (host("app"), LOGIN_HOST):
            for prefix in ("/.heim/", "//.heim/", "/a/../.heim/", "/%2eheim/", "/.heim;x/"):
                await note(
                    world.heim.request(
                        f"{prefix}{path}?{secret_query}", host=at, cookie=own, headers=headers
                    )
                )
    await note(world.heim.request(f"/.heim/handoff?{secret_query}", host=host("app"), plain=True))
    bad = f"GET /.heim/handoff?{secret_query} HTTP/1.1\r\nHost: {host('app')}\r\n"
    for line in (f"Cookie: {own}\0\r\n", f"Authorization : {CANARIES['authorization']}\r\n"):
        await note(world.heim.raw(f"{bad}{line}\r\n".encode()))
    wire = await world.wire()
    cookie = f"{await world.cookie(ALICE)}; {own}"
    wire.send(websocket_head("/ws", cookie=cookie, extra=f"X-Api-Key: {CANARIES['header']}\r\n"))
    await note(within(wire.answer()))
    wire.close()
    return answers


async def test_R1_no_secret_is_in_a_log_a_metric_or_a_page(
    world: World, everything_logged: io.StringIO
) -> None:
    answers = await exercise(world)
    statuses = {found.status for found in answers}
    assert {200, 101, 303, 400, 401, 403, 404, 502} <= statuses
    said = everything_logged.getvalue() + await told(world)
    assert '"path":"/admin"' in said
    for name, value in CANARIES.items():
        assert value not in said, name
        assert value.removeprefix("Bearer ").removeprefix("Basic ") not in said, name
    # Sessions, assertions and everything else that looks like a sealed value or a token.
    for who in (ALICE, BOB, MALLORY):
        cookie = (await world.cookie(who)).partition("=")[2]
        assert cookie not in said
    tokens = {received.get("x-auth-token") for received in world.sent}
    assert None not in tokens or len(tokens) > 1
    for token in tokens - {None}:
        assert str(token) not in said
    assert not re.search(r"eyJ[A-Za-z0-9_-]{20,}\.", said)
    sids = [session.sid for session in world.heim.proxy._sessions._resident]  # type: ignore[union-attr]
    # Pages of ours repeat nothing either.
    for found in answers:
        # 308 sends the same address on to https, query and all; 200 is the upstream's.
        if found.status not in (101, 200, 308):
            text = (found.raw + found.body).decode("latin-1")
            for name, value in CANARIES.items():
                assert value not in text, (name, found.status)
            for sid in sids:
                assert sid not in text


FORGERIES: Final = (
    '/x"}%0a{"forged":1',
    "/x?a=%0d%0aforged",
    '/x?"},{"forged":"1',
    "/x?%1b[31mforged",
    "/%e2%80%aeforged",
    "/x?\\u000aforged\\",
)


@pytest.mark.parametrize("target", FORGERIES)
async def test_R2_a_line_of_the_log_cannot_be_forged(
    world: World, everything_logged: io.StringIO, target: str
) -> None:
    agent = ("User-Agent", '"}\\n{"forged":1')
    for who in (ALICE, MALLORY, None):
        cookie = await world.cookie(who) if who else None
        await world.get(target, cookie=cookie, headers=(agent, ("X-Forwarded-For", '"forged')))
    await told(world)
    for text in (world.heim.log.read_text(), everything_logged.getvalue()):
        for line in text.splitlines():
            entry = json.loads(line)
            assert "forged" not in entry
            assert "\x1b" not in line
        assert text.isascii()


async def test_R3_a_refusal_is_audited_with_who_what_why_and_where(
    world: World, everything_logged: io.StringIO
) -> None:
    found = await world.get("/admin", cookie=await world.cookie(BOB))
    assert found.status == 403
    audited = [
        json.loads(line)
        for line in everything_logged.getvalue().splitlines()
        if '"request.denied"' in line
    ]
    assert len(audited) == 1
    entry = audited[0]
    assert entry["user"] == "bob@example.com"
    assert entry["backend"] == "app"
    assert entry["method"] == "GET"
    assert entry["path"] == "/admin"
    assert entry["reason"]
    assert entry["request_id"] == found.get("x-request-id")
    assert (found.get("x-request-id") or "").encode() in found.body


async def test_R3_every_request_has_a_line_with_its_decision(world: World) -> None:
    expected = {}
    for cookie, target, decision in (
        (await world.cookie(ALICE), "/r3-allow", "allow"),
        (await world.cookie(BOB), "/r3-deny", "deny:"),
        (None, "/r3-anonymous", "deny:sign_in_required"),
    ):
        found = await world.get(target, cookie=cookie)
        expected[found.get("x-request-id")] = decision
    await told(world)
    lines = [json.loads(line) for line in world.heim.log.read_text().splitlines()]
    for request_id, decision in expected.items():
        (line,) = [line for line in lines if line["id"] == request_id]
        assert line["decision"].startswith(decision)


async def test_R4_labels_of_metrics_are_bounded(world: World) -> None:
    for n in range(40):
        await world.get(f"/path-{n}", at="open", plain=True, headers=((f"X-{n}", "label-canary"),))
        await world.heim.raw(
            f"GET /path-{n} HTTP/1.1\r\nHost: host-{n}.example.test\r\n\r\n".encode(), plain=True
        )
        await world.heim.raw(f"M{n} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(), plain=True)
        await world.get("/", cookie=await world.cookie(MALLORY))
    said = await told(world)
    metrics = "\n".join(line for line in said.splitlines() if line.startswith("heim_"))
    assert "heim_" in metrics
    for label in ("path-", "host-", "mallory", "label-canary", "10.0.0", "M39", "127.0.0.1"):
        assert label not in metrics
    names = set(re.findall(r'backend="([^"]*)"', metrics))
    configured = {one["name"] for one in world.heim.document["backends"]}
    assert names <= configured | {"portal"}


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def quiet(world: World) -> AsyncIterator[None]:
    """Loggers of libraries do not speak of these tests' own client."""
    logging.getLogger("asyncio").setLevel(logging.INFO)
    yield
    logging.getLogger("asyncio").setLevel(logging.NOTSET)
