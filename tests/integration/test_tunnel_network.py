"""The tunnel over networks that are not as they should be. Numbers are tunnel.md's, section 6."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.heim import DOMAIN
from tests.fakes.tunnel import TcpServer
from tests.integration.network import PROXY_ADDRESS, Network, network
from tests.integration.services import finished
from tests.integration.tunnel import TunnelSite, run, tcp_backend, tunnel_site

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

MIB = 1024 * 1024


@dataclass(frozen=True)
class Apart:
    """A proxy at the far end of a network, with an echo behind it, which is here."""

    network: Network
    site: TunnelSite
    echo: TcpServer


@asynccontextmanager
async def apart(
    directory: Path, *, mtu: int = 1500, hosts: str = "127.0.0.1 localhost\n"
) -> AsyncIterator[Apart]:
    """A network of this kind (`tests.integration.network`) for the length of the block."""
    echo = await TcpServer().start(path=str(directory / "echo"))
    listeners = {
        "https": {"address": f"{PROXY_ADDRESS}:443"},
        "http": None,
        "admin": {"address": f"unix:{directory / 'admin.sock'}"},
    }
    try:
        async with (
            network(directory, mtu=mtu, hosts=hosts) as between,
            tunnel_site(
                directory,
                [tcp_backend("web1", f"unix:{directory / 'echo'}")],
                listeners=listeners,
                within=between.within("proxy"),
            ) as site,
        ):
            yield Apart(between, site, echo)
    finally:
        await echo.stop()


@pytest.mark.parametrize("mtu", [576, 1280])
async def test_63_a_path_narrower_than_its_ends_carries_everything(
    tmp_path: Path, mtu: int
) -> None:
    sent = random.Random(3).randbytes(4 * MIB)
    async with apart(tmp_path, mtu=mtu) as place:
        between, site = place.network, place.site
        command = site.command("web1", "--connect-to", f"{PROXY_ADDRESS}:443")
        done = await run(*between.within("client", *command), stdin=sent, env=site.env)
        # Both ends had to be told: they believed in 1500 bytes.
        found = await between.ip("client", "route", "get", PROXY_ADDRESS)
        found += await between.ip("proxy", "route", "get", "10.9.1.2")
    assert (done.status, done.err) == (0, "")
    assert hashlib.sha256(done.out).digest() == hashlib.sha256(sent).digest()
    assert re.findall(r"mtu (\d+)", found) == [str(mtu)] * 2


async def test_56_ipv6_that_leads_nowhere_holds_nobody_up(tmp_path: Path) -> None:
    """RFC 8305: what answers first is taken, although the system prefers the other."""
    hosts = f"2001:db8::1 web1.{DOMAIN}\n{PROXY_ADDRESS} web1.{DOMAIN}\n"
    async with apart(tmp_path, hosts=hosts) as place:
        between, site = place.network, place.site
        # A global address, and a neighbour that swallows all that is sent on.
        await between.ip("client", "address", "add", "2001:db8::2/64", "dev", "to-one", "nodad")
        mac = re.findall(r"link/ether (\S+)", await between.ip("one", "link", "show", "to-client"))
        await between.ip(
            "client", "neighbour", "add", "2001:db8::1", "lladdr", mac[0], "dev", "to-one"
        )
        before = await swallowed(between)
        began = time.monotonic()
        command = (site.command("web1")[0], "proxy", site.host("web1"))
        done = await run(*between.within("client", *command), stdin=b"six", env=site.env)
        took = time.monotonic() - began
        # It was tried, and first.
        assert await swallowed(between) > before
    assert (done.status, done.out, done.err) == (0, b"six", "")
    assert took < 3


async def swallowed(between: Network) -> int:
    """How many IPv6 packets the first router had no way for."""
    counted = await finished(*between.within("one", "cat", "/proc/net/snmp6"))
    return int(re.findall(rb"Ip6InNoRoutes\s+(\d+)", counted)[0])
