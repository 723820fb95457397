"""Agents and the real `heim-proxy`: a scripted agent joins, serves, is revoked, renewed, restarted.

The agent's own side of all this is in test_agent_story.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from heim_proxy.agents.authority import Authority
from heim_wire.agents import JOIN_PATH
from heim_wire.errors import Code
from tests.fakes.agent import (
    Machine,
    ScriptedAgent,
    agent_head,
    bridging,
    certificate_request,
)
from tests.fakes.heim import DOMAIN, LOGIN_HOST, authority
from tests.fakes.upstream import Received, Upstream
from tests.integration.process import HeimProcess, admin, heim_proxy, running

WEB = f"web.{DOMAIN}"
AGENTS = [
    {"name": "desktop", "targets": ["web"]},
    {"name": "pool", "targets": ["web"], "group": True},
]
BACKEND = {
    "name": "web",
    "http": [{"path": "/", "agent": "desktop", "target": "web"}],
    "public": True,
}


async def joined(heim: HeimProcess, name: str = "desktop", *more: str) -> Machine:
    """A machine that joined as people join theirs: a token from the command line, then HTTP."""
    config = str(heim.config_file)
    made = await heim_proxy("agent", "token", "create", name, *more, "--config", config)
    assert made.status == 0, made.err
    key = ec.generate_private_key(ec.SECP256R1())
    body = {
        "token": made.out.strip(),
        "csr": base64.b64encode(certificate_request(key)).decode(),
        "device": "box",
        "version": "0.0.0",
    }
    answer = await heim.request(
        JOIN_PATH,
        host=LOGIN_HOST,
        method="POST",
        headers=(("Content-Type", "application/json"),),
        body=json.dumps(body).encode(),
    )
    assert answer.status == 200, answer.body
    found = json.loads(answer.body)
    assert found["agent"] == name
    return Machine(name, base64.b64decode(found["certificate"]), key)


async def connected(
    heim: HeimProcess, machine: Machine, upstream: Upstream | None = None, **more: Any
) -> ScriptedAgent:
    targets = {"web": bridging("127.0.0.1", upstream.port)} if upstream is not None else {}
    return await ScriptedAgent.dial(heim.https_port, machine, targets=targets, **more)


async def facts(heim: HeimProcess) -> dict[str, Any]:
    """What /debug/agents shows."""
    found: dict[str, Any] = json.loads((await admin(heim.directory, "/debug/agents")).body)
    return found


async def change(heim: HeimProcess, **keys: Any) -> None:
    before = (await heim.status())["generation"]
    heim.document.update(keys)
    heim.write()
    heim.signal(signal.SIGHUP)
    async with asyncio.timeout(5):
        while (await heim.status())["generation"] == before:
            await asyncio.sleep(0.02)


@pytest.fixture
async def heim(tmp_path: Path) -> AsyncIterator[HeimProcess]:
    async with running(tmp_path, backends=[BACKEND], agents=AGENTS) as started:
        yield started


@pytest.fixture
async def ticking(upstream: Upstream) -> Upstream:
    """An upstream that sends a line every 50 ms, until its client goes."""

    async def tick(
        received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        for number in range(1000):
            writer.write(f"data: {number}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(0.05)
        return b""

    upstream.script = tick
    return upstream


async def listening(heim: HeimProcess) -> asyncio.StreamReader:
    """A response that goes on, through the agent."""
    wire = await heim.connect(WEB)
    wire.send(f"GET /events HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode())
    async with asyncio.timeout(5):
        head = await wire.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    await heard(wire.reader)
    return wire.reader


async def heard(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(3):
        await reader.readuntil(b"data: ")


async def test_a_page_behind_an_agent_is_served(heim: HeimProcess, upstream: Upstream) -> None:
    agent = await connected(heim, await joined(heim), upstream)
    answer = await heim.request("/hello", host=WEB)
    assert (answer.status, answer.body) == (200, b"ok")
    assert upstream.requests[0].path == "/hello"
    assert agent.served[0].message["target"] == "web"
    agent.abort()


async def test_a_revocation_by_command_ends_it_within_two_seconds(
    heim: HeimProcess, ticking: Upstream
) -> None:
    agent = await connected(heim, await joined(heim), ticking)
    reader = await listening(heim)
    revoked = await heim_proxy("agent", "revoke", "desktop", "--config", str(heim.config_file))
    began = time.monotonic()
    assert revoked.status == 0, revoked.err
    await agent.over()
    assert time.monotonic() - began < 2.0
    assert agent.goaway is not None
    assert agent.goaway.code == Code.REVOKED
    async with asyncio.timeout(2):
        await reader.read()
    again = await connected(heim, agent.machine, ready=False)
    await again.over()
    assert again.goaway is not None
    assert again.goaway.code == Code.REVOKED
    left = heim.events("agent.disconnected")
    assert {one["reason"] for one in left} == {"revoked"}


async def test_leaving_the_configuration_ends_it(heim: HeimProcess) -> None:
    agent = await connected(heim, await joined(heim))
    await change(heim, agents=AGENTS[1:], backends=[])
    await agent.over()
    assert agent.goaway is not None
    assert agent.goaway.code == Code.FORBIDDEN


async def test_a_token_made_to_replace_ends_the_machine_before(heim: HeimProcess) -> None:
    first = await connected(heim, await joined(heim))
    second = await connected(heim, await joined(heim, "desktop", "--replace"))
    await first.over(2.0)
    assert first.goaway is not None
    assert first.goaway.code == Code.REVOKED
    (here,) = (await facts(heim))["connected"]
    assert here["boot"] == second.machine.boot
    second.abort()


async def test_45_renewal_drops_no_stream_and_outlives_the_certificate(
    heim: HeimProcess, ticking: Upstream
) -> None:
    machine = await joined(heim)
    authority = Authority.load_or_create(heim.directory / "state", login_host=LOGIN_HOST)
    machine.certificate = authority.issue(
        machine.key.public_key(), name="desktop", now=time.time(), lifetime_s=2.5
    )
    agent = await connected(heim, machine, ticking)
    expires = agent.readies[0]["expires"]
    reader = await listening(heim)
    agent.renew()
    await agent.until(lambda: len(agent.readies) >= 2)
    assert agent.readies[1]["expires"] > expires + 3600
    async with asyncio.timeout(6):
        while time.time() < expires + 1.5:
            await reader.readuntil(b"data: ")
    await heard(reader)
    assert not agent.gone
    agent.abort()


def install(directory: Path, *authorities: tuple[bytes, bytes]) -> None:
    """Write the files of `agents_ca` as editors do; the first signs."""
    for name, content in (
        ("ca.key", authorities[0][1]),
        ("ca.pem", b"".join(certificate for certificate, _ in authorities)),
    ):
        fresh = directory / f"{name}.new"
        fresh.write_bytes(content)
        fresh.chmod(0o600)
        os.replace(fresh, directory / name)


async def test_Q4_the_authority_is_changed_by_its_files_without_losing_an_agent(
    tmp_path: Path,
) -> None:
    old, new = (Authority.generate_pem(now=time.time()) for _ in range(2))
    install(tmp_path, old)
    files = {"cert_file": "ca.pem", "key_file": "ca.key"}
    async with running(tmp_path, backends=[], agents=AGENTS, agents_ca=files) as heim:
        slow = await connected(heim, await joined(heim, "pool"))
        quick = await connected(heim, await joined(heim, "pool"))
        install(tmp_path, new, old)
        for agent in (slow, quick):
            await agent.until(lambda agent=agent: len(agent.readies) == 2)
        quick.renew()
        await quick.until(lambda: len(quick.readies) >= 3)
        quick.machine.certificate = base64.b64decode(quick.readies[2]["certificate"])
        install(tmp_path, new)
        await slow.over()
        assert slow.goaway is not None
        assert slow.goaway.code == Code.UNAUTHENTICATED
        assert not quick.gone
        quick.abort()
        again = await connected(heim, quick.machine)
        again.abort()


async def test_21_a_proxy_that_was_killed_knows_its_agents_when_it_is_back(
    heim: HeimProcess, upstream: Upstream
) -> None:
    agent = await connected(heim, await joined(heim), upstream)
    replica = agent.readies[0]["replica"]
    heim.process.kill()
    await heim.process.wait()
    await agent.over()
    await heim.launch()
    away = (await facts(heim))["offline"]["desktop"]
    assert away["joined"]
    assert time.time() - away["since"] < 60
    back = await connected(heim, agent.machine, upstream)
    assert back.readies[0]["replica"] != replica
    assert (await heim.request("/", host=WEB)).status == 200
    back.abort()


async def test_agents_that_have_nothing_on_are_sent_elsewhere_at_once(heim: HeimProcess) -> None:
    """SIGTERM: each at a moment of its own, and nobody waits for them."""
    agents = [await connected(heim, await joined(heim, "pool")) for _ in range(5)]
    heim.signal(signal.SIGTERM)
    moments = []
    for agent in agents:
        await agent.over()
        assert agent.goaway is not None
        assert agent.goaway.code == Code.GOING_AWAY
        moments.append(agent.goaway.reconnect_in)
    assert len(set(moments)) == 5
    assert all(0 <= moment <= 10 for moment in moments)
    async with asyncio.timeout(5):
        assert await heim.process.wait() == 0


async def test_streams_go_on_while_the_proxy_drains(tmp_path: Path, ticking: Upstream) -> None:
    async with running(tmp_path, backends=[BACKEND], agents=AGENTS, drain="2s") as heim:
        agent = await connected(heim, await joined(heim), ticking)
        reader = await listening(heim)
        heim.signal(signal.SIGTERM)
        await agent.until(lambda: agent.goaway)
        assert agent.goaway is not None
        assert agent.goaway.drain == 2
        for _ in range(10):
            await heard(reader)
        assert not agent.gone
        await agent.over(5.0)
        async with asyncio.timeout(5):
            assert await heim.process.wait() == 0


AGENT_PROGRAM = """
import asyncio, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pathlib import Path
from tests.fakes.agent import Machine, ScriptedAgent, silent
import ssl

