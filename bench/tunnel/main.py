"""`python -m bench tunnel [SCENARIO ...]`: measure the tunnel beside others, print tables."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.process import Cores, StartError
from bench.report import Target, as_json, table
from bench.tunnel import bulk, latency, report, stalled, startup, wan
from bench.tunnel.bulk import BULK
from bench.tunnel.ground import HOST, Ground
from bench.tunnel.link import reason_not
from bench.tunnel.load import Job
from bench.tunnel.peers import haproxy, heim, mux, nginx, rathole, ssh, stunnel, websockify, yamux
from bench.tunnel.peers.base import Missing, Start, Tunnel
from bench.tunnel.run import LoadError, check

__all__ = ["go_first", "load_average", "main"]

_OUT: Final = Path(__file__).parents[1] / "out"

# Everything that carries bulk, by the name it is chosen by.
PEERS: Final[Mapping[str, Start]] = {
    "heim": heim.start,
    "nginx": nginx.start,
    "haproxy": haproxy.start,
    "stunnel": stunnel.start,
    "websockify": websockify.start,
    "mux": mux.start,
    "forward": heim.start_forward,
    "nginx2": nginx.start_both,
    "stunnel2": stunnel.start_both,
    "ssh": ssh.start,
    "rathole": rathole.start,
    "yamux": yamux.start,
}
_OPENERS: Final = ("mux", "forward", "nginx2", "stunnel2", "ssh", "rathole", "yamux")
_STALLED: Final = ("heim", "mux", "nginx", "haproxy", "stunnel", "websockify", "yamux")
_WAN: Final[Mapping[str, Start]] = {
    "mux": mux.start,
    "forward": heim.start_forward,
    "nginx2": nginx.start_both,
    "ssh": ssh.start,
    "rathole": rathole.start,
    "yamux": yamux.start,
    "yamux256": yamux.start_small,
}
_SCENARIOS: Final = (*BULK, "ping", "open", "startup", "stalled", "wan")
_STARTS: Final = 30


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
        on_loopback = [name for name in scenarios if name not in ("stalled", "wan")]
        if on_loopback:
            with ExitStack() as stack:
                ground = Ground.loopback(self._directory / "loopback", self._cores)
                stack.callback(ground.target.stop)
                tunnels = self._start(stack, ground, on_loopback)
                for name in on_loopback:
                    self._loopback(ground, tunnels, name)
        if "stalled" in scenarios:
            self._stalled()
        if "wan" in scenarios:
            self._wan()

    def _start(
        self, stack: ExitStack, ground: Ground, scenarios: Iterable[str]
    ) -> dict[str, Tunnel]:
        names: set[str] = set()
        for scenario in scenarios:
            names.update(_needed(scenario))
        tunnels = {}
        for name in (name for name in PEERS if name in names and self._wanted(name)):
            try:
                tunnel = PEERS[name](ground)
            except Missing as missing:
                _tell(f"left out: {missing}")
                continue
            stack.callback(tunnel.stop)
            check(ground.near, Job("check", tunnel.way))
            tunnels[name] = tunnel
        return tunnels

    def _loopback(self, ground: Ground, tunnels: Mapping[str, Tunnel], name: str) -> None:
        chosen = [tunnel for key, tunnel in tunnels.items() if key in _needed(name)]
        told: dict[str, Any] = {"rounds": self._rounds, "tell": _tell}
        if name in BULK:
            seconds = self._args.seconds
            rest = seconds if self._args.urgent else 0.0
            moved = bulk.measure(ground, chosen, BULK[name], seconds=seconds, rest=rest, **told)
            self._keep(name, moved, report.bulk_table(moved), report.bulk_targets(moved))
        elif name == "ping":
            pings = latency.measure_pings(ground, chosen, **told)
            self._keep(name, pings, report.ping_table(pings), [])
        elif name == "open":
            opens = latency.measure_opens(ground, chosen, **told)
            self._keep(name, opens, report.open_table(opens), [])
        else:
            self._startup(ground)

    def _startup(self, ground: Ground) -> None:
        proxy = heim.open_heim(ground, "heim-startup")
        try:
            words, environment = proxy.client("proxy", HOST)
            starts = startup.measure(
                ground.near,
                [startup.python_alone(), startup.Command("heim-tunnel proxy", words, environment)],
                ground.room("bytecode"),
                rounds=max(_STARTS, self._rounds),
                tell=_tell,
            )
        finally:
            proxy.server.stop()
        self._keep("startup", starts, report.start_table(starts), report.start_targets(starts))

    def _stalled(self) -> None:
        starts = [PEERS[name] for name in _STALLED if self._wanted(name)]
        rounds = min(self._rounds, 3)
        found = stalled.measure(self._directory, self._cores, starts, rounds=rounds, tell=_tell)
        self._keep("stalled", found, report.stall_table(found), report.stall_targets(found))

    def _wan(self) -> None:
        reason = reason_not()
        if reason:
            _tell(f"left out: wan: {reason}")
            return
        starts = [start for name, start in _WAN.items() if self._wanted(name)]
        rounds = min(self._rounds, 3)
        slow = wan.measure(self._directory, self._cores, starts, rounds=rounds, tell=_tell)
        self._keep("wan", slow, report.wan_table(slow), report.wan_targets(slow))

    def _wanted(self, name: str) -> bool:
        return not self._args.only or name in self._args.only

    def _keep(self, name: str, found: object, shown: str, targets: list[Target]) -> None:
        self.found[name] = found
        self.targets += targets
        print(f"{shown}\n", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status, 0 also when a target was missed."""
    args = _arguments(argv)
    missing = [name for name in ("nginx", "haproxy", "openssl") if shutil.which(name) is None]
    if missing:
        print(f"bench: needs {', '.join(missing)} (Debian packages of the same name)")
        return 1
    facts = {**report.versions(), "load before": load_average()}
    started = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    try:
        cores = Cores()
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
    conclude(f"tunnel-{started}", facts, run.found, run.targets)
    return 0


