"""Tables of what agents cost, and the issue's targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final

from bench.agents.beside import STALLS, BesideSample
from bench.agents.crowd import IdleSample, Quality, StormSample
from bench.report import Target, table
from bench.tunnel.bulk import BulkResult, BulkSample, paired
from bench.tunnel.latency import OpenSample

__all__ = [
    "beside_table",
    "beside_targets",
    "idle_table",
    "idle_targets",
    "leg_table",
    "leg_targets",
    "open_targets",
    "storm_table",
]

AGENT: Final = "heim agent"
_OTHERS: Final = ("nginx at both ends", "Go yamux, 6 MiB window")

# The numbers.
_MAX_LEG: Final = 1.76
_MIN_OPENS: Final = 1_500.0
_MAX_OPEN_MS: Final = 3.0
_MAX_IDLE_CORE: Final = 0.05
_MAX_BESIDE: Final = 2.0


def leg_table(result: BulkResult) -> str:
    """CPU of an agent's leg, both ends apart, beside other tunnels with two ends."""
    columns = (
        "tunnel", "far end (agent) CPU-s/GB", "near end (proxy)", "both ends", "min",
        "vs nginx at both ends", "vs Go yamux", "MB/s", "best",
    )  # fmt: skip
    ordered = sorted(result.samples.items(), key=lambda item: median(map(_both, item[1])))
    rows = [
        (
            label,
            f"{median(sample.server for sample in samples):.2f}",
            f"{median(sample.both - sample.server for sample in samples):.2f}",
            f"{median(map(_both, samples)):.2f}",
            f"{min(map(_both, samples)):.2f}",
            *(_ratio(result, label, other) for other in _OTHERS),
            f"{median(sample.rate for sample in samples):,.0f}",
            f"{max(sample.rate for sample in samples):,.0f}",
        )
        for label, samples in ordered
    ]
    rounds = len(next(iter(result.samples.values())))
    head = f"### {result.bulk.title} ({result.bulk.name}); rounds: {rounds}"
    return f"{head}\n\n{table(columns, rows)}"


def leg_targets(result: BulkResult) -> list[Target]:
    """What is promised of transfers, and what our peers make of it on this machine."""
    samples = result.samples.get(AGENT)
    if not samples:
        return []
    name = result.bulk.name
    return [Target(f"{name}: CPU-s/GB of proxy and agent", _MAX_LEG, median(map(_both, samples)))]


def open_targets(samples: Mapping[str, list[OpenSample]]) -> list[Target]:
    """What is promised of new streams; a rate has to be reached, so it is shown inverted."""
    ours = samples.get(AGENT)
    if not ours:
        return []
    rate = median(sample.per_second for sample in ours)
    return [
        Target(f"open: {_MIN_OPENS:,.0f}/s divided by streams/s", 1.0, _MIN_OPENS / rate),
        Target("open: p50, ms", _MAX_OPEN_MS, median(sample.p50_ms for sample in ours)),
    ]


def idle_table(samples: Sequence[IdleSample]) -> str:
    """Agents that do nothing."""
    columns = (
        "agents", "watched s", "CPU % of a core", "highest in 10 s", "resident MiB without",
        "with", "KiB per agent", "CPU ms to let one in",
    )  # fmt: skip
    rows = [
        (
            f"{sample.agents:,}",
            f"{sample.seconds:.0f}",
            f"{sample.core:.1%}",
            f"{max(sample.steps):.1%}",
            f"{sample.before / 1024 / 1024:.0f}",
            f"{sample.after / 1024 / 1024:.0f}",
            f"{sample.kib:.1f}",
            f"{sample.connect_cpu_ms:.2f}",
        )
        for sample in samples
    ]
    return f"### Agents that do nothing (idle); rounds: {len(samples)}\n\n{table(columns, rows)}"


def idle_targets(samples: Sequence[IdleSample]) -> list[Target]:
    """What is promised of agents that do nothing."""
    core = median(sample.core for sample in samples)
    return [Target("idle: part of a core", _MAX_IDLE_CORE, core)]


def storm_table(samples: Sequence[StormSample]) -> str:
    """The proxy is killed, and everybody comes back."""
    columns = (
        "agents", "listens again after s", "half ready s", "99 %", "all", "proxy's CPU s",
        "refused for now", "visitors before: p50 ms", "p99", "meanwhile: p50", "p99", "worst",
        "failed", "after: p99",
    )  # fmt: skip
    rows = [
        (
            f"{sample.agents:,}",
            f"{sample.start_s:.1f}",
            f"{sample.half_s:.0f}",
            f"{sample.most_s:.0f}",
            f"{sample.all_s:.0f}",
            f"{sample.cpu_s:.0f}",
            f"{_busy(sample):,}",
            *_times(sample.quiet),
            *_times(sample.meanwhile),
            f"{sample.meanwhile.worst:.0f}",
            f"{sample.meanwhile.failed}",
            _times(sample.calm)[1],
        )
        for sample in samples
    ]
    return f"### kill -9 of the proxy (storm); rounds: {len(samples)}\n\n{table(columns, rows)}"


def beside_table(samples: Mapping[str, list[BesideSample]]) -> str:
    """Live streams beside one that nobody reads."""
    columns = ("beside 500 live streams", "echo p50 ms", "p95", "p99", "p95 against nobody else")
    rows = [
        (
            STALLS[mode],
            *(
                f"{median(map(of, found)):.2f}"
                for of in (lambda one: one.p50, lambda one: one.p95, lambda one: one.p99)
            ),
            f"{_against_nobody(samples, mode):.2f}",
        )
        for mode, found in samples.items()
    ]
    rounds = len(next(iter(samples.values())))
    return f"### A stream that stalls (beside); rounds: {rounds}\n\n{table(columns, rows)}"


def beside_targets(samples: Mapping[str, list[BesideSample]]) -> list[Target]:
    """What is promised to the others."""
    return [
        Target(
            f"{STALLS[mode]}: p95 of the others against nobody else",
            _MAX_BESIDE,
            _against_nobody(samples, mode),
        )
        for mode in samples
        if mode
    ]


def _against_nobody(samples: Mapping[str, list[BesideSample]], mode: str) -> float:
    pairs = zip(samples[mode], samples[""], strict=True)
    return median(one.p95 / quiet.p95 for one, quiet in pairs)


def _busy(sample: StormSample) -> int:
    return sum(count for words, count in sample.other.items() if words.startswith("busy"))


def _times(quality: Quality) -> tuple[str, str]:
    return f"{quality.p50:.1f}", f"{quality.p99:.0f}"


def _both(sample: BulkSample) -> float:
    return sample.both


def _ratio(result: BulkResult, label: str, other: str) -> str:
    theirs = result.samples.get(other)
    of: Callable[[BulkSample], float] = _both
    return f"{paired(result.samples[label], theirs, of):.2f}" if theirs else ""
