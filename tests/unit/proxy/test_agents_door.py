from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heim_proxy.agents.authority import Authority
from heim_proxy.agents.door import MAX_LANES_HERE
from heim_proxy.live import EndReason
from heim_wire.errors import Code
from tests.fakes.agent import AgentSite, ScriptedAgent, agent_head, agent_site
from tests.fakes.heim import LOGIN_HOST
from tests.fakes.sessions import Exchange
from tests.unit.proxy.test_agents_lane import Owner


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AgentSite]:
    async with agent_site(tmp_path) as built:
        yield built


def install_authority(directory: Path, *authorities: tuple[bytes, bytes]) -> None:
    """Write the files of `agents_ca`: the first signs, certificates of all are accepted."""
    (directory / "ca.key").write_bytes(authorities[0][1])
    (directory / "ca.key").chmod(0o600)
    (directory / "ca.pem").write_bytes(b"".join(certificate for certificate, _ in authorities))


FILES = {"cert_file": "ca.pem", "key_file": "ca.key"}


class TestDrain:
    async def test_lanes_with_nothing_on_them_end_at_once(self, site: AgentSite) -> None:
        agents = [
            await site.connect(await site.machine("pool"), number=number) for number in range(4)
        ]
        site.agents.door.drain(300.0)
        for agent in agents:
            await agent.over()
            assert agent.goaway is not None
            assert agent.goaway.code == Code.GOING_AWAY
            assert 0 <= agent.goaway.reconnect_in <= 10
            assert agent.close is not None
            assert agent.close.code == 1000

    async def test_they_are_told_to_come_back_at_different_moments(self, site: AgentSite) -> None:
        agents = [await site.connect(await site.machine("pool")) for _ in range(12)]
        site.agents.door.drain(300.0)
        for agent in agents:
            await agent.over()
        moments = {agent.goaway.reconnect_in for agent in agents if agent.goaway is not None}
        # Twelve draws of ten thousand milliseconds: now and then two are the same.
        assert len(moments) > 8
        assert max(moments) - min(moments) > 1

    async def test_streams_go_on_and_the_lane_ends_with_the_last(self, site: AgentSite) -> None:
        agent = await site.connect()
        lane = site.lane()
        owner = Owner(lane)
        await agent.until(lambda: agent.served)
        site.agents.door.drain(300.0)
        await agent.until(lambda: agent.goaway)
        assert agent.goaway is not None
        assert agent.goaway.drain == 300
        owner.send(b"still")
        await site.heim.until(lambda: owner.received == b"still")
        await site.later(0.5)
        assert not agent.gone
        owner.stream.end()
        lane.channel.wake()
        await site.heim.until(lambda: owner.over)
        await site.later(0.5)
        await agent.over()

    async def test_who_is_just_coming_is_sent_elsewhere(self, site: AgentSite) -> None:
        wire = await site.heim.connect(LOGIN_HOST)
        agent = await ScriptedAgent.greet(wire, await site.machine(), mute=True)
        await site.heim.until(lambda: site.agents.door.connecting == 1)
        site.agents.door.drain(300.0)
        await agent.over()
        assert agent.goaway is not None
        assert agent.goaway.code == Code.GOING_AWAY

    async def test_a_proxy_that_shuts_down_does_not_wait_for_idle_agents(
        self, tmp_path: Path
    ) -> None:
        async with agent_site(tmp_path, drain="1h") as site:
            agent = await site.connect()
            async with asyncio.timeout(3):
                await site.heim.proxy.drain()
            await agent.over()


class TestRoom:
    async def test_there_is_an_end_to_the_number_of_lanes(self, site: AgentSite) -> None:
        site.agents.registry._lanes = MAX_LANES_HERE
        answer = await site.heim.raw(agent_head(), sni=LOGIN_HOST)
        assert (answer.status, answer.get("retry-after") is not None) == (503, True)
        site.agents.registry._lanes = 0
        await site.connect()

    async def test_what_is_not_an_agent_s_is_not_judged_here(self, site: AgentSite) -> None:
        await site.connect()
        session = site.lane().live_session
        assert site.agents.door.review(Exchange(session)) is None
        assert site.agents.door.review(site.lane()) is None

    async def test_an_agent_that_is_gone_from_the_configuration_is(self, site: AgentSite) -> None:
        agent = await site.connect()
        lane = site.lane()
        await site.change(agents=[])
        assert lane.end_reason == EndReason.POLICY_CHANGED.value
        await agent.over()


class TestStatements:
    async def test_new_keys_of_assertions_are_stated_to_everybody(self, site: AgentSite) -> None:
        agents = [await site.connect(await site.machine("pool")) for _ in range(3)]
        (site.heim.directory / "state" / "assertion.pem").unlink()
        await site.change(drain="2s")
        for agent in agents:
            await agent.until(lambda agent=agent: len(agent.readies) == 2)
            assert agent.readies[1]["statement"] != agent.readies[0]["statement"]
            assert agent.readies[1]["generation"] == 2

    async def test_what_concerns_nobody_is_not_stated_again(self, site: AgentSite) -> None:
        agent = await site.connect()
        edition = site.agents.door.edition
        await site.change(drain="2s")
        await asyncio.sleep(0.05)
        assert len(agent.readies) == 1
        assert site.agents.door.edition == edition


class TestRoots:
    async def test_one_authority_follows_another(self, tmp_path: Path) -> None:
        """Overlap first: everybody stays and is told. When the old one goes, so do its agents."""
        old, new = (Authority.generate_pem(now=1.7e9) for _ in range(2))
        install_authority(tmp_path, old)
        async with agent_site(tmp_path, agents_ca=FILES) as site:
            slow, quick = [await site.connect(await site.machine("pool")) for _ in range(2)]
            before = site.agents.authority
            install_authority(tmp_path, new, old)
            await site.change(drain="2s")
            for agent in (slow, quick):
                await agent.until(lambda agent=agent: len(agent.readies) == 2)
            quick.renew()
            await quick.until(lambda: len(quick.readies) == 4)
            install_authority(tmp_path, new)
            await site.change(drain="3s")
            await slow.over()
            assert slow.goaway is not None
            assert slow.goaway.code == Code.UNAUTHENTICATED
            await quick.until(lambda: len(quick.readies) == 5)
            assert not quick.gone
            assert site.agents.authority is not before
            assert len(site.agents.registry) == 1
