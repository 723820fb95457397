"""The story of the agent: an office that nothing can dial into, reached from a café over port 443.

Real networks (namespaces), real firewalls (nftables), real sshd and ssh, and the three programs as
people start them.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.heim import authority
from tests.fakes.real import require
from tests.integration.network import Network
from tests.integration.places import (
    VLAN,
    Agent,
    environment,
    places,
    proxy_in_the_cluster,
)
from tests.integration.process import HeimProcess, heim_proxy
from tests.integration.services import sshd
from tests.integration.test_tunnel_cafe import readme_snippet
from tests.integration.tunnel import ACCOUNT, Run, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(90)]

DESKTOP = "desktop.ssh.x.example.com"

CONFIGURATION: dict[str, Any] = {
    "agents": [{"name": "office", "targets": ["ssh"]}],
    "backends": [{"name": "desktop", "host": DESKTOP, "tcp": {"agent": "office", "target": "ssh"}}],
    "service_accounts": [{"name": ACCOUNT}],
    "roles": [
        {
            "name": "ssh",
            "members": [{"service_account": ACCOUNT}],
            "bindings": [{"backend": "desktop"}],
        }
    ],
}


@dataclass
class Story:
    """Everybody is in their place; the agent has joined and is connected."""

    where: Network
    heim: HeimProcess
    agent: Agent
    directory: Path
    ssh_port: int

    def ssh(self, *words: str) -> list[str]:
        """ssh in the café with the README's snippet."""
        config = str(self.directory / "ssh_config")
        return [*self.where.within("cafe", require("ssh"), "-F", config), DESKTOP, *words]

    @property
    def env(self) -> dict[str, str]:
        return environment(
            HEIM_TOKEN_FILE=str(self.directory / "token"),
            HEIM_CA_FILE=str(self.directory / "ca.pem"),
            HEIM_TUNNEL_HOME=str(self.directory / "tunnel-home"),
        )

    async def reach(self, within_s: float = 30.0) -> Run:
        return await run(*self.ssh("echo from the office"), env=self.env, within_s=within_s)

    def told(self) -> str:
        """For a test that failed."""
        return f"{self.agent.log}\n{self.heim.log_file.read_text()}"


async def command(heim: HeimProcess, *words: str) -> str:
    done = await heim_proxy(*words, "--config", str(heim.config_file))
    assert done.status == 0, done.err
    return done.out


@pytest.fixture
async def story(tmp_path: Path) -> AsyncIterator[Story]:
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    async with places(tmp_path, DESKTOP) as where:
        async with sshd(tmp_path / "sshd") as machine:
            # Only for its keys and configuration: another one runs in the VLAN.
            client, port = machine.client_config.read_text(), machine.port
        (tmp_path / "ssh_config").write_text(f"{readme_snippet()}\n{client}")
        server = await asyncio.create_subprocess_exec(
            *where.within(
                "vlan", "/usr/sbin/sshd", "-D", "-e", "-f", str(tmp_path / "sshd" / "sshd_config")
            ),
            stderr=asyncio.subprocess.DEVNULL,
        )
        hosts = ("*.ssh.x.example.com",)
        agent = Agent(where, tmp_path / "agent", tmp_path / "ca.pem")
        try:
            async with proxy_in_the_cluster(tmp_path, where, hosts=hosts, **CONFIGURATION) as heim:
                (tmp_path / "token").touch(mode=0o600)
                (tmp_path / "token").write_text(await command(heim, "token", "create", ACCOUNT))
                await agent.join(await command(heim, "agent", "token", "create", "office"))
                await agent.run(ssh={"address": f"127.0.0.1:{port}"})
                yield Story(where, heim, agent, tmp_path, port)
        finally:
            await agent.stop()
            server.kill()
            await server.wait()


async def test_ssh_from_the_cafe_to_a_machine_that_nothing_can_dial(story: Story) -> None:
    dialled = await run(
        *story.where.within("cluster", "python3", "-c", DIAL.format(host=VLAN, port=story.ssh_port))
    )
    assert dialled.out == b"cannot be dialled\n"
    done = await story.reach()
    assert (done.status, done.out) == (0, b"from the office\n"), done.err + story.told()
    async with asyncio.timeout(5):
        while not (served := story.agent.events("stream.ended")):
            await asyncio.sleep(0.05)
    assert [(one["target"], one["user"], one["end"]) for one in served] == [
        ("ssh", ACCOUNT, "done")
    ]


DIAL = """
import socket
try:
    socket.create_connection(({host!r}, {port}), timeout=1.5)
    print("was dialled")
except OSError:
    print("cannot be dialled")
"""


async def test_a_revoked_agent_takes_the_sessions_through_it_along(story: Story) -> None:
    session = await asyncio.create_subprocess_exec(
        *story.ssh("echo in; sleep 60"),
        env=story.env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert session.stdout is not None
    async with asyncio.timeout(20):
        assert await session.stdout.readline() == b"in\n", story.told()
    await command(story.heim, "agent", "revoke", "office")
    began = time.monotonic()
    async with asyncio.timeout(10):
        _, said = await session.communicate()
    assert time.monotonic() - began < 4
    assert b"office" in said, said
    done = await story.reach()
    assert done.status == 255
    assert "agent office is offline" in done.err, done.err
    assert story.agent.events("agent.refused") or "revoked" in story.agent.log


async def test_the_agent_outlives_the_proxy(story: Story) -> None:
    story.heim.signal(signal.SIGKILL)
    await story.heim.process.wait()
    await story.heim.launch()
    began = time.monotonic()
    while (done := await story.reach()).status:
        assert time.monotonic() - began < 10, done.err + story.told()
        assert "agent office is offline" in done.err
        await asyncio.sleep(0.2)
    assert done.out == b"from the office\n"


async def test_the_agent_outlives_the_network(story: Story) -> None:
    """Nothing passes for longer than a dead peer is believed in, and nobody is told."""
    await story.where.ip("wan", "link", "set", "vlan", "down")
    async with asyncio.timeout(30):
        while not story.heim.events("agent.disconnected"):
            await asyncio.sleep(0.2)
    done = await story.reach()
    assert done.status == 255
    assert "agent office is offline, last seen" in done.err, done.err
    await story.where.ip("wan", "link", "set", "vlan", "up")
    began = time.monotonic()
    while (done := await story.reach()).status:
        assert time.monotonic() - began < 35, done.err + story.told()
        await asyncio.sleep(0.5)
    assert done.out == b"from the office\n"
