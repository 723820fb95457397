"""`python -m bench controller`: a cluster's worth of Ingresses, from objects to answers."""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.controller import change, churn, proxy_side, report, rotation, translate
from bench.controller.town import town
from bench.report import Target, machine
from bench.tunnel.main import conclude, load_average

__all__ = ["main"]

_SCENARIOS: Final = ("build", "change", "rotation", "churn")
_CHURN_S: Final = 60.0
_CHANGES_PER_SECOND: Final = 20.0


class _Run:
    """One run: what was asked for, and what has been found."""

    def __init__(self, args: argparse.Namespace, directory: Path) -> None:
        self._args = args
        self._directory = directory
        self._number = 0
        self.found: dict[str, Any] = {}
        self.targets: list[Target] = []

    async def run(self) -> None:
        """Every scenario that was asked for, each table as soon as it is there."""
        scenarios = self._args.scenarios or _SCENARIOS
        if "build" in scenarios:
            self._build()
        if "change" in scenarios:
            await self._change()
        if "rotation" in scenarios:
            await self._rotation()
        if "churn" in scenarios:
            await self._churn()

    @property
    def _place(self) -> Path:
        self._number += 1
        return self._directory / str(self._number)

    def _build(self) -> None:
        rounds = self._args.rounds
        samples = []
        for number in range(rounds):
            count = self._args.ingresses or 5000
            one = translate.measure(count, rounds=9)
            two = proxy_side.measure(count, rounds=5)
            samples.append((one, two))
            _tell(f"build {number + 1}/{rounds}: translation {one.cpu:.0f} ms")
        self._keep("build", samples, report.build_table(samples), report.build_targets(samples))
        print(f"{report.lookup_table(samples)}\n", flush=True)
        self.targets += report.lookup_targets(samples)

    async def _change(self) -> None:
        samples = []
        for count in [self._args.ingresses] if self._args.ingresses else [10, 1000, 5000]:
            async with town(self._place, count) as made:
                _tell(f"change: {count} Ingresses are served")
                samples.append(await change.measure(made, self._args.changes, tell=_tell))
        self._keep("change", samples, report.change_table(samples), report.change_targets(samples))

    async def _rotation(self) -> None:
        sample = await rotation.measure(
            self._place,
            connections=self._args.connections,
            seconds=self._args.seconds or 60,
            tell=_tell,
        )
        targets = report.none_targets([sample], [])
        self._keep("rotation", [sample], report.rotation_table([sample]), targets)

    async def _churn(self) -> None:
        async with town(self._place, self._args.ingresses or 1000) as made:
            sample = await churn.measure(
                made,
                seconds=self._args.seconds or _CHURN_S,
                per_second=_CHANGES_PER_SECOND,
                tell=_tell,
            )
        for wrong in sample.wrong[:20]:
            _tell(f"churn: wrong: {wrong}")
        targets = report.none_targets([], [sample])
        self._keep("churn", [sample], report.churn_table([sample]), targets)

    def _keep(self, name: str, found: object, shown: str, targets: list[Target]) -> None:
        self.found[name] = found
        self.targets += targets
        print(f"{shown}\n\nLoad average: {load_average()}\n", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit status, 0 also when a target was missed."""
    args = _arguments(argv)
    started = time.strftime("%Y-%m-%dT%H%M%SZ", time.gmtime())
    facts = {**machine(), "started": started, "load before": load_average()}
    # 1,000 connections have two ends, and the proxy inherits what we may.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="heim-bench-") as directory:
        run = _Run(args, Path(directory))
        asyncio.run(run.run())
    facts["load after"] = load_average()
    conclude(f"controller-{started}", facts, run.found, run.targets)
    return 0


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench controller",
        description="Measure what heim-controller and heim-proxy make of large clusters.",
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(_SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3, help="processes of `build` (default 3)")
    parser.add_argument("--ingresses", type=int, help="another size, and only that")
    parser.add_argument("--changes", type=int, default=60, help="of each size (default 60)")
    parser.add_argument("--connections", type=int, default=1000, help="in `rotation`")
    parser.add_argument("--seconds", type=int, help="of `rotation` and `churn` (default 60)")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.scenarios) - set(_SCENARIOS))
    if unknown:
        parser.error(f"unknown scenario {', '.join(unknown)}; there are {', '.join(_SCENARIOS)}")
    return args
