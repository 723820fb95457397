"""Tables of what the controller and the proxy make of a cluster, and the issue's targets."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

from bench.controller.change import ChangeSample, percentile
from bench.controller.churn import ChurnSample
from bench.controller.proxy_side import Part, ProxySample
from bench.controller.rotation import RotationSample
from bench.controller.translate import TranslationSample
from bench.report import Target, table

__all__ = [
    "build_table",
    "build_targets",
    "change_table",
    "change_targets",
    "churn_table",
    "lookup_table",
    "lookup_targets",
    "none_targets",
    "rotation_table",
]

# The numbers.
_MAX_BUILD_MS: Final = 300.0
_MAX_GROWTH_MIB: Final = 80.0
_MAX_LOOKUP_US: Final = 3.0
_MAX_P50_S: Final = 0.5
_MAX_P99_S: Final = 1.0

Builds = Sequence[tuple[TranslationSample, ProxySample]]


def build_table(samples: Builds) -> str:
    """Translation and snapshot, step by step."""
    columns = ("step", "where", "one changed: CPU ms", "wall ms", "all: CPU ms", "wall ms")
    rows: list[tuple[str, ...]] = [
        (
            "translate, canonical JSON",
            "controller",
            f"{median(one.cpu for one, _ in samples):.0f}",
            f"{median(one.wall for one, _ in samples):.0f}",
            f"{median(one.whole_cpu for one, _ in samples):.0f}",
            f"{median(one.whole_wall for one, _ in samples):.0f}",
        )
    ]
    for name in samples[0][1].first:
        later = [two.again[name] for _, two in samples]
        first = [two.first[name] for _, two in samples]
        rows.append((name, "proxy", *_both(later), *_both(first)))
    totals = [[cell(one, two) for one, two in samples] for cell in (_later, _first)]
    rows.append(("together", "", *(text for each in totals for text in _both(each))))
    one, _ = samples[0]
    head = (
        f"### {one.ingresses:,} Ingresses, {one.paths:,} paths, {one.document_mb:.2f} MB (build); "
        f"processes of each: {len(samples)}"
    )
    memory = table(
        ("memory, MiB more than before", "at the highest", "kept"),
        [
            (
                "controller, without its caches",
                f"{median(one.high_mib for one, _ in samples):.0f}",
                f"{median(one.kept_mib for one, _ in samples):.0f}",
            ),
            ("proxy, first document", f"{_first_high(samples):.0f}", ""),
            (
                "proxy, later ones while the last is in force",
                f"{median(two.high_mib for _, two in samples):.0f}",
                f"{median(two.kept_mib for _, two in samples):.0f}",
            ),
        ],
    )
    return f"{head}\n\n{table(columns, rows)}\n\n{memory}"


def build_targets(samples: Builds) -> list[Target]:
    """Time of both programs together; memory of each by itself, because they are two pods."""
    return [
        Target(
            "build: CPU ms of both, a later document",
            _MAX_BUILD_MS,
            median(_later(one, two).cpu for one, two in samples),
        ),
        Target(
            "build: CPU ms of both, the first document",
            _MAX_BUILD_MS,
            median(_first(one, two).cpu for one, two in samples),
        ),
        Target(
            "build: MiB more in the controller",
            _MAX_GROWTH_MIB,
            median(one.high_mib for one, _ in samples),
        ),
        Target("build: MiB more in the proxy, first", _MAX_GROWTH_MIB, _first_high(samples)),
        Target(
            "build: MiB more in the proxy, with the one in force",
            _MAX_GROWTH_MIB,
            median(two.high_mib for _, two in samples),
        ),
    ]


def lookup_table(samples: Builds) -> str:
    """A host among thousands."""
    columns = ("hosts", "host µs", "host and path µs", "unknown host µs")
    found = [two for _, two in samples]
    row = (
        f"{found[0].hosts:,}",
        f"{median(one.lookup_us for one in found):.2f}",
        f"{median(one.match_us for one in found):.2f}",
        f"{median(one.unknown_us for one in found):.2f}",
    )
    return f"### Host look-up (lookup)\n\n{table(columns, [row])}"


def lookup_targets(samples: Builds) -> list[Target]:
    """What is promised of look-ups; the path is counted in."""
    found = median(two.match_us for _, two in samples)
    return [Target("lookup: µs for a host and its path", _MAX_LOOKUP_US, found)]


def change_table(samples: Sequence[ChangeSample]) -> str:
    """From a change to what people see of it."""
    columns = (
        "Ingresses", "changes", "p50 s", "p90", "p99", "worst", "of it until published: p50", "p99",
        "wrong answers",
    )  # fmt: skip
    rows = [
        (
            f"{one.ingresses:,}",
            f"{len(one.served)}",
            f"{percentile(one.served, 50):.2f}",
            f"{percentile(one.served, 90):.2f}",
            f"{percentile(one.served, 99):.2f}",
            f"{max(one.served):.2f}",
            f"{percentile(one.published, 50):.2f}",
            f"{percentile(one.published, 99):.2f}",
            f"{len(one.wrong)}",
        )
        for one in samples
    ]
    return f"### One Ingress changed → served (change)\n\n{table(columns, rows)}"


def change_targets(samples: Sequence[ChangeSample]) -> list[Target]:
    """What is promised of changes, for each size."""
    return [
        target
        for one in samples
        for target in (
            Target(
                f"change, {one.ingresses:,} Ingresses: p50 s",
                _MAX_P50_S,
                percentile(one.served, 50),
            ),
            Target(
                f"change, {one.ingresses:,} Ingresses: p99 s",
                _MAX_P99_S,
                percentile(one.served, 99),
            ),
        )
    ]


def churn_table(samples: Sequence[ChurnSample]) -> str:
    """Who answers while everything changes."""
    columns = (
        "Ingresses", "seconds", "changes", "answers", "of a Service", "404: deleted", "others",
        "wrong", "right everywhere s after the last change",
    )  # fmt: skip
    rows = [
        (
            f"{one.ingresses:,}",
            f"{one.seconds:.0f}",
            f"{one.changes:,}",
            f"{one.asked:,}",
            f"{one.answers.get('a Service', 0):,}",
            f"{one.answers.get('404', 0):,}",
            f"{one.asked - one.answers.get('a Service', 0) - one.answers.get('404', 0):,}",
            f"{len(one.wrong)}",
            f"{one.late_s:.1f}",
        )
        for one in samples
    ]
    return f"### Ingresses that change all the time (churn)\n\n{table(columns, rows)}"


def rotation_table(samples: Sequence[RotationSample]) -> str:
    """A certificate that is replaced every second."""
    columns = (
        "connections", "seconds", "certificates", "of them shown", "an older one shown again",
        "requests on them", "new handshakes", "failed",
    )  # fmt: skip
    rows = [
        (
            f"{one.connections:,}",
            f"{one.seconds:.0f}",
            f"{one.rotated}",
            f"{one.shown}",
            f"{one.back}",
            f"{one.requests:,}",
            f"{one.handshakes:,}",
            "; ".join(f"{count} {what}" for what, count in one.failed.items()) or "0",
        )
        for one in samples
    ]
    return f"### A certificate replaced every second (rotation)\n\n{table(columns, rows)}"


def none_targets(
    rotations: Sequence[RotationSample], churns: Sequence[ChurnSample]
) -> list[Target]:
    """What must not happen at all."""
    found: list[Target] = []
    if rotations:
        failed = sum(sum(one.failed.values()) for one in rotations)
        found.append(Target("rotation: failed requests and handshakes", 0, failed))
    if churns:
        found.append(Target("churn: wrong answers", 0, sum(len(one.wrong) for one in churns)))
    return found


def _sum(parts: Sequence[Part]) -> Part:
    return Part(sum(one.cpu for one in parts), sum(one.wall for one in parts))


def _later(one: TranslationSample, two: ProxySample) -> Part:
    return _sum([Part(one.cpu, one.wall), *two.again.values()])


def _first(one: TranslationSample, two: ProxySample) -> Part:
    return _sum([Part(one.whole_cpu, one.whole_wall), *two.first.values()])


def _both(parts: Sequence[Part]) -> tuple[str, str]:
    return f"{median(one.cpu for one in parts):.0f}", f"{median(one.wall for one in parts):.0f}"


def _first_high(samples: Builds) -> float:
    return median(two.first_high_mib for _, two in samples)
