"""What the controller counts, and how Prometheus reads it.

Everything that is exposed is in one table, `FAMILIES`, which the documentation is checked against.
Nothing is kept for metrics: they are read off the parts when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

__all__ = ["CONTENT_TYPE", "FAMILIES", "Family", "Readings", "exposition"]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True)
class Family:
    """One exposed metric. `name` is as scraped; `labels` are what its samples are told apart by."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


Readings: TypeAlias = Mapping[str, Mapping[tuple[str, ...], float]]
"""Values by family and labels; a family without labels has the key ()."""

FAMILIES: Final = (
    Family("heim_controller_leader", "gauge", "1 while this replica writes."),
    Family("heim_controller_synced", "gauge", "1 once everything in the cluster was seen."),
    Family("heim_controller_objects", "gauge", "Objects in memory.", ("resource",)),
    Family("heim_controller_watch_lists_total", "counter", "Lists begun.", ("resource",)),
    Family("heim_controller_watch_restarts_total", "counter", "Watches renewed.", ("resource",)),
    Family(
        "heim_controller_watch_gone_total",
        "counter",
        "Versions compacted meanwhile.",
        ("resource",),
    ),
    Family(
        "heim_controller_watch_errors_total", "counter", "Lists and watches failed.", ("resource",)
    ),
    Family(
        "heim_controller_watch_silence_seconds",
        "gauge",
        "Since the API server last said anything.",
        ("resource",),
    ),
    Family(
        "heim_controller_denied",
        "gauge",
        "1 for what the API server forbids to read.",
        ("resource",),
    ),
    Family("heim_controller_requests_total", "counter", "Requests to the API server."),
    Family("heim_controller_request_failures_total", "counter", "Of them, those that failed."),
    Family("heim_controller_lease_failures_total", "counter", "Renewals of the Lease that failed."),
    Family("heim_controller_translations_total", "counter", "Translations."),
    Family("heim_controller_translation_seconds", "gauge", "How long the last one took."),
    Family("heim_controller_failures_total", "counter", "Steps that failed.", ("step",)),
    Family("heim_controller_diagnostics", "gauge", "What there is to say now.", ("reason",)),
    Family("heim_controller_routes", "gauge", "Routes of the last translation."),
    Family("heim_controller_document_bytes", "gauge", "Size of the document."),
    Family("heim_controller_published_total", "counter", "ConfigMaps written."),
    Family("heim_controller_refused", "gauge", "1 while a translation is not published."),
    Family("heim_controller_applied", "gauge", "1 while the proxy has what is published."),
    Family("heim_controller_mirrors_total", "counter", "Mirrored Secrets.", ("outcome",)),
    Family("heim_controller_status_writes_total", "counter", "Status writes.", ("outcome",)),
    Family("heim_controller_events_total", "counter", "Events.", ("outcome",)),
    Family(
        "heim_controller_certificate_not_after_seconds",
        "gauge",
        "When the certificate in use expires (epoch).",
        ("namespace", "secret"),
    ),
    Family("heim_controller_info", "gauge", "Always 1; the version is a label.", ("version",)),
)


def exposition(read: Callable[[], Readings]) -> bytes:
    """The text that Prometheus scrapes, with what `read` says now."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(read))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, read: Callable[[], Readings]) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        readings = self._read()
        for family in FAMILIES:
            values = readings.get(family.name, {})
            made: CounterMetricFamily | GaugeMetricFamily
            if family.kind == "counter":
                made = CounterMetricFamily(family.name, family.help, labels=family.labels)
            else:
                made = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for labels, value in sorted(values.items()):
                made.add_metric(labels, value)
            yield made

    def describe(self) -> Iterable[Metric]:
        return ()
