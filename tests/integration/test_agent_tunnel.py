"""`heim-tunnel proxy`, as ssh starts it, through an agent: what its user reads when things end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heim_wire.errors import FAILURES, Code
from tests.fakes.agent import ScriptedAgent, refusing, silent
from tests.fakes.agent_site import AgentSite, agent_site, host
from tests.fakes.heim import authority
from tests.fakes.tunnel import tunnel_role
from tests.integration.process import heim_proxy
from tests.integration.tunnel import HEIM_TUNNEL

ACCOUNT = "ci"


@dataclass
class Ssh:
    """Starts what ssh would start."""

    site: AgentSite
    env: dict[str, str]

    async def start(self, at: str = "ssh") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            HEIM_TUNNEL, "proxy",
            "--connect-to", f"127.0.0.1:{self.site.heim.https_port}", host(at),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env=self.env,
        )  # fmt: skip

    async def ended(self, process: asyncio.subprocess.Process) -> tuple[int, str]:
        """Exit status, and the one line that its user reads."""
        assert process.stderr is not None
        async with asyncio.timeout(10):
            said = (await process.stderr.read()).decode()
            status = await process.wait()
        assert said.count("\n") == 1, said
        return status, said


@pytest.fixture
async def ssh(tmp_path: Path) -> AsyncIterator[Ssh]:
    robots = tunnel_role("robots", "ssh", "farm", "hole", members=[{"service_account": ACCOUNT}])
    accounts = [{"name": ACCOUNT}]
    async with agent_site(tmp_path, roles=[robots], service_accounts=accounts) as site:
        token, ca = tmp_path / "token", tmp_path / "ca.pem"
        token.touch(mode=0o600)
        made = await heim_proxy("token", "create", ACCOUNT, "--config", str(site.heim.config_file))
        assert made.status == 0, made.err
        token.write_text(made.out)
        authority().cert_pem.write_to_path(ca)
        env = {
            **os.environ,
            "HEIM_TOKEN_FILE": str(token),
            "HEIM_CA_FILE": str(ca),
            "HEIM_TUNNEL_HOME": str(tmp_path / "home"),
        }
        yield Ssh(site, env)


async def talk(process: asyncio.subprocess.Process, word: bytes = b"SSH-2.0-test\r\n") -> None:
    """A word there and back."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(word)
    async with asyncio.timeout(10):
        assert await process.stdout.readexactly(len(word)) == word


async def test_bytes_pass_and_both_ends_end(ssh: Ssh) -> None:
    await ssh.site.agent()
    process = await ssh.start()
    await talk(process, os.urandom(300_000))
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(10):
        assert await process.wait() == 0


@pytest.mark.parametrize("how", ["dies", "is stopping", "is reset"])
async def test_what_ends_a_stream_at_the_agent_is_one_line_for_its_user(ssh: Ssh, how: str) -> None:
    agent = await ssh.site.agent()
    process = await ssh.start()
    await talk(process)
    code, words = Code.AGENT_LOST, "the connection to agent desktop was lost"
    if how == "dies":
        agent.abort()
    elif how == "is stopping":
        agent.served[0].stream.reset(Code.GOING_AWAY, "stopping")
        words = "agent desktop is stopping; connect again"
    else:
        agent.served[0].stream.reset(Code.CONNECTION_RESET, "the connection behind was reset")
        code, words = Code.CONNECTION_RESET, "target ssh of agent desktop reset the connection"
    if how != "dies":
        agent.flush()
    status, said = await ssh.ended(process)
    assert words in said
    assert status == FAILURES[code].exit_status


async def offline(site: AgentSite) -> None:
    """Nobody is connected."""


async def refusing_agent(site: AgentSite) -> None:
    await site.agent(targets={"ssh": refusing(Code.DIAL_REFUSED, "connection refused")})


async def choosy_agent(site: AgentSite) -> None:
    await site.agent(targets={"ssh": refusing(Code.FORBIDDEN, "needs role prod-ssh")})


async def dying_agent(site: AgentSite) -> None:
    def die(agent: ScriptedAgent, served: object) -> None:
        agent.abort()

    await site.agent(targets={"ssh": die})


async def silent_agent(site: AgentSite) -> None:
    await site.agent(targets={"hole": silent})


@pytest.mark.parametrize(
    ("prepare", "at", "code", "words"),
    [
        (offline, "farm", Code.AGENT_OFFLINE, "no machine has joined as farm yet"),
        (offline, "ssh", Code.AGENT_OFFLINE, "agent desktop is offline"),
        (
            refusing_agent, "ssh", Code.DIAL_REFUSED,
            "target ssh of agent desktop cannot be reached: connection refused",
        ),
        (
            choosy_agent, "ssh", Code.FORBIDDEN,
            "agent desktop does not allow this: needs role prod-ssh",
        ),
        (dying_agent, "ssh", Code.AGENT_OFFLINE, "agent desktop is offline, last seen"),
        (silent_agent, "hole", Code.DIAL_TIMEOUT, "target hole of agent desktop did not answer"),
    ],
)  # fmt: skip
async def test_why_there_is_no_stream_is_one_line_for_its_user(
    ssh: Ssh, prepare: object, at: str, code: int, words: str
) -> None:
    await prepare(ssh.site)  # type: ignore[operator]
    status, said = await ssh.ended(await ssh.start(at))
    assert words in said
    assert status == FAILURES[code].exit_status
