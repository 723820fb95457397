"""Networks of our own (Linux namespaces, root), held by a process for the length of a test."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.real import require
from tests.integration.services import finished

__all__ = ["PROXY_ADDRESS", "Network", "network", "networks"]

PROXY_ADDRESS: Final = "10.9.3.2"

# Names of networks are files in /run/netns: a /run of our own hides them from the machine.
PROLOGUE: Final = """\
set -eu
mount -t tmpfs none /run
mount --bind {hosts} /etc/hosts
"""
EPILOGUE: Final = """\
echo ready
exec sleep infinity
"""

# client 10.9.1.2 -- one -- 576 bytes or more -- two -- 10.9.3.2 proxy
SCRIPT: Final = """\
for name in client one two proxy; do
  ip netns add $name
  ip -n $name link set lo up
done
join() {{  # network address mtu, network address
  ip link add to-$4 netns $1 mtu $3 type veth peer name to-$1 mtu $3 netns $4
  ip -n $1 address add $2 dev to-$4
  ip -n $4 address add $5 dev to-$1
  ip -n $1 link set to-$4 up
  ip -n $4 link set to-$1 up
}}
join client 10.9.1.2/24 1500 one 10.9.1.1/24
join one 10.9.2.1/24 {mtu} two 10.9.2.2/24
join two 10.9.3.1/24 1500 proxy 10.9.3.2/24
ip -n client route add default via 10.9.1.1
ip -n one route add 10.9.3.0/24 via 10.9.2.2
ip -n two route add 10.9.1.0/24 via 10.9.2.1
ip -n proxy route add default via 10.9.3.1
for name in one two; do ip netns exec $name sysctl -qw net.ipv4.ip_forward=1; done
"""


@dataclass(frozen=True)
class Network:
    """Networks by name, as long as the process `pid` lives."""

    pid: int

    def within(self, name: str, *command: str) -> tuple[str, ...]:
        """The command that runs another one in that network; it becomes that one."""
        inside = ("ip", "netns", "exec", name)
        return (require("nsenter"), "--target", str(self.pid), "--mount", *inside, *command)

    async def ip(self, name: str, *words: str) -> str:
        """`ip` in that network; what it said."""
        return (await finished(*self.within(name, "ip", *words))).decode()

    async def lose_everything(self) -> None:
        """From now on nothing arrives, and nobody is told: no FIN, no RST, no ICMP."""
        for destination in ("10.9.1.0/24", "10.9.3.0/24"):
            await self.ip("one", "route", "replace", "blackhole", destination, "metric", "0")
            await self.ip("two", "route", "replace", "blackhole", destination, "metric", "0")


@asynccontextmanager
async def network(
    directory: Path, *, mtu: int = 1500, hosts: str = "127.0.0.1 localhost\n"
) -> AsyncIterator[Network]:
    """The networks `client` and `proxy`, with the routers `one` and `two` between them.

    Args:
        directory: For a file or two.
        mtu: Of the link between the routers, in bytes.
        hosts: What /etc/hosts says within.
    """
    async with networks(directory, SCRIPT.format(mtu=mtu), hosts=hosts) as found:
        yield found


@asynccontextmanager
async def networks(directory: Path, script: str, *, hosts: str) -> AsyncIterator[Network]:
    """Networks for the length of the block; skips where this machine does not let us.

    Args:
        directory: For a file or two.
        script: Shell commands that make them.
        hosts: What /etc/hosts says within.
    """
    unshare = require("unshare")
    made = subprocess.run([unshare, "--net", "--mount", "true"], capture_output=True, timeout=10)
    if made.returncode:
        pytest.skip(f"namespaces are not permitted here: {made.stderr.decode().strip()}")
    (directory / "hosts").write_text(hosts)
    process = await asyncio.create_subprocess_exec(
        unshare, "--net", "--mount", "sh", "-c",
        PROLOGUE.format(hosts=directory / "hosts") + script + EPILOGUE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(10):
            ready = await process.stdout.readline()
            assert ready == b"ready\n", (await process.stderr.read()).decode()
        yield Network(process.pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