async def main(directory, port):
    key = load_pem_private_key((directory / "agent.key").read_bytes(), None)
    machine = Machine("desktop", (directory / "agent.der").read_bytes(), key)
    trust = ssl.create_default_context(cafile=directory / "trust.pem")
    agent = await ScriptedAgent.dial(port, machine, trust=trust, targets={"web": silent})
    print("ready", flush=True)
    await agent.over(60)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_19_an_agent_that_is_killed_is_noticed_within_a_second(heim: HeimProcess) -> None:
    machine = await joined(heim)
    directory = heim.directory
    (directory / "agent.der").write_bytes(machine.certificate)
    (directory / "agent.key").write_bytes(
        machine.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    authority().cert_pem.write_to_path(directory / "trust.pem")
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT_PROGRAM, str(directory), str(heim.https_port),
        stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    try:
        assert program.stdout is not None
        async with asyncio.timeout(15):
            assert await program.stdout.readline() == b"ready\n"
        # Its target never answers; who waits for it is told as soon as it dies.
        request = asyncio.ensure_future(heim.request("/", host=WEB))
        async with asyncio.timeout(10):
            while not (await facts(heim))["connected"][0]["lanes"][0]["streams"]:
                await asyncio.sleep(0.02)
        assert not request.done()
        began = time.time()
        program.kill()
        assert (await request).status in (502, 503)
        # By the proxy's own clock: this test may be the one that has to wait for its turn.
        await heim.until(lambda: heim.events("agent.disconnected"))
        left = heim.events("agent.disconnected")[0]
        assert datetime.fromisoformat(left["time"]).timestamp() - began < 1.0
        assert not (await facts(heim))["connected"]
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def test_31_without_descriptors_left_agents_wait_and_come_in_later(tmp_path: Path) -> None:
    """Sixty-four connections are what a process with next to no descriptors serves."""
    few = ("sh", "-c", 'ulimit -n 400; exec "$@"', "sh")
    async with running(tmp_path, backends=[], agents=AGENTS, within=few) as heim:
        machine = await joined(heim)
        held = []
        for _ in range(80):
            try:
                held.append(await heim.connect(LOGIN_HOST))
            except (ConnectionError, OSError):
                break
        with pytest.raises((ConnectionError, OSError, asyncio.IncompleteReadError)):
            await heim.raw(agent_head(), sni=LOGIN_HOST)
        assert (await admin(tmp_path, "/livez")).status == 200
        for wire in held:
            wire.close()
        async with asyncio.timeout(5):
            while True:
                try:
                    agent = await connected(heim, machine)
                except (ConnectionError, OSError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0.1)
                else:
                    break
        agent.abort()


async def test_connections_kept_for_later_do_not_hold_up_the_end(
    tmp_path: Path, upstream: Upstream
) -> None:
    async with running(tmp_path, backends=[BACKEND], agents=AGENTS, drain="20s") as heim:
        agent = await connected(heim, await joined(heim), upstream)
        assert (await heim.request("/", host=WEB)).status == 200
        assert not agent.served[0].ended
        heim.signal(signal.SIGTERM)
        async with asyncio.timeout(5):
            assert await heim.process.wait() == 0
        agent.abort()
