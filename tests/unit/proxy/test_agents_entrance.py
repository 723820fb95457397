from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.agents.entrance import read
from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.responses import Refusal
from tests.fakes.agent import WS_KEY, AgentSite, ScriptedAgent, agent_head, agent_site
from tests.fakes.heim import LOGIN_HOST


def parsed(data: bytes) -> RequestHead:
    head = RequestHead()
    head.parse(data)
    return head


def test_a_proper_request_has_a_key() -> None:
    assert read(parsed(agent_head())) == WS_KEY


def test_other_subprotocols_may_be_offered_too() -> None:
    data = agent_head(
        drop=("Sec-WebSocket-Protocol",),
        extra=("Sec-WebSocket-Protocol: chat, heim.tunnel.v1",),
    )
    assert read(parsed(data)) == WS_KEY


@pytest.mark.parametrize(
    ("data", "status", "word"),
    [
        (agent_head(drop=("Upgrade", "Connection")), 426, "WebSocket"),
        (agent_head(drop=("Sec-WebSocket-Version",)), 426, "13"),
        (agent_head(drop=("Sec-WebSocket-Key",)), 400, "Key"),
        (agent_head(drop=("Sec-WebSocket-Protocol",)), 400, "heim.tunnel.v1"),
        (agent_head(method="DELETE"), 400, "GET"),
        (agent_head(extra=("Content-Length: 3",)), 400, "body"),
        (agent_head(extra=("Origin: null",)), 403, "not for pages"),
        (agent_head(path="/.heim/tunnel/agent?token=x"), 400, "query"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, status: int, word: str) -> None:
    refusal = read(parsed(data))
    assert isinstance(refusal, Refusal)
    assert refusal.status == status
    assert word in refusal.detail
    assert "heim-agent" in refusal.hint


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AgentSite]:
    async with agent_site(tmp_path) as built:
        yield built


async def test_the_answer_names_its_request_and_hello_comes_with_it(site: AgentSite) -> None:
    wire = await site.heim.connect(LOGIN_HOST)
    agent = await ScriptedAgent.greet(wire, await site.machine(), mute=True)
    assert agent.answer.get("heim-request-id")
    assert agent.answer.get("sec-websocket-protocol") == "heim.tunnel.v1"
    await agent.until(lambda: agent.hello)
    assert set(agent.hello) == {"v", "max_streams", "replica", "nonce", "time"}
    assert agent.hello["replica"] == site.agents.door.replica


async def test_hello_may_come_with_the_request(site: AgentSite) -> None:
    """A client that does not wait for 101 breaks no rule of ours."""
    machine = await site.machine()
    first = await site.connect(machine)
    wire = await site.heim.connect(LOGIN_HOST)
    hello = first.session.__class__(initiator=True, now=0.0, hello=_greeting(machine))
    parts, total = hello.take(65_536)
    wire.send(agent_head() + first.websocket.frame(parts, total))
    answer = await wire.answer()
    assert answer.status == 101
    await site.heim.until(lambda: site.agents.door.connecting == 1)


def _greeting(machine: object) -> dict[str, object]:
    return {"agent": "desktop", "boot": "0" * 32, "lane": 0, "nonce": "A" * 43}


async def test_a_refused_request_leaves_the_connection_usable(site: AgentSite) -> None:
    wire = await site.heim.connect(LOGIN_HOST)
    wire.send(agent_head(drop=("Sec-WebSocket-Key",)))
    assert (await wire.answer()).status == 400
    wire.send(agent_head(path="/.heim/tunnel/agent?x"))
    assert (await wire.answer()).status == 400
    assert site.agents.door.refused.read() == {"protocol": 2}


async def test_what_follows_a_refused_upgrade_is_no_request(site: AgentSite) -> None:
    wire = await site.heim.connect(LOGIN_HOST)
    wire.send(agent_head(path="/.heim/tunnel/agent?x") + b"\x82\x05hello")
    answer = await wire.answer()
    assert (answer.status, answer.get("connection")) == (400, "close")
    assert await wire.closed() == b""


async def test_a_proxy_that_drains_takes_nobody_in(site: AgentSite) -> None:
    wire = await site.heim.connect(LOGIN_HOST)
    edge = site.heim.proxy._edge
    assert edge is not None
    edge.draining = True
    wire.send(agent_head())
    answer = await wire.answer()
    assert (answer.status, answer.get("retry-after")) == (503, "5")
