from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.agents.lane import Lane
from heim_proxy.agents.presence import Offline
from heim_proxy.live import EndReason
from heim_wire.errors import Code, OpenRefused
from tests.fakes.agent import AgentSite, ScriptedAgent, agent_site, silent

MIB = 1024 * 1024
DAY_S = 86_400.0


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AgentSite]:
    async with agent_site(tmp_path) as built:
        yield built


class Owner:
    """Has a stream: keeps what comes, and credits it."""

    def __init__(self, lane: Lane, target: str = "ssh") -> None:
        self.lane = lane
        self.received = bytearray()
        self.accepts: list[dict[str, Any]] = []
        self.over = False
        self.why: tuple[int, str] | None = None
        self.stream = lane.open({"target": target, "proto": "tcp"})
        self.stream.context = self

    def send(self, data: bytes) -> None:
        self.stream.send(data)
        self.lane.channel.wake()

    def data(self, payload: bytes | memoryview) -> None:
        self.received += payload
        self.stream.consumed(len(payload))

    def accepted(self, message: dict[str, Any]) -> None:
        self.accepts.append(message)

    def drained(self) -> None:
        pass

    def ended(self) -> None:
        pass

    def finished(self) -> None:
        self.over = True

    def reset(self, code: int, reason: str) -> None:
        self.why = (code, reason)


class TestStreams:
    async def test_bytes_go_both_ways_and_ends_are_ends(self, site: AgentSite) -> None:
        agent = await site.connect()
        owner = Owner(site.lane())
        owner.send(b"hello")
        await site.heim.until(lambda: owner.received == b"hello")
        assert owner.accepts == [{"peer": "echo"}]
        assert agent.served[0].message == {"target": "ssh", "proto": "tcp"}
        assert agent.served[0].stream.id % 2 == 0
        owner.stream.end()
        site.lane().channel.wake()
        await site.heim.until(lambda: owner.over)
        assert site.lane().idle

    async def test_a_lane_that_is_over_opens_none(self, site: AgentSite) -> None:
        agent = await site.connect()
        lane = site.lane()
        agent.abort()
        await site.heim.until(lambda: lane.over)
        with pytest.raises(OpenRefused) as refused:
            Owner(lane)
        assert refused.value.code == Code.AGENT_LOST
        assert "desktop" in refused.value.reason

    async def test_a_lane_that_goes_away_opens_none(self, site: AgentSite) -> None:
        agent = await site.connect()
        lane = site.lane()
        agent.leave()
        await site.heim.until(lambda: lane.channel.session.going_away)
        with pytest.raises(OpenRefused) as refused:
            Owner(lane)
        assert refused.value.code == Code.GOING_AWAY

    async def test_what_is_too_large_is_not_sent(self, site: AgentSite) -> None:
        agent = await site.connect()
        with pytest.raises(ValueError, match="4096"):
            site.lane().open({"target": "x" * 5000})
        assert not agent.served
        Owner(site.lane())
        await agent.until(lambda: agent.served)

    @pytest.mark.parametrize("how", ["cut", "goodbye"])
    async def test_an_agent_that_goes_takes_its_streams_along(
        self, site: AgentSite, how: str
    ) -> None:
        agent = await site.connect()
        owner = Owner(site.lane())
        await agent.until(lambda: agent.served)
        if how == "cut":
            agent.abort()
        else:
            agent.goodbye()
        await site.heim.until(lambda: owner.why)
        assert owner.why is not None
        assert owner.why[0] == Code.AGENT_LOST

    @pytest.mark.parametrize("reason", EndReason)
    async def test_whatever_ends_a_lane_its_streams_lose_the_agent(
        self, site: AgentSite, reason: EndReason
    ) -> None:
        agent = await site.connect()
        owner = Owner(site.lane())
        await agent.until(lambda: agent.served)
        site.lane().end(reason)
        assert owner.why is not None
        assert owner.why[0] == Code.AGENT_LOST
        await agent.over()
        assert agent.goaway is not None
        assert agent.goaway.code != Code.AGENT_LOST


