"""The places of the story (Linux namespaces): a cluster, a client's VLAN and a café.

Everybody reaches the others through `wan`, as far as their own firewall lets them:

- `cluster` 10.8.1.2 has the proxy, and may dial whatever it wants.
- `vlan` 10.8.2.2 has the agent and the machines that it serves. Nothing may dial in; the one rule
  that lets anything out is TCP to port 443.
- `cafe` 10.8.3.2 is the same for its guests.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.fakes.real import require
from tests.integration.network import Network, networks
from tests.integration.process import HEIM_PROXY, HeimProcess, running

__all__ = ["CLUSTER", "HEIM_AGENT", "LOGIN_HOST", "VLAN", "Agent", "places", "proxy_in_the_cluster"]

HEIM_AGENT: Final = str(Path(HEIM_PROXY).with_name("heim-agent"))

DOMAIN: Final = "x.example.com"
LOGIN_HOST: Final = f"auth.{DOMAIN}"
CLUSTER: Final = "10.8.1.2"
VLAN: Final = "10.8.2.2"

SCRIPT: Final = """\
mkdir -m 755 /run/sshd
ip netns add wan
ip -n wan link set lo up
ip netns exec wan sysctl -qw net.ipv4.ip_forward=1
number=1
for name in cluster vlan cafe; do
  ip netns add $name
  ip -n $name link set lo up
  ip link add uplink netns $name type veth peer name $name netns wan
  ip -n $name address add 10.8.$number.2/24 dev uplink
  ip -n wan address add 10.8.$number.1/24 dev $name
  ip -n $name link set uplink up
  ip -n wan link set $name up
  ip -n $name route add default via 10.8.$number.1
  number=$((number + 1))
done
for name in vlan cafe; do
  ip netns exec $name nft -f - <<RULES
table inet firewall {
  chain in {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
  }
  chain out {
    type filter hook output priority 0; policy drop;
    oif lo accept
    ct state established,related accept
    tcp dport 443 accept
  }
}
RULES
done
"""


@asynccontextmanager
async def places(directory: Path, *names: str) -> AsyncIterator[Network]:
    """The places for the length of the block; `names` resolve to the cluster in all of them."""
    require("nft")
    hosts = f"127.0.0.1 localhost\n{CLUSTER} {' '.join((LOGIN_HOST, *names))}\n"
    async with networks(directory, SCRIPT, hosts=hosts) as found:
        yield found


@asynccontextmanager
async def proxy_in_the_cluster(
    directory: Path, where: Network, *, hosts: tuple[str, ...] = (), **more: Any
) -> AsyncIterator[HeimProcess]:
    """heim-proxy on port 443 of the cluster; `hosts` are in its certificate."""
    more.setdefault("domain", DOMAIN)
    more.setdefault(
        "listeners",
        {
            "https": {"address": f"{CLUSTER}:443"},
            "http": None,
            "admin": {"address": f"unix:{directory / 'admin.sock'}"},
        },
    )
    within = where.within("cluster")
    async with running(directory, within=within, hosts=(LOGIN_HOST, *hosts), **more) as heim:
        yield heim


@dataclass
class Agent:
    """`heim-agent` in the VLAN, with a state and a configuration of its own."""

    where: Network
    directory: Path
    ca_file: Path
    process: asyncio.subprocess.Process | None = None

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def log(self) -> str:
        file = self.directory / "agent.log"
        return file.read_text() if file.exists() else ""

    def events(self, name: str) -> list[dict[str, Any]]:
        """The entries of one kind in its log."""
        lines = [line for line in self.log.splitlines() if line.startswith("{")]
        return [entry for line in lines if (entry := json.loads(line)).get("event") == name]

    async def do(self, *words: str, stdin: bytes = b"", within_s: float = 20.0) -> tuple[int, str]:
        """A command of heim-agent to its end: its status, and all it said."""
        process = await asyncio.create_subprocess_exec(
            *self.where.within("vlan", HEIM_AGENT, *words),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(within_s):
            out, _ = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def join(self, token: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        status, said = await self.do(
            "join", f"https://{LOGIN_HOST}", "--token-file", "-",
            "--state", str(self.state), "--ca-file", str(self.ca_file),
            stdin=token.encode(),
        )  # fmt: skip
        assert status == 0, said

    async def run(self, **targets: dict[str, Any]) -> None:
        """Start serving; returns once it is connected."""
        lines = []
        for name, settings in targets.items():
            lines.append(f"[targets.{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        config = self.directory / "agent.toml"
        config.write_text("\n".join(lines) + "\n")
        with (self.directory / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.where.within(
                    "vlan", HEIM_AGENT, "run", "--config", str(config), "--state", str(self.state)
                ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self.connected()

    async def connected(self, within_s: float = 20.0) -> None:
        """Wait until `heim-agent status` says so."""
        async with asyncio.timeout(within_s):
            while (await self.do("status", "--state", str(self.state)))[0]:
                assert self.process is None or self.process.returncode is None, self.log
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


def environment(**more: str) -> dict[str, str]:
    """Where ssh finds heim-tunnel."""
    return {"PATH": f"{Path(HEIM_PROXY).parent}:{os.environ['PATH']}", **more}
