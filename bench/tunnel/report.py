"""Tables of the tunnel's measures, and the issue's targets."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Final, TypeVar

from bench.report import Target, table
from bench.tunnel.bulk import BulkResult, BulkSample, paired
from bench.tunnel.latency import OpenSample, PingSample
from bench.tunnel.stalled import StallSample
from bench.tunnel.startup import StartSample
from bench.tunnel.wan import WanSample

__all__ = [
    "bulk_table",
    "bulk_targets",
    "open_table",
    "ping_table",
    "stall_table",
    "stall_targets",
    "start_table",
    "start_targets",
    "versions",
    "wan_table",
    "wan_targets",
]

T = TypeVar("T")

# Rows by the labels of their tunnels.
_HEIM: Final = "heim"
_MUX: Final = "heim mux at both ends"
_NGINX: Final = "nginx"
_NGINX_BOTH: Final = "nginx at both ends"
_PROXY_COMMAND: Final = "heim-tunnel proxy"

# The numbers.
_MAX_VS_NGINX: Final[Mapping[str, float]] = {"up": 1.3, "down": 1.0, "fifty": 1.3}
_MAX_MUX: Final = 1.76
_MAX_ECHO_MS: Final = 75.0
_MIN_MBIT: Final = 95.0
_MAX_SPREAD_PERCENT: Final = 3.0
_MAX_WALL_MS: Final = 50.0
_MAX_CPU_MS: Final = 40.0
# Beyond the stream's window: what may be on its way through the process.
_MAX_STALL_KIB: Final = 192.0


def bulk_table(result: BulkResult) -> str:
    """One transfer as a Markdown table: servers alone first, then pairs of ends; cheapest first."""
    columns = (
        "tunnel", "server CPU-s/GB", "min", "vs nginx", "both ends CPU-s/GB", "min",
        "vs nginx at both ends", "MB/s", "best",
    )  # fmt: skip
    rows = []
    for label, samples in _by(result.samples, lambda sample: sample.both):
        pair = any(sample.client_s for sample in samples)
        servers = [sample.server for sample in samples]
        both = [sample.both for sample in samples]
        rates = [sample.rate for sample in samples]
        rows.append(
            (
                label,
                f"{median(servers):.2f}",
                f"{min(servers):.2f}",
                _against(result, label, _NGINX, _server),
                f"{median(both):.2f}" if pair else "",
                f"{min(both):.2f}" if pair else "",
                _against(result, label, _NGINX_BOTH, _both) if pair else "",
                f"{median(rates):,.0f}",
                f"{max(rates):,.0f}",
            )
        )
    rows.sort(key=lambda row: bool(row[4]))
    return _titled(f"{result.bulk.title} ({result.bulk.name})", result.samples, columns, rows)


def ping_table(samples: Mapping[str, list[PingSample]]) -> str:
    """Round trips of 64 bytes."""
    columns = ("tunnel", "p50 µs", "p99 µs", "best p50", "server CPU µs", "both ends CPU µs")
    rows = [
        (
            label,
            f"{median(sample.p50_us for sample in found):.0f}",
            f"{median(sample.p99_us for sample in found):.0f}",
            f"{min(sample.p50_us for sample in found):.0f}",
            f"{median(sample.server_us for sample in found):.0f}",
            f"{median(sample.both_us for sample in found):.0f}",
        )
        for label, found in _by(samples, lambda sample: sample.p50_us)
    ]
    return _titled("64 bytes there and back (ping)", samples, columns, rows)


def open_table(samples: Mapping[str, list[OpenSample]]) -> str:
    """Streams opened for one echo each."""
    columns = ("tunnel", "streams/s", "best", "p50 ms", "server CPU µs", "both ends CPU µs")
    rows = [
        (
            label,
            f"{median(sample.per_second for sample in found):,.0f}",
            f"{max(sample.per_second for sample in found):,.0f}",
            f"{median(sample.p50_ms for sample in found):.1f}",
            f"{median(sample.server_us for sample in found):.0f}",
            f"{median(sample.both_us for sample in found):.0f}",
        )
        for label, found in _by(samples, lambda sample: -sample.per_second)
    ]
    title = "Streams opened for one echo, eight at a time (open)"
    return _titled(title, samples, columns, rows)


def start_table(samples: Mapping[str, list[StartSample]]) -> str:
    """From exec to the first byte."""
    columns = ("command", "first byte ms", "min", "CPU ms", "min")
    rows = [
        (
            label,
            f"{median(sample.wall_ms for sample in found):.1f}",
            f"{min(sample.wall_ms for sample in found):.1f}",
            f"{median(sample.cpu_ms for sample in found):.1f}",
            f"{min(sample.cpu_ms for sample in found):.1f}",
        )
        for label, found in _by(samples, lambda sample: sample.wall_ms)
    ]
    return _titled("From exec to the first byte (startup)", samples, columns, rows)


def stall_table(samples: Mapping[str, list[StallSample]]) -> str:
    """Memory of a server whose reader stopped."""
    columns = (
        "tunnel", "resident MiB before", "KiB more while it moves", "KiB more when it stops",
        "most", "window KiB", "load got rid of MB",
    )  # fmt: skip
    rows = [
        (
            label,
            f"{median(sample.before for sample in found) / 1024 / 1024:.0f}",
            f"{median(sample.moving - sample.before for sample in found) / 1024:.0f}",
            f"{median(sample.growth_kib for sample in found):.0f}",
            f"{max(sample.growth_kib for sample in found):.0f}",
            f"{max(sample.window for sample in found) / 1024:.0f}" if found[0].window else "",
            f"{median(sample.sent for sample in found) / 1e6:.1f}",
        )
        for label, found in _by(samples, lambda sample: sample.growth_kib)
    ]
    return _titled("1 GB for a reader that stops reading (stalled)", samples, columns, rows)


def wan_table(samples: Mapping[str, list[WanSample]]) -> str:
    """The slow link."""
    columns = (
        "tunnel", "idle: echo", "new stream", "1 upload: Mbit/s", "echo p50", "p95", "new stream",
        "4 uploads: Mbit/s each", "spread", "echo p50", "p95", "new stream",
    )  # fmt: skip
    rows = []
    for label, found in _by(samples, lambda sample: sample.one_p50):
        typical = sorted(found, key=lambda sample: sample.spread)[(len(found) - 1) // 2]
        rows.append(
            (
                label,
                f"{median(sample.idle_p50 for sample in found):.0f}",
                f"{median(sample.idle_open for sample in found):.0f}",
                f"{median(sample.one_rate for sample in found):.1f}",
                f"{median(sample.one_p50 for sample in found):.0f}",
                f"{median(sample.one_p95 for sample in found):.0f}",
                f"{median(sample.one_open for sample in found):.0f}",
                " ".join(f"{rate:.1f}" for rate in typical.four_rates),
                f"{typical.spread:.1%}",
                f"{median(sample.four_p50 for sample in found):.0f}",
                f"{median(sample.four_p95 for sample in found):.0f}",
                f"{median(sample.four_open for sample in found):.0f}",
            )
        )
    title = "100 Mbit/s, 40 ms round trip, 500 kB queue; times in ms (wan)"
    return _titled(title, samples, columns, rows)


def bulk_targets(result: BulkResult) -> list[Target]:
    """What is promised of transfers."""
    found = []
    samples, name = result.samples, result.bulk.name
    if _HEIM in samples and _NGINX in samples:
        value = paired(samples[_HEIM], samples[_NGINX], _server)
        text = f"{name}: CPU of the proxy process against nginx stream"
        found.append(Target(text, _MAX_VS_NGINX[name], value))
    if _MUX in samples:
        value = median(sample.both for sample in samples[_MUX])
        found.append(Target(f"{name}: CPU-s/GB of both ends of the mux", _MAX_MUX, value))
    return found


def start_targets(samples: Mapping[str, list[StartSample]]) -> list[Target]:
    """What is promised of start-up."""
    ours = samples.get(_PROXY_COMMAND)
    if not ours:
        return []
    wall = median(sample.wall_ms for sample in ours)
    cpu = median(sample.cpu_ms for sample in ours)
    return [
        Target("exec to first byte, ms", _MAX_WALL_MS, wall),
        Target("CPU of heim-tunnel proxy, ms", _MAX_CPU_MS, cpu),
    ]


def stall_targets(samples: Mapping[str, list[StallSample]]) -> list[Target]:
    """What is promised of memory: the worst sample counts."""
    ours = samples.get(_HEIM)
    if not ours:
        return []
    beyond = max(sample.growth_kib - sample.window / 1024 for sample in ours)
    text = "memory for a stalled reader beyond its window, KiB"
    return [Target(text, _MAX_STALL_KIB, beyond)]


def wan_targets(samples: Mapping[str, list[WanSample]]) -> list[Target]:
    """What is promised of the slow link; a rate has to be reached, so it is shown inverted."""
    ours = samples.get(_MUX)
    if not ours:
        return []
    rate = median(sample.one_rate for sample in ours)
    return [
        Target(
            "mux: echo p50 beside one upload, ms",
            _MAX_ECHO_MS,
            median(sample.one_p50 for sample in ours),
        ),
        Target(f"mux: {_MIN_MBIT:g} Mbit/s divided by the upload's rate", 1.0, _MIN_MBIT / rate),
        Target(
            "mux: four uploads, fastest less slowest, % of their mean",
            _MAX_SPREAD_PERCENT,
            median(sample.spread for sample in ours) * 100,
        ),
    ]


def versions() -> dict[str, str]:
    """What was compared, in the words of the programs."""
    commands = {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "stunnel": ["stunnel", "-version"],
        "openssh": ["ssh", "-V"],
        "websockify": ["dpkg-query", "-W", "-f", "${Version}", "websockify"],
        "go": ["go", "version"],
    }
    return {
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        **{name: _said(command) for name, command in commands.items()},
    }


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError:
        return "not installed"
    lines = [
        line for line in (done.stdout + done.stderr).splitlines() if any(map(str.isdigit, line))
    ]
    return lines[0].strip() if lines else "unknown"


def _server(sample: BulkSample) -> float:
    return sample.server


def _both(sample: BulkSample) -> float:
    return sample.both


def _against(result: BulkResult, label: str, other: str, of: Callable[[BulkSample], float]) -> str:
    theirs = result.samples.get(other)
    return f"{paired(result.samples[label], theirs, of):.2f}" if theirs else ""


def _by(samples: Mapping[str, list[T]], key: Callable[[T], float]) -> list[tuple[str, list[T]]]:
    return sorted(samples.items(), key=lambda item: median(map(key, item[1])))


def _titled(
    title: str,
    samples: Mapping[str, list[T]],
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> str:
    rounds = len(next(iter(samples.values())))
    return f"### {title}; rounds: {rounds}\n\n{table(columns, rows)}"