class TestLoad:
    async def test_bulk_makes_a_lane_heavy_and_others_are_chosen(self, site: AgentSite) -> None:
        machine = await site.machine()
        await site.connect(machine)
        bulky = site.lane()
        second = await site.connect(machine, number=1)
        owner = Owner(bulky)
        for _ in range(80):
            owner.send(bytes(MIB // 8))
            await asyncio.sleep(0)
        await site.heim.until(lambda: len(owner.received) == 10 * MIB)
        await site.later(0)
        assert bulky.heavy
        assert site.lane() is not bulky
        Owner(site.lane())
        await second.until(lambda: second.served)

    async def test_it_is_light_again_later_and_then_nobody_looks(self, site: AgentSite) -> None:
        await site.connect()
        lane = site.lane()
        owner = Owner(lane)
        assert lane in site.agents.door.busy
        lane._received += 100 * MIB
        assert lane.sample()
        assert lane.heavy
        owner.stream.reset(Code.GOING_AWAY)
        lane.channel.wake()
        assert lane.sample()
        for _ in range(80):
            lane.sample()
        await site.later(0)
        assert not lane.heavy
        assert lane not in site.agents.door.busy

    async def test_what_is_told_about_it(self, site: AgentSite) -> None:
        await site.connect(await site.machine(device="box-7"), number=2)
        Owner(site.lane())
        shown = site.lane().presence()
        assert (shown.number, shown.address, shown.streams) == (2, "127.0.0.1", 1)
        assert shown.since == site.clock.now()
        assert site.lane().device == "box-7"
        assert repr(site.lane()) == "<Lane desktop/2 ready>"


class TestTerms:
    async def test_a_newer_certificate_comes_without_touching_streams(
        self, site: AgentSite
    ) -> None:
        """Case 45 of tunnel.md, 6."""
        agent = await site.connect()
        lane = site.lane()
        owner = Owner(lane)
        before = lane.valid_until
        await site.later(16 * 3600)
        agent.renew()
        await agent.until(lambda: len(agent.readies) > 1)
        assert lane.valid_until == agent.readies[1]["expires"] == before + 16 * 3600
        await site.later(10 * 3600)
        owner.send(b"still here")
        await site.heim.until(lambda: owner.received == b"still here")
        assert not agent.gone

    async def test_without_one_it_ends_when_its_certificate_does(self, site: AgentSite) -> None:
        agent = await site.connect()
        await site.later(DAY_S - 10)
        assert not agent.gone
        await site.later(11)
        await agent.over()
        assert agent.goaway is not None
        assert agent.goaway.code == Code.EXPIRED

    async def test_a_machine_let_in_to_renew_has_a_minute(self, site: AgentSite) -> None:
        machine = await site.machine()
        await site.later(2 * DAY_S)
        await site.connect(machine)
        assert site.lane().valid_until == site.clock.now() + 60
        await site.later(61)
        assert isinstance(site.agents.registry.pick("desktop"), Offline)

    async def test_the_enrolment_is_seen_while_it_is_connected(self, site: AgentSite) -> None:
        await site.connect()
        session = site.lane().live_session
        await site.later(3600)
        assert session.last_seen == site.clock.now()
        await site.later(30)
        assert session.last_seen == site.clock.now() - 30
        await site.later(31)
        assert session.last_seen == site.clock.now()

    async def test_when_it_left_is_remembered(self, site: AgentSite) -> None:
        agent = await site.connect()
        session = site.lane().live_session
        site.clock.time += 17
        agent.abort()
        await site.heim.until(lambda: len(site.agents.registry) == 0)
        assert session.last_seen == site.clock.now()
        assert site.agents.registry.offline("desktop").since == site.clock.now()


class TestTold:
    async def test_who_comes_and_goes_is_told(
        self, site: AgentSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        machine = await site.machine(device="box-7")
        agent = await site.connect(machine)
        assert machine.row is not None
        agent.goodbye()
        await site.heim.until(lambda: len(site.agents.registry) == 0)
        log = {
            (record.name, record.getMessage()): vars(record)
            for record in caplog.records
            if record.getMessage().startswith("agent.")
        }
        came = log["heim_proxy.agents.record", "agent.connected"]
        left = log["heim_proxy.agents.record", "agent.disconnected"]
        for line in (came, left, log["heim.audit", "agent.connected"]):
            assert line["agent"] == "desktop"
            assert line["device"] == "box-7"
            assert line["client"] == "127.0.0.1"
            assert (line["boot"], line["lane"]) == (machine.boot, 0)
        assert left["reason"] == "left"
        assert left["duration"] >= 0
        assert log["heim.audit", "agent.connected"]["enrolment"] == machine.row.sid[:6]

    async def test_why_it_ended_is_told(
        self, site: AgentSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent = await site.connect()
        site.lane().end(EndReason.REVOKED)
        await agent.over()
        (left,) = [
            vars(one)
            for one in caplog.records
            if (one.name, one.getMessage()) == ("heim.audit", "agent.disconnected")
        ]
        assert left["reason"] == "revoked"

    @pytest.mark.parametrize(
        ("name", "reason", "revoked"),
        [
            ("desktop", EndReason.REVOKED, True),
            ("desktop", EndReason.EXPIRED, False),
            ("pool", EndReason.REVOKED, False),
        ],
        ids=["revoked", "expired", "one of a group"],
    )
    async def test_that_an_enrolment_ended_is_known_afterwards(
        self, site: AgentSite, name: str, reason: EndReason, revoked: bool
    ) -> None:
        agent = await site.connect(await site.machine(name))
        site.lane(name).end(reason)
        await agent.over()
        await site.heim.until(lambda: len(site.agents.registry) == 0)
        assert site.agents.registry.offline(name).revoked is revoked

    async def test_a_refusal_is_counted_and_told(
        self, site: AgentSite, caplog: pytest.LogCaptureFixture
    ) -> None:
        agent = await ScriptedAgent.connect(
            site.heim, await site.machine(), spki=bytes(32), ready=False
        )
        await agent.over()
        assert site.agents.door.refused.read() == {"unauthenticated": 1}
        (line,) = [vars(one) for one in caplog.records if one.getMessage() == "agent.refused"]
        assert (line["claimed"], line["reason"]) == ("desktop", "unauthenticated")
        assert "terminates TLS" in line["detail"]

    async def test_a_stream_nobody_answers_harms_no_other(self, site: AgentSite) -> None:
        agent = await site.connect()
        agent.targets["web"] = silent
        waiting = [Owner(site.lane(), "web") for _ in range(20)]
        owner = Owner(site.lane())
        owner.send(b"x")
        await site.heim.until(lambda: owner.received == b"x")
        assert not any(one.accepts for one in waiting)
