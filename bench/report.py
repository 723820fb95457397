"""Tables, the issue's targets, and the JSON of a run."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.load import LoadResult, Sample
from bench.memory import MemoryResult, MemorySample
from bench.peers import BASELINE, WITH_AUTH

__all__ = [
    "Target",
    "as_json",
    "load_table",
    "machine",
    "memory_table",
    "paired_ratio",
    "table",
    "targets",
]

# The numbers.
_MAX_VS_NGINX_1K: Final = 1.5
_MAX_VS_AUTH_1K: Final = 1.0
_MAX_VS_NGINX_64K: Final = 0.8
_MAX_IDLE_KIB: Final = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """One promise and how it went."""

    text: str
    limit: float
    value: float

    @property
    def met(self) -> bool:
        return self.value <= self.limit

    @property
    def line(self) -> tuple[str, ...]:
        return self.text, f"≤ {self.limit:g}", f"{self.value:.2f}", "yes" if self.met else "NO"


def paired_ratio(ours: Sequence[Sample], theirs: Sequence[Sample]) -> float:
    """Median over the rounds of our CPU per request divided by theirs in the same round."""
    return median(a.us / b.us for a, b in zip(ours, theirs, strict=True))


def load_table(result: LoadResult) -> str:
    """One scenario as a Markdown table, cheapest first."""
    columns = (
        "server",
        "CPU µs/request",
        "min",
        "of which auth service",
        "vs nginx",
        "vs nginx+auth",
        "req/s",
        "best",
        "p50 ms",
        "p99 ms",
        "errors",
    )
    rows = []
    for label, samples in sorted(
        result.samples.items(), key=lambda item: median(s.us for s in item[1])
    ):
        bursts = [sample.burst for sample in samples]
        beside = median(sample.beside_us for sample in samples)
        rates = [burst.per_second for burst in bursts]
        rows.append(
            (
                label,
                f"{median(sample.us for sample in samples):.1f}",
                f"{min(sample.us for sample in samples):.1f}",
                f"{beside:.1f}" if beside else "",
                _against(result, label, BASELINE),
                _against(result, label, WITH_AUTH),
                f"{median(rates):,.0f}",
                f"{max(rates):,.0f}",
                f"{median(burst.p50_us for burst in bursts) / 1000:.2f}",
                f"{median(burst.p99_us for burst in bursts) / 1000:.2f}",
                f"{sum(burst.errors for burst in bursts) or ''}",
            )
        )
    rounds = len(next(iter(result.samples.values())))
    title = f"### {result.scenario.title} ({result.scenario.name}; rounds: {rounds})"
    return f"{title}\n\n{table(columns, rows)}"


def memory_table(result: MemoryResult) -> str:
    """Memory per idle connection as a Markdown table."""
    columns = (
        "server",
        "connections",
        "fresh: MiB before",
        "MiB after",
        "KiB per connection",
        "after load: MiB before",
        "MiB after",
        "KiB per connection",
    )
    rows = [
        (name, f"{samples[0].connections:,}", *_memory(samples), *_memory(result.used[name]))
        for name, samples in result.fresh.items()
    ]
    return f"### Idle TLS connections (memory)\n\n{table(columns, rows)}"


def targets(loads: Iterable[LoadResult], memory: MemoryResult | None) -> list[Target]:
    """What of the issue's promises this run can tell about."""
    found = []
    for result in loads:
        scenario = result.scenario
        heim = "heim" if scenario.tls else "heim, public backend"
        ours, nginx, auth = (result.samples.get(name) for name in (heim, BASELINE, WITH_AUTH))
        if scenario.rate is not None or not ours:
            continue
        over = "TLS" if scenario.tls else "plain (public backend)"
        limit = _MAX_VS_NGINX_1K if scenario.size == "1k" else _MAX_VS_NGINX_64K
        if nginx:
            text = f"{scenario.size}, {over}: CPU against nginx"
            found.append(Target(text, limit, paired_ratio(ours, nginx)))
        if auth and scenario.size == "1k":
            text = f"{scenario.size}, {over}: CPU against nginx + auth_request with its service"
            found.append(Target(text, _MAX_VS_AUTH_1K, paired_ratio(ours, auth)))
    if memory is not None and "heim" in memory.fresh:
        for when, by_name in (("fresh", memory.fresh), ("after load", memory.used)):
            value = median(sample.per_connection_kib for sample in by_name["heim"])
            found.append(Target(f"idle TLS connection, {when}: KiB", _MAX_IDLE_KIB, value))
    return found


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also readable as it is."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *rest = (
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join((first, *rest)) + " |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join((line(columns), line(rule), *(line(row) for row in rows)))


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    versions = {
        name: _first_line(command)
        for name, command in (
            ("nginx", ["nginx", "-v"]),
            ("haproxy", ["haproxy", "-v"]),
            ("caddy", ["caddy", "version"]),
            ("wrk", ["wrk", "-v"]),
        )
    }
    return {
        "cpu": model,
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **versions,
    }


def as_json(value: object) -> Any:
    """Results as plain values, every sample kept."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value


def _against(result: LoadResult, label: str, other: str) -> str:
    theirs = result.samples.get(other)
    return f"{paired_ratio(result.samples[label], theirs):.2f}" if theirs else ""


def _memory(samples: Sequence[MemorySample]) -> tuple[str, str, str]:
    mib = 1024 * 1024
    return (
        f"{median(sample.before for sample in samples) / mib:.0f}",
        f"{median(sample.after for sample in samples) / mib:.0f}",
        f"{median(sample.per_connection_kib for sample in samples):.1f}",
    )


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    text = (done.stdout + done.stderr).strip()
    return text.splitlines()[0] if text else "unknown"
