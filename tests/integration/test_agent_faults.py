"""Agents and bad networks and machines: cases 22, 24, 31 and 64 of tunnel.md, 6, with processes.

What is cut, forgotten and lost is so in real networks (`places.py`), by their routers; nobody is
told. What many streams and many lanes do is in tests/hostile/test_o_agent_load.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.fakes.heim import DOMAIN, Wire, authority
from tests.fakes.real import require
from tests.fakes.upstream import Received, Upstream, answer
from tests.integration.network import Network
from tests.integration.places import Agent, environment, places, proxy_in_the_cluster
from tests.integration.process import HeimProcess, admin, heim_proxy, running
from tests.integration.services import finished
from tests.integration.test_agent_link import Linked
from tests.integration.test_agent_program import AGENT, HEIM_AGENT
from tests.integration.tunnel import ACCOUNT, HEIM_TUNNEL, Stream, TunnelSite, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

DESKTOP: Final = "desktop.ssh.x.example.com"
ECHO_PORT: Final = 7007

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

ECHO: Final = f"""
import asyncio

async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", {ECHO_PORT})
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

# Of the router between everybody: what is between the office and the cluster passes none of it.
SWALLOW: Final = """
table inet swallow {
  chain forward {
    type filter hook forward priority 0
    iifname "vlan" drop
    oifname "vlan" drop
  }
}
"""
# The office is behind an address of the router's, as at home.
NAT: Final = """
table ip nat {
  chain out {
    type nat hook postrouting priority 100
    ip saddr 10.8.2.0/24 oifname "cluster" masquerade
  }
}
"""
# A router that knows the connections it has seen begin, and no others.
STRICT: Final = """
table inet strict {
  chain forward {
    type filter hook forward priority 0
    iifname "vlan" ct state new tcp flags & (syn | ack) != syn drop
    ct state invalid drop
  }
}
"""
LOSSY: Final = """
table inet lossy {
  chain forward {
    type filter hook forward priority 0
    iifname "vlan" numgen random mod 100 0 counter drop
    oifname "vlan" numgen random mod 100 0 counter drop
  }
}
"""


