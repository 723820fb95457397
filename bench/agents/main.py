"""`python -m bench agents [SCENARIO ...]`: measure agents, and a proxy that has many of them."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.agents import beside, crowd, pair, report
from bench.process import Cores, StartError
from bench.report import Target
from bench.tunnel import bulk, latency
from bench.tunnel.bulk import BULK
from bench.tunnel.ground import Ground
from bench.tunnel.load import Job
from bench.tunnel.main import conclude, go_first, load_average
from bench.tunnel.peers import mux, nginx, yamux
from bench.tunnel.peers.base import Missing, Start, Tunnel
from bench.tunnel.report import open_table, ping_table, versions
from bench.tunnel.run import LoadError, check
from heim_proxy.edge.admission import Limits

__all__ = ["main"]


PEERS: Final[Mapping[str, Start]] = {
    "agent": pair.start,
    "agent-tls": pair.start_by_people,
    "mux": mux.start,
    "nginx2": nginx.start_both,
    "yamux": yamux.start,
}
_ON_PAIR: Final = (*BULK, "ping", "open")
_SCENARIOS: Final = (*_ON_PAIR, "beside", "idle", "storm")
_CROWD: Final = 10_000
# Descriptors for visitors, and for connections that are refused.
_SPARE: Final = 100


class _Run:
    """One run: what was asked for, and what has been found."""

    def __init__(self, args: argparse.Namespace, directory: Path, cores: Cores) -> None:
        self._args = args
        self._directory = directory
        self._cores = cores
        self._rounds: int = args.rounds or (2 if args.quick else 5)
        self.found: dict[str, Any] = {}
        self.targets: list[Target] = []

    def run(self) -> None:
        """Every scenario that was asked for, each table as soon as it is there."""
        scenarios = self._args.scenarios or _SCENARIOS
        on_pair = [name for name in _ON_PAIR if name in scenarios]
        if on_pair:
            self._on_pair(on_pair)
        if "beside" in scenarios:
            self._beside()
        if "idle" in scenarios or "storm" in scenarios:
            self._crowd(storm="storm" in scenarios)

    def _on_pair(self, scenarios: Sequence[str]) -> None:
        with ExitStack() as stack:
            ground = Ground.loopback(self._directory / "pair", self._cores)
            stack.callback(ground.target.stop)
            tunnels = []
            for name, start in PEERS.items():
                if self._args.only and name not in self._args.only:
                    continue
                try:
                    tunnel = start(ground)
                except Missing as missing:
                    _tell(f"left out: {missing}")
                    continue
                stack.callback(tunnel.stop)
                check(ground.near, Job("check", tunnel.way))
                tunnels.append(tunnel)
            for name in scenarios:
                self._compare(ground, tunnels, name)

    def _compare(self, ground: Ground, tunnels: Sequence[Tunnel], name: str) -> None:
        told: dict[str, Any] = {"rounds": self._rounds, "tell": _tell}
        if name in BULK:
            seconds = self._args.seconds
            rest = seconds / 2 if self._args.urgent else 0.0
            moved = bulk.measure(ground, tunnels, BULK[name], seconds=seconds, rest=rest, **told)
            self._keep(name, moved, report.leg_table(moved), report.leg_targets(moved))
        elif name == "ping":
            pings = latency.measure_pings(ground, tunnels, **told)
            self._keep(name, pings, ping_table(pings), [])
        else:
            opens = latency.measure_opens(ground, tunnels, **told)
            self._keep(name, opens, open_table(opens), report.open_targets(opens))

    def _beside(self) -> None:
        ground = Ground.loopback(self._directory / "beside", self._cores)
        try:
            tunnel = pair.start(ground)
            try:
                rounds = min(self._rounds, 5)
                found = beside.measure(ground, tunnel, rounds=rounds, seconds=6.0, tell=_tell)
            finally:
                tunnel.stop()
        finally:
            ground.target.stop()
        self._keep("beside", found, report.beside_table(found), report.beside_targets(found))

    def _crowd(self, *, storm: bool) -> None:
        count = self._args.agents or min(_CROWD, Limits.for_process().connections - _SPARE)
        if count < _CROWD:
            _tell(f"crowd: {count} agents; more descriptors (ulimit -Hn) would allow more")
        idles: list[crowd.IdleSample] = []
        storms: list[crowd.StormSample] = []
        for number in range(1 if self._args.quick else min(self._rounds, 3)):
            directory = self._directory / f"crowd-{number}"
            with crowd.gathered(directory, self._cores, count, tell=_tell) as everybody:
                seconds = 30.0 if self._args.quick else 120.0
                idles.append(crowd.idle(everybody, seconds=seconds, tell=_tell))
                if storm:
                    storms.append(crowd.storm(everybody, self._cores, quiet_s=15.0, tell=_tell))
        self._keep("idle", idles, report.idle_table(idles), report.idle_targets(idles))
        if storm:
            self._keep("storm", storms, report.storm_table(storms), [])

    def _keep(self, name: str, found: object, shown: str, targets: list[Target]) -> None:
        self.found[name] = found
        self.targets += targets
        print(f"{shown}\n", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status, 0 also when a target was missed."""
    args = _arguments(argv)
    if shutil.which("nginx") is None:
        print("bench: needs nginx, and libnginx-mod-stream (Debian packages of these names)")
        return 1
    started = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    facts = {**versions(), "started": started, "load before": load_average()}
    try:
        cores = Cores()
        _raise_descriptor_limit()
        if args.urgent:
            go_first()
        # The harness itself must not disturb the servers' core.
        os.sched_setaffinity(0, {cores.load})
        with tempfile.TemporaryDirectory(prefix="heim-bench-") as directory:
            run = _Run(args, Path(directory), cores)
            run.run()
    except (StartError, LoadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    facts["load after"] = load_average()
    conclude(f"agents-{started}", facts, run.found, run.targets)
    return 0


def _raise_descriptor_limit() -> None:
    """As the proxy does itself; so that we know what it will allow."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench agents",
        description="Measure heim-agent beside other tunnels, and a proxy with 10,000 agents.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(_SCENARIOS))
    parser.add_argument("--rounds", type=int, help="samples of each (default 5; quick: 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a transfer (default 2)")
    parser.add_argument("--agents", type=int, help="how many are idle, and come back")
    parser.add_argument("--quick", action="store_true", help="few rounds: only a hint")
    parser.add_argument(
        "--urgent", action="store_true", help="before other programs, resting in between (root)"
    )
    parser.add_argument("--only", nargs="+", choices=list(PEERS), help="only these tunnels")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.scenarios) - set(_SCENARIOS))
    if unknown:
        parser.error(f"unknown scenario {', '.join(unknown)}; there are {', '.join(_SCENARIOS)}")
    return args
