"""`python -m bench [SCENARIO ...]`: measure Heim beside its peers, print tables, keep the JSON.

The tunnel, agents and the controller have scenarios of their own:
`python -m bench tunnel|agents|controller [SCENARIO ...]`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import load, memory, report
from bench.agents import main as agents
from bench.controller import main as controller
from bench.load import LoadResult
from bench.peers import PEERS
from bench.peers.base import Server
from bench.process import Cores, StartError
from bench.scenarios import MEMORY, SCENARIOS
from bench.site import Site
from bench.tunnel import main as tunnel
from bench.verify import VerifyError, check_access_log
from bench.wrk import WrkError

_OUT = Path(__file__).with_name("out")
# Caddy is no reference for memory; nginx + auth_request has nginx's connections.
_MEMORY_PEERS = ("heim", "nginx", "haproxy")
_MEMORY_ROUNDS = 3
_PROGRAMS = ("nginx", "haproxy", "caddy", "wrk")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status, 0 also when a target was missed."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["agents"]:
        return agents.main(words[1:])
    if words[:1] == ["controller"]:
        return controller.main(words[1:])
    if words[:1] == ["tunnel"]:
        return tunnel.main(words[1:])
    args = _arguments(words)
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        print(f"bench: needs {', '.join(missing)} (Debian packages of the same name)")
        return 1
    rounds = args.rounds or (2 if args.quick else 7)
    scenarios = args.scenarios or [*SCENARIOS, MEMORY]
    names = [name for name in PEERS if not args.only or name in args.only]
    try:
        cores = Cores()
        # The harness itself must not disturb the servers' core.
        os.sched_setaffinity(0, {cores.load})
        with tempfile.TemporaryDirectory(prefix="heim-bench-") as directory:
            return _run(args, Path(directory), cores, scenarios, names, rounds)
    except (StartError, VerifyError, WrkError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _run(
    args: argparse.Namespace,
    directory: Path,
    cores: Cores,
    scenarios: Sequence[str],
    names: Sequence[str],
    rounds: int,
) -> int:
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = {**report.machine(), "started": started, "load before": _load_average()}
    loads: list[LoadResult] = []
    wanted = [SCENARIOS[name] for name in scenarios if name != MEMORY]
    if wanted:
        with ExitStack() as stack:
            site, servers = _start_all(stack, directory / "load", cores, names)
            cookie = next((s.cookie for s in servers if s.cookie), "session=none")
            for scenario in wanted:
                result = load.measure(
                    site,
                    servers,
                    scenario,
                    cookie=cookie,
                    rounds=rounds,
                    seconds=args.seconds,
                    tell=_tell,
                )
                loads.append(result)
                _check_logs(servers, loads)
                print(f"{report.load_table(result)}\n", flush=True)
    facts["load after"] = _load_average()
    held = None
    if MEMORY in scenarios:
        held = memory.measure(
            _sites(directory, cores),
            PEERS,
            names=[name for name in _MEMORY_PEERS if name in names],
            connections=300 if args.quick else 2000,
            rounds=min(rounds, _MEMORY_ROUNDS),
            tell=_tell,
        )
        print(f"{report.memory_table(held)}\n", flush=True)
    _finish(facts, loads, held, quick=args.quick)
    return 0


def _start_all(
    stack: ExitStack, directory: Path, cores: Cores, names: Sequence[str]
) -> tuple[Site, list[Server]]:
    directory.mkdir()
    site = Site.open(directory, cores)
    stack.callback(site.upstream.stop)
    servers = []
    for name in names:
        server = PEERS[name](site)
        stack.callback(server.stop)
        servers.append(server)
    return site, servers


def _sites(directory: Path, cores: Cores) -> memory.Sites:
    """Makes a new site with an upstream of its own each time it is called."""

    def make() -> Site:
        return Site.open(Path(tempfile.mkdtemp(dir=directory)), cores)

    return make


def _check_logs(servers: Sequence[Server], loads: Sequence[LoadResult]) -> None:
    """Every server has logged what it answered in all scenarios so far."""
    # nginx flushes its buffer every second.
    time.sleep(1.2)
    for server in servers:
        labels = {entry.label for entry in server.entries}
        bursts = (
            sample.burst
            for result in loads
            for label, samples in result.samples.items()
            if label in labels
            for sample in samples
        )
        check_access_log(server, sum(burst.requests for burst in bursts))


def _finish(
    facts: dict[str, str],
    loads: list[LoadResult],
    held: memory.MemoryResult | None,
    *,
    quick: bool,
) -> None:
    targets = report.targets(loads, held)
    if targets:
        print("### Targets\n")
        columns = ("what", "target", "measured", "met")
        print(report.table(columns, [target.line for target in targets]) + "\n")
    for name, value in facts.items():
        print(f"- {name}: {value}")
    if loads:
        print(f"- request head: {loads[0].head_bytes} bytes")
    if quick:
        print("- quick run: numbers are only a hint")
    _OUT.mkdir(exist_ok=True)
    path = _OUT / f"{facts['started'].replace(':', '')}.json"
    path.write_text(
        json.dumps(
            report.as_json({"facts": facts, "loads": loads, "memory": held, "targets": targets}),
            indent=1,
        )
    )
    print(f"- kept in {path}")


def _load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Compare Heim with nginx, nginx + auth_request, haproxy and caddy.",
    )
    known = [*SCENARIOS, MEMORY]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(known)}")
    parser.add_argument("--rounds", type=int, help="bursts per server (default 7; quick: 2)")
    parser.add_argument("--seconds", type=int, default=1, help="length of a burst (default 1)")
    parser.add_argument("--quick", action="store_true", help="few rounds, few connections")
    parser.add_argument("--only", nargs="+", choices=list(PEERS), help="only these servers")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.scenarios) - set(known))
    if unknown:
        parser.error(f"unknown scenario {', '.join(unknown)}; there are {', '.join(known)}")
    return args


if __name__ == "__main__":
    raise SystemExit(main())