@dataclass
class Office:
    """An agent in the VLAN that serves an echo, and the proxy in the cluster."""

    where: Network
    heim: HeimProcess
    agent: Agent
    directory: Path

    @contextlib.contextmanager
    def stream(self) -> Any:
        """Somebody in the café who is connected to the echo."""
        env = environment(
            HEIM_TOKEN_FILE=str(self.directory / "token"),
            HEIM_CA_FILE=str(self.directory / "ca.pem"),
            HEIM_TUNNEL_HOME=str(self.directory / "tunnel-home"),
        )
        found = Stream(self.where.within("cafe", HEIM_TUNNEL, "proxy", DESKTOP), env)
        try:
            yield found
        finally:
            found.close()

    async def rules(self, name: str, text: str) -> None:
        """The router has these rules as well."""
        file = self.directory / f"{name}.nft"
        file.write_text(text)
        await finished(*self.where.within("wan", "nft", "-f", str(file)))

    async def forget(self, table: str) -> None:
        await finished(*self.where.within("wan", "nft", "delete", "table", *table.split()))

    async def reached(self, within_s: float) -> None:
        """Somebody new gets through, within that many seconds."""
        async with asyncio.timeout(within_s):
            while True:
                with self.stream() as again, contextlib.suppress(AssertionError, OSError):
                    await again.send(b"again")
                    assert await again.read(5) == b"again"
                    return
                await asyncio.sleep(0.2)

    async def lanes(self) -> list[dict[str, Any]]:
        """As the proxy has them."""
        found = json.loads((await admin(self.directory, "/debug/agents")).body)
        return [lane for one in found["connected"] for lane in one["lanes"]]

    async def until(self, condition: Any, within_s: float) -> float:
        """Seconds until it was so."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.05)
        return time.monotonic() - began

    def told(self) -> str:
        return f"{self.agent.log}\n{self.heim.log_file.read_text()}"


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    async with places(tmp_path, DESKTOP) as where:
        echo = await asyncio.create_subprocess_exec(
            *where.within("vlan", "python3", "-c", ECHO), stdout=asyncio.subprocess.PIPE
        )
        agent = Agent(where, tmp_path / "agent", tmp_path / "ca.pem")
        hosts = ("*.ssh.x.example.com",)
        try:
            assert echo.stdout is not None
            assert await echo.stdout.readline() == b"ready\n"
            async with proxy_in_the_cluster(tmp_path, where, hosts=hosts, **CONFIGURATION) as heim:
                (tmp_path / "token").touch(mode=0o600)
                (tmp_path / "token").write_text(await command(heim, "token", "create", ACCOUNT))
                await agent.join(await command(heim, "agent", "token", "create", "office"))
                await agent.run(ssh={"address": f"127.0.0.1:{ECHO_PORT}"})
                yield Office(where, heim, agent, tmp_path)
        finally:
            await agent.stop()
            echo.kill()
            await echo.wait()


async def command(heim: HeimProcess, *words: str) -> str:
    done = await heim_proxy(*words, "--config", str(heim.config_file))
    assert done.status == 0, done.err
    return done.out


# -- 22 -------------------------------------------------------------------------------------------


async def pour(held: Stream) -> None:
    while True:
        await held.send(bytes(65_536))


async def drink(held: Stream) -> None:
    while True:
        await held.read(65_536, within_s=60.0)


@pytest.mark.slow
async def test_22_what_is_written_and_never_acknowledged_ends_the_lane_at_both_ends(
    office: Office,
) -> None:
    """Bytes are on their way in both directions; TCP_USER_TIMEOUT is 20 s, silence 25 s."""
    with office.stream() as held:
        await held.send(b"hello")
        assert await held.read(5) == b"hello"
        flowing = [asyncio.ensure_future(one) for one in (pour(held), drink(held))]
        await asyncio.sleep(1.0)
        assert not any(one.done() for one in flowing)
        await office.rules("swallow", SWALLOW)
        began = time.monotonic()
        await office.until(lambda: office.heim.events("agent.disconnected"), 30)
        await office.until(lambda: office.agent.events("lane.lost"), 30)
        assert time.monotonic() - began < 24.0, office.told()
        for one in flowing:
            one.cancel()
        await asyncio.gather(*flowing, return_exceptions=True)
        # Whoever was connected is told why, instead of waiting for ever.
        async with asyncio.timeout(5):
            said = await asyncio.to_thread(held.said)
        assert "agent office" in said, said
    assert not await office.lanes()
    await office.forget("inet swallow")
    await office.reached(30)


# -- 24 -------------------------------------------------------------------------------------------


async def moved(office: Office) -> None:
    """The router gets another address, and forgets every connection through the one before."""
    await office.where.ip("wan", "address", "add", "10.8.1.9/24", "dev", "cluster")
    await office.where.ip("wan", "address", "del", "10.8.1.1/24", "dev", "cluster")
    # The second became the first with it, or went along: it must be there.
    await office.where.ip("wan", "address", "replace", "10.8.1.9/24", "dev", "cluster")
    await office.where.ip("cluster", "route", "replace", "default", "via", "10.8.1.9")


async def behind_nat(office: Office) -> None:
    """The agent comes from the router's own address from now on."""
    await office.rules("nat", NAT)
    assert office.agent.process is not None
    office.agent.process.kill()
    await office.agent.process.wait()
    await office.agent.run(ssh={"address": f"127.0.0.1:{ECHO_PORT}"})
    # Its status may still be the one before.
    async with asyncio.timeout(10):
        while [one["address"] for one in await office.lanes()] != ["10.8.1.1"]:
            await asyncio.sleep(0.05)


async def test_24_a_nat_with_another_address_costs_the_lane_and_not_the_agent(
    office: Office,
) -> None:
    """The proxy answers what it does not know with RST, so whoever sends something is told."""
    await behind_nat(office)
    with office.stream() as held:
        await held.send(b"hello")
        assert await held.read(5) == b"hello"
        await moved(office)
        began = time.monotonic()
        await office.reached(30)
        assert time.monotonic() - began < 30
    assert [one["address"] for one in await office.lanes()] == ["10.8.1.9"]


@pytest.mark.slow
async def test_24_a_nat_that_forgets_and_tells_nobody_has_its_agent_back_in_half_a_minute(
    office: Office,
) -> None:
    await behind_nat(office)
    await office.rules("strict", STRICT)
    with office.stream() as held:
        await held.send(b"hello")
        assert await held.read(5) == b"hello"
        await moved(office)
        took = await office.until(lambda: office.agent.events("lane.lost"), 40)
        assert took < 27, office.told()
        await office.reached(5)
        assert took < 30
        (lane,) = await office.lanes()
        assert lane["address"] == "10.8.1.9"


# -- 64 -------------------------------------------------------------------------------------------


