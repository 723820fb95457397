from __future__ import annotations

import json
import time
from pathlib import Path

from heim_config.load import load_text
from heim_proxy.agents.authority import Authority
from heim_proxy.agents.presence import Offline
from heim_proxy.agents.wiring import authority_of
from heim_proxy.store.base import StoreUnavailable
from tests.fakes.agent import agent_site, enrol
from tests.fakes.heim import Heim
from tests.unit.proxy.test_app import admin


def config_of(directory: Path, **more: object) -> object:
    heim = Heim.prepare(directory, backends=[], **more)
    return load_text(heim.config_file.read_text(), file=heim.config_file, check_files=False)


class TestAuthority:
    def test_it_is_made_once_beside_the_state(self, tmp_path: Path) -> None:
        config = config_of(tmp_path)
        made = authority_of(config)  # type: ignore[arg-type]
        assert authority_of(config).roots() == made.roots()  # type: ignore[arg-type]
        key = tmp_path / "state" / "agents-ca.key"
        assert key.stat().st_mode & 0o777 == 0o600

    def test_it_may_be_given(self, tmp_path: Path) -> None:
        certificate, key = Authority.generate_pem(now=time.time())
        (tmp_path / "ca.pem").write_bytes(certificate)
        (tmp_path / "ca.key").write_bytes(key)
        (tmp_path / "ca.key").chmod(0o600)
        files = {"cert_file": str(tmp_path / "ca.pem"), "key_file": str(tmp_path / "ca.key")}
        given = authority_of(config_of(tmp_path, agents_ca=files))  # type: ignore[arg-type]
        assert not (tmp_path / "state" / "agents-ca.key").exists()
        assert len(given.roots()) == 1


async def test_who_joined_before_a_restart_is_known(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        await site.machine()
        sid = (await site.agents.enrolments.live("desktop"))[0].sid
        await site.agents.store.touch_sessions({sid: site.clock.now() + 5})
        seen = site.clock.now() + 5
    async with agent_site(tmp_path) as site:
        assert site.agents.registry.pick("desktop") == Offline(seen, joined=True)
        assert site.agents.registry.pick("pool") == Offline(None, joined=False)


async def test_a_store_that_does_not_answer_keeps_nobody_out(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:

        class Away:
            async def list_sessions(self, **_: object) -> object:
                raise StoreUnavailable("gone")

        store, site.agents.store = site.agents.store, Away()  # type: ignore[assignment, misc]
        await site.agents.open()
        site.agents.store = store  # type: ignore[misc]
        await site.connect()


async def test_whoever_is_let_in_is_known_before_it_connects(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        site.agents.enrolments._enrolled("pool")
        assert site.agents.registry.pick("pool") == Offline(None, joined=True)


async def test_figures_are_by_agent(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        machine = await site.machine()
        await site.connect(machine)
        await site.connect(machine, number=1)
        site.agents.registry.count("desktop", "opened")
        site.agents.registry.count("pool", "agent_offline")
        _, body = await admin(site.heim, "/metrics")
        lines = dict(
            line.rsplit(" ", 1) for line in body.decode().splitlines() if "heim_agent" in line[:11]
        )
        assert float(lines['heim_agents_connected{agent="desktop"}']) == 1
        assert float(lines['heim_agents_connected{agent="pool"}']) == 0
        assert float(lines['heim_agent_lanes{agent="desktop"}']) == 2
        assert float(lines['heim_agent_streams_total{agent="desktop",result="opened"}']) == 1
        assert float(lines['heim_agent_streams_total{agent="pool",result="agent_offline"}']) == 1
        expires = 'heim_agent_certificate_expires_seconds{agent="desktop"}'
        assert abs(float(lines[expires]) - site.lane().valid_until) < 1
        assert float(lines["heim_agent_duplicates_total"]) == 0


async def test_operators_see_who_is_here_and_who_is_not(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        await site.connect(await site.machine(device="box-7"))
        status, body = await admin(site.heim, "/debug/agents")
        assert status == 200
        facts = json.loads(body)
        (here,) = facts["connected"]
        assert (here["name"], here["device"], len(here["lanes"])) == ("desktop", "box-7", 1)
        assert facts["offline"] == {"pool": {"since": None, "joined": False, "revoked": False}}
        assert facts["connecting"] == 0
        assert facts["replica"] == site.agents.door.replica


async def test_many_are_shown_in_pages(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        for device in ("a", "b", "c"):
            await site.connect(await site.machine("pool", device=device))
        pages = []
        after = ""
        while True:
            _, body = await admin(site.heim, f"/debug/agents?limit=1&after={after}")
            facts = json.loads(body)
            pages.append(facts)
            if facts["next"] is None:
                break
            after = facts["next"]
        assert [len(page["connected"]) + len(page["offline"]) for page in pages] == [1, 1, 1, 1]
        assert list(pages[0]["offline"]) == ["desktop"]
        seen = [one for page in pages for one in page["connected"]]
        assert {one["device"] for one in seen} == {"a", "b", "c"}
        assert seen == sorted(seen, key=lambda one: one["thumbprint"])
        _, body = await admin(site.heim, "/debug/agents")
        whole = json.loads(body)
        assert whole["connected"] == seen
        assert (whole["offline"], whole["next"]) == (pages[0]["offline"], None)
        _, body = await admin(site.heim, "/debug/agents?after=nobody/x&limit=5")
        assert json.loads(body)["connected"] == seen
        _, body = await admin(site.heim, "/debug/agents?after=zzz")
        assert json.loads(body)["connected"] == []


async def test_an_authority_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        agent = await site.connect()
        (tmp_path / "state" / "agents-ca.key").write_text("no key")
        site.heim.document["drain"] = "2s"
        site.heim.write()
        site.heim.proxy._hang_up()
        reloader = site.heim.proxy._reloader
        await site.heim.until(lambda: reloader.status.last_error)
        assert reloader.status.last_error is not None
        assert "agents-ca.key" in str(reloader.status.last_error.problems[0])
        assert reloader.status.generation == 1
        agent.renew()
        await agent.until(lambda: len(agent.readies) >= 2)


async def test_enrolments_are_sessions_in_the_store(tmp_path: Path) -> None:
    async with agent_site(tmp_path) as site:
        machine = await enrol(site.agents.store, site.agents.authority, "desktop")
        assert machine.row is not None
        assert await site.agents.store.get_session(machine.row.sid) == machine.row
