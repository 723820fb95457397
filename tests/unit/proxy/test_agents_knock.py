"""Before a lane: what holds it up, and what becomes of it. Attacks are in tests/hostile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.agents.knock import HANDSHAKE_S, Knock
from heim_proxy.agents.lane import Lane
from heim_wire.errors import Code
from tests.fakes.agent import AgentSite, ScriptedAgent, agent_site
from tests.fakes.heim import LOGIN_HOST


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AgentSite]:
    async with agent_site(tmp_path) as built:
        yield built


async def knocking(site: AgentSite, **more: Any) -> tuple[ScriptedAgent, Knock]:
    """An agent that said HELLO and nothing else, and its connection."""
    wire = await site.heim.connect(LOGIN_HOST)
    agent = await ScriptedAgent.greet(wire, await site.machine(), mute=True, **more)
    await agent.until(lambda: agent.hello)
    edge = site.heim.proxy._edge
    assert edge is not None
    (knock,) = [one.exchange for one in edge._fronts if isinstance(one.exchange, Knock)]
    await site.heim.until(lambda: knock.claimed or knock.over)
    return agent, knock


async def test_nothing_runs_for_who_has_proven_nothing(site: AgentSite) -> None:
    tasks = len(asyncio.all_tasks())
    agents = [await knocking(site)]
    # The scripted agent's own two: its reader, and the transport's of its connection.
    assert len(asyncio.all_tasks()) - tasks <= 2 * len(agents)
    assert len(site.heim.proxy._live) == 0
    assert repr(agents[0][1]) == "<Knock desktop from 127.0.0.1>"


async def test_a_proof_turns_it_into_a_lane(site: AgentSite) -> None:
    agent, knock = await knocking(site)
    agent.auth(agent.proof())
    await agent.until(lambda: agent.readies)
    assert knock.over
    lane = site.lane()
    assert isinstance(lane, Lane)
    assert lane.channel is knock.channel
    assert site.agents.door.connecting == 0


@pytest.mark.parametrize(
    ("judging", "code"), [(False, Code.UNAUTHENTICATED), (True, Code.BUSY)], ids=["agent", "store"]
)
async def test_whoever_takes_too_long_is_named(site: AgentSite, judging: bool, code: int) -> None:
    agent, knock = await knocking(site)
    knock._judging = judging
    knock.timed_out("handshake")
    await agent.over()
    assert agent.goaway is not None
    assert agent.goaway.code == code
    assert HANDSHAKE_S == 5


async def test_one_that_left_while_it_was_judged_is_no_lane(site: AgentSite) -> None:
    agent, knock = await knocking(site)
    judge = site.agents.door.judge
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow:
        async def judge(self, *more: Any) -> Any:
            asked.set()
            await go.wait()
            return await judge.judge(*more)

    site.agents.door.judge = Slow()  # type: ignore[assignment, misc]
    agent.auth(agent.proof())
    await asked.wait()
    agent.abort()
    await site.heim.until(lambda: knock.over)
    go.set()
    site.agents.door.judge = judge  # type: ignore[misc]
    await asyncio.sleep(0.05)
    assert len(site.agents.registry) == 0
    assert len(site.heim.proxy._live) == 0


async def test_a_configuration_that_comes_while_the_store_is_asked_is_the_one_that_counts(
    site: AgentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = await knocking(site)
    door = site.agents.door
    clear_way = door.clear_way

    async def meanwhile(name: str, own_key: bytes) -> None:
        await clear_way(name, own_key)
        if site.heim.generation == 1:
            await site.heim.change_now(agents=[{"name": "pool", "targets": ["web"]}])

    monkeypatch.setattr(door, "clear_way", meanwhile)
    agent.auth(agent.proof())
    await agent.over()
    assert agent.goaway is not None
    assert agent.goaway.code == Code.FORBIDDEN
    assert len(site.agents.registry) == 0


async def test_who_is_still_configured_is_judged_once_more_and_let_in(
    site: AgentSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = await knocking(site)
    door = site.agents.door
    clear_way = door.clear_way
    asked = []

    async def meanwhile(name: str, own_key: bytes) -> None:
        asked.append(name)
        await clear_way(name, own_key)
        if len(asked) == 1:
            await site.heim.change_now(agents=[{"name": "desktop", "targets": ["web"]}])

    monkeypatch.setattr(door, "clear_way", meanwhile)
    agent.auth(agent.proof())
    await agent.until(lambda: agent.readies)
    assert asked == ["desktop", "desktop"]
    assert agent.readies[0]["targets"] == ["web"]


async def test_a_fault_of_ours_is_a_refusal(
    site: AgentSite, caplog: pytest.LogCaptureFixture
) -> None:
    agent, _ = await knocking(site)
    judge = site.agents.door.judge
    site.agents.door.judge = None  # type: ignore[assignment, misc]
    agent.auth(agent.proof())
    await agent.over()
    site.agents.door.judge = judge  # type: ignore[misc]
    assert agent.goaway is not None
    assert agent.goaway.code == Code.INTERNAL
    assert "NoneType" not in agent.goaway.reason
    assert "agent.judge_failed" in caplog.messages
    assert site.agents.door.refused.read() == {"internal": 1}


async def test_a_lane_that_cannot_be_welcomed_does_not_stay(site: AgentSite) -> None:
    agent, _ = await knocking(site)
    door = site.agents.door
    keep, door.replica = door.replica, object()  # type: ignore[assignment, misc]
    agent.auth(agent.proof(replica=keep))
    await agent.over()
    door.replica = keep  # type: ignore[misc]
    assert agent.goaway is not None
    assert agent.goaway.code == Code.INTERNAL
    assert len(site.agents.registry) == 0
    assert len(site.heim.proxy._live) == 0


async def test_one_that_vanishes_leaves_its_place(site: AgentSite) -> None:
    agent, _ = await knocking(site)
    assert site.agents.door.connecting == 1
    agent.abort()
    await site.heim.until(lambda: site.agents.door.connecting == 0)
    assert site.agents.door.refused.read() == {"agent_lost": 1}