async def carried(office: Office, size: int) -> None:
    """Bytes there and back are what they were, and no lane was lost for it."""
    data = os.urandom(size)
    with office.stream() as held:
        sending = asyncio.ensure_future(held.send(data))
        back = await held.read(size, within_s=60.0)
        await sending
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    assert len(office.agent.events("lane.ready")) == 1, office.told()


async def test_64_one_percent_of_loss_costs_time_and_nothing_else(office: Office) -> None:
    await office.rules("lossy", LOSSY)
    await carried(office, 4 * 1024 * 1024)
    listed = (await finished(*office.where.within("wan", "nft", "list", "ruleset"))).decode()
    # Something was lost, indeed.
    assert any(int(part.split()[0]) for part in listed.split("counter packets ")[1:]), listed


@pytest.fixture
async def netem() -> tuple[str, ...]:
    """Words for tc: slow and lossy. Skips before the places are made for nothing."""
    words = ("root", "netem", "delay", "75ms", "loss", "1%")
    tried = await run(require("unshare"), "--net", "tc", "qdisc", "add", "dev", "lo", *words)
    if tried.status:
        pytest.skip(f"this kernel has no netem: {tried.err.strip()}")
    return words


async def test_64_a_long_way_that_loses_one_percent(netem: tuple[str, ...], office: Office) -> None:
    """150 ms there and back."""
    for side in ("vlan", "cluster"):
        await finished(*office.where.within("wan", "tc", "qdisc", "add", "dev", side, *netem))
    await carried(office, 256 * 1024)


# -- 31 -------------------------------------------------------------------------------------------

WEB: Final = f"web.{DOMAIN}"


@asynccontextmanager
async def crowded(directory: Path, descriptors: int) -> AsyncIterator[tuple[Linked, Upstream]]:
    """An agent that may have so few descriptors, in front of a web server."""
    upstream = await Upstream().start()
    route = {"path": "/", "agent": AGENT, "target": "web"}
    backends = [{"name": "web", "http": [route], "public": True}]
    agents = [{"name": AGENT, "targets": ["web"]}]
    try:
        async with running(directory, backends=backends, agents=agents) as heim:
            ca_file = directory / "ca.pem"
            authority().cert_pem.write_to_path(ca_file)
            machine = Few(TunnelSite(heim, {"HEIM_CA_FILE": str(ca_file)}), directory)
            machine.descriptors = descriptors
            machine.serve(web=upstream.port)
            await machine.joined()
            try:
                yield machine, upstream
            finally:
                await machine.stop()
    finally:
        await upstream.stop()


@dataclass
class Few(Linked):
    """A machine on which `heim-agent` may have few descriptors."""

    descriptors: int = 0

    async def begin(self) -> asyncio.subprocess.Process:
        limited = f'ulimit -n {self.descriptors}; exec "$@"'
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", limited, "sh", HEIM_AGENT, "run", *self._way,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.processes.append(process)
        return process


async def test_31_an_agent_without_descriptors_refuses_in_words_and_lives(tmp_path: Path) -> None:
    async with crowded(tmp_path, 60) as (machine, upstream):
        go = asyncio.Event()

        async def script(received: Received, reader: Any, writer: Any) -> bytes:
            await go.wait()
            return answer(headers="Connection: close\r\n")

        upstream.script = script
        await machine.connect()
        heim = machine.site.heim
        (before,) = await machine.presence()
        wires: list[Wire] = [await heim.connect(WEB) for _ in range(90)]
        for wire in wires:
            wire.send(f"GET / HTTP/1.1\r\nHost: {WEB}\r\n\r\n".encode())
        answers = [asyncio.ensure_future(wire.answer()) for wire in wires]
        async with asyncio.timeout(20):
            while sum(one.done() for one in answers) + upstream.open < len(wires):
                await asyncio.sleep(0.05)
        refused = [one.result() for one in answers if one.done()]
        assert len(refused) >= 30
        assert {one.status for one in refused} <= {502, 503}
        assert "no room" in machine.log.read_text()
        # What it writes down needs descriptors, too; nothing of that ends it.
        await asyncio.sleep(1.5)
        go.set()
        async with asyncio.timeout(15):
            found = await asyncio.gather(*answers)
        assert sum(one.status == 200 for one in found) == len(wires) - len(refused)
        for wire in wires:
            wire.close()
        async with asyncio.timeout(10):
            while (await heim.request("/", host=WEB)).status != 200:
                await asyncio.sleep(0.1)
        (after,) = await machine.presence()
        assert after["since"] == before["since"]
        assert "Traceback" not in machine.log.read_text()
        async with asyncio.timeout(10):
            while (await machine.status()).status:
                await asyncio.sleep(0.2)