def _needed(scenario: str) -> Iterable[str]:
    """Which peers a scenario compares."""
    chosen: dict[str, Iterable[str]] = {"open": _OPENERS, "startup": ()}
    return chosen.get(scenario, PEERS)


def conclude(
    name: str, facts: Mapping[str, object], found: object, targets: Sequence[Target]
) -> None:
    """Print the targets and the facts of a run, and keep all of it under `name`."""
    if targets:
        columns = ("what", "target", "measured", "met")
        print("### Targets\n")
        print(table(columns, [target.line for target in targets]) + "\n")
    for fact, value in facts.items():
        print(f"- {fact}: {value}")
    _OUT.mkdir(exist_ok=True)
    path = _OUT / f"{name}.json"
    kept = {"facts": facts, "found": found, "targets": targets}
    path.write_text(json.dumps(as_json(kept), indent=1))
    print(f"- kept in {path}")


def go_first() -> None:
    """Put this session before all others (man 7 sched, autogroup): nice alone does not.

    Raises:
        StartError: The kernel does not group by session, or this is not root.
    """
    try:
        Path("/proc/self/autogroup").write_text("-20")
    except OSError as error:
        raise StartError(f"--urgent: {error}") from error


def load_average() -> str:
    """Of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench tunnel",
        description="Compare Heim's tunnel with nginx stream, haproxy, stunnel, ssh -L and others.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(_SCENARIOS))
    parser.add_argument("--rounds", type=int, help="samples of each tunnel (default 5; quick: 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a transfer (default 2)")
    parser.add_argument("--quick", action="store_true", help="few rounds: only a hint")
    parser.add_argument(
        "--urgent", action="store_true", help="before other programs, resting half the time (root)"
    )
    names = [*PEERS, *(name for name in _WAN if name not in PEERS)]
    parser.add_argument("--only", nargs="+", choices=names, help="only these tunnels")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.scenarios) - set(_SCENARIOS))
    if unknown:
        parser.error(f"unknown scenario {', '.join(unknown)}; there are {', '.join(_SCENARIOS)}")
    return args
