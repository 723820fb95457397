"""What an idle TLS connection holds: memory of the server before and after many of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.client import Connection
from bench.head import FIRST, script
from bench.peers.base import Server
from bench.scenarios import SCENARIOS
from bench.site import Site
from bench.verify import VerifyError, head_for, verify
from bench.wrk import CONNECTIONS, run

__all__ = ["MemoryResult", "MemorySample", "Sites", "measure"]

# Connections before the first look: what a server needs once is not a connection's.
_WARM_UP: Final = 50
# Heim allows 2,000 connections of one address; all of 127/8 is this machine.
_SOURCES: Final = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
_SETTLE_S: Final = 1.0

# Makes surroundings that nothing has been measured in.
Sites = Callable[[], Site]


@dataclass(frozen=True, slots=True)
class MemorySample:
    """PSS of a server's process tree, in bytes."""

    before: int
    after: int
    connections: int

    @property
    def per_connection_kib(self) -> float:
        return (self.after - self.before) / 1024 / self.connections


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """Samples by row: of a server that has just started, and of one that has been under load."""

    fresh: dict[str, list[MemorySample]]
    used: dict[str, list[MemorySample]]


def measure(
    site: Sites,
    peers: Mapping[str, Callable[[Site], Server]],
    *,
    names: Sequence[str],
    connections: int,
    rounds: int,
    tell: Callable[[str], None],
) -> MemoryResult:
    """Start each server anew for each sample, as heaps remember what they went through.

    Raises:
        VerifyError: A server answers wrongly, or closed idle connections.
    """
    result = MemoryResult({}, {})
    for number in range(rounds):
        for name in names:
            for label, samples in (("fresh", result.fresh), ("used", result.used)):
                tell(f"memory: {name}, {label}, round {number + 1} of {rounds}")
                place = site()
                server = peers[name](place)
                try:
                    sample = _sample(place, server, connections, used=label == "used")
                    samples.setdefault(name, []).append(sample)
                finally:
                    server.stop()
                    place.upstream.stop()
    return result


def _sample(site: Site, server: Server, connections: int, *, used: bool) -> MemorySample:
    entry = server.entries[0]
    cookie = server.cookie or "session=none"
    verify(site, server, entry, tls=True, cookie=cookie)
    if used:
        for name in ("tls-64k", "tls-1k"):
            scenario = SCENARIOS[name]
            lua = site.directory / f"{name}.lua"
            head = head_for(entry, scenario.size, tls=True, cookie=cookie)
            lua.write_text(script(head, scenario, connections=CONNECTIONS))
            url = f"https://{entry.host}:{server.https_port}/"
            run(url, lua, seconds=2, core=site.cores.load)
    context = site.client_context()
    request = head_for(entry, "1k", tls=True, cookie=cookie).numbered(FIRST)
    held: list[Connection] = []

    def hold(count: int) -> None:
        for number in range(count):
            source = _SOURCES[number % len(_SOURCES)]
            one = Connection(server.https_port, host=entry.host, context=context, source=source)
            held.append(one)
            if one.ask(request).status != 200:
                raise VerifyError(f"{server.name}: refused connection {number}")

    def let_go() -> None:
        while held:
            held.pop().close()

    try:
        hold(_WARM_UP)
        let_go()
        time.sleep(_SETTLE_S)
        before = server.program.pss_bytes()
        hold(connections)
        time.sleep(_SETTLE_S)
        after = server.program.pss_bytes()
        # The oldest still answers: what was counted was really held open.
        if held[0].ask(request).status != 200:
            raise VerifyError(f"{server.name}: does not answer on an idle connection")
        return MemorySample(before, after, connections)
    finally:
        let_go()
