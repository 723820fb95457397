"""Load scenarios: bursts on every server in turn, in a new order each round.

Whatever else the machine does meets all servers of a round alike, so the ratio within a round is
steadier than the numbers; tables show its median.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.head import FIRST, script
from bench.peers.base import Entry, Server
from bench.scenarios import Scenario
from bench.site import Site
from bench.verify import VerifyError, head_for, verify
from bench.wrk import CONNECTIONS, Burst, run

__all__ = ["LoadResult", "Sample", "measure"]

# For the last connections to close, so that their end counts to the burst that opened them.
_SETTLE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """One burst. CPU in nanoseconds; `beside_ns` is the authentication service's."""

    burst: Burst
    cpu_ns: int
    beside_ns: int

    @property
    def own_us(self) -> float:
        """CPU microseconds per request of the server alone."""
        return self.cpu_ns / 1000 / self.burst.requests

    @property
    def beside_us(self) -> float:
        return self.beside_ns / 1000 / self.burst.requests

    @property
    def us(self) -> float:
        """CPU microseconds per request, with everything it needs."""
        return self.own_us + self.beside_us


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Samples by row, one per round and in the same order everywhere."""

    scenario: Scenario
    head_bytes: int
    ciphers: dict[str, str]
    samples: dict[str, list[Sample]]


@dataclass(frozen=True, slots=True)
class _Way:
    """An entry of a server with what wrk needs for it."""

    server: Server
    entry: Entry
    url: str
    lua: Path


def measure(
    site: Site,
    servers: Sequence[Server],
    scenario: Scenario,
    *,
    cookie: str,
    rounds: int,
    seconds: int,
    tell: Callable[[str], None],
) -> LoadResult:
    """Verify every server, then load them for `rounds` rounds of `seconds` each.

    Raises:
        VerifyError: A server answers wrongly; nothing was measured.
    """
    ways, ciphers, head_bytes = [], {}, 0
    for server in servers:
        for entry in server.entries:
            if entry.tls_only and not scenario.tls:
                continue
            ciphers[entry.label] = verify(site, server, entry, tls=scenario.tls, cookie=cookie)
            way, head_bytes = _prepare(site, server, entry, scenario, cookie)
            ways.append(way)
    for way in ways:
        # Connections to the upstream, caches, the session's row and its assertion.
        run(way.url, way.lua, seconds=1, core=site.cores.load)
    samples: dict[str, list[Sample]] = {way.entry.label: [] for way in ways}
    for number in range(rounds):
        tell(f"{scenario.name}: round {number + 1} of {rounds}")
        for way in secrets.SystemRandom().sample(ways, len(ways)):
            samples[way.entry.label].append(_burst(site, way, scenario, seconds))
    return LoadResult(scenario, head_bytes, ciphers, samples)


def _prepare(
    site: Site, server: Server, entry: Entry, scenario: Scenario, cookie: str
) -> tuple[_Way, int]:
    head = head_for(entry, scenario.size, tls=scenario.tls, cookie=cookie)
    lua = site.directory / f"{scenario.name}-{entry.label.replace(' ', '-')}.lua"
    lua.write_text(script(head, scenario, connections=CONNECTIONS))
    scheme, port = ("https", server.https_port) if scenario.tls else ("http", server.http_port)
    way = _Way(server, entry, f"{scheme}://{entry.host}:{port}/", lua)
    return way, len(head.numbered(FIRST))


def _burst(site: Site, way: _Way, scenario: Scenario, seconds: int) -> Sample:
    server, beside = way.server.program, way.server.beside
    before = server.cpu_ns(), beside.cpu_ns() if beside else 0
    burst = run(way.url, way.lua, seconds=seconds, core=site.cores.load)
    time.sleep(_SETTLE_S)
    after = server.cpu_ns(), beside.cpu_ns() if beside else 0
    if burst.bytes < burst.requests * scenario.body_bytes:
        raise VerifyError(f"{way.entry.label}: answers were shorter than they should be")
    return Sample(burst, after[0] - before[0], after[1] - before[1])
