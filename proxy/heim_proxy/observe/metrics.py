"""What the proxy counts, and how Prometheus reads it.

The data plane adds to plain integers; nothing of prometheus_client is touched until somebody
scrapes. Everything that is exposed is in one table, `FAMILIES`, which the documentation is
checked against. Labels are bounded: backends and certificates come from configuration, reasons
and outcomes from enums, and never a path, a user or an address.
"""

from __future__ import annotations

import bisect
import enum
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

__all__ = [
    "BUCKETS_S",
    "CONTENT_TYPE",
    "FAMILIES",
    "BackendStats",
    "Family",
    "Kind",
    "LabelledCounter",
    "Metrics",
]

log = logging.getLogger(__name__)

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

# Upper bounds in seconds: an in-cluster answer takes 1-5 ms, a page 0.1-1 s; beyond a minute it is
# a stream or an upload, whose length says nothing about how the service does.
BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_FIRST_BUCKET_S: Final = BUCKETS_S[0]

# More distinct reasons than any of our enums has; what comes after is counted as "other".
MAX_LABELS: Final = 32

# Upstreams choose their status codes, so they are counted by class: 1xx to 5xx, and what is none.
_CLASSES: Final = ("other", "1xx", "2xx", "3xx", "4xx", "5xx")


class Kind(enum.Enum):
    """How a family's values behave."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """One exposed metric. `name` is as scraped; `labels` are what its samples are told apart by."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

FAMILIES: Final = (
    Family("heim_requests_total", _C, "Requests that ended.", ("backend", "class")),
    Family("heim_request_duration_seconds", _H, "First byte in to last byte out.", ("backend",)),
    Family("heim_request_body_bytes_total", _C, "Body bytes sent to upstreams.", ("backend",)),
    Family("heim_response_body_bytes_total", _C, "Body bytes sent to clients.", ("backend",)),
    Family("heim_denied_total", _C, "Refused at a backend: sign-in, origin, policy.", ("reason",)),
    Family("heim_requests_rejected_total", _C, "Requests refused before routing.", ("reason",)),
    Family("heim_upstream_failures_total", _C, "Forwarding that failed.", ("reason",)),
    Family("heim_exchanges_ended_total", _C, "Exchanges ended before their end.", ("reason",)),
    Family("heim_logins_total", _C, "Sign-ins that ended.", ("outcome",)),
    Family(
        "heim_identity_provider_failing",
        _G,
        "1 if what sign-ins last asked of it failed.",
        ("provider",),
    ),
    Family("heim_store_errors_total", _C, "Store operations that failed.", ("operation",)),
    Family("heim_connections", _G, "Client connections open.", ("listener",)),
    Family("heim_connections_accepted_total", _C, "Connections accepted.", ("listener",)),
    Family("heim_connections_refused_total", _C, "Connections closed unserved.", ("reason",)),
    Family("heim_tls_handshake_failures_total", _C, "TLS handshakes that failed.", ("reason",)),
    Family("heim_exchanges", _G, "Requests and streams in flight."),
    Family("heim_sessions", _G, "Sessions in memory."),
    Family("heim_tunnel_streams", _G, "Tunnel streams open."),
    Family("heim_tunnel_streams_opened_total", _C, "Tunnel streams opened."),
    Family(
        "heim_tunnel_bytes_total", _C, "Bytes of tunnel streams, open ones too.", ("direction",)
    ),
    Family("heim_tunnel_refused_total", _C, "Tunnel requests refused.", ("code",)),
    Family("heim_agents_connected", _G, "Machines connected.", ("agent",)),
    Family("heim_agent_lanes", _G, "Connections of agents.", ("agent",)),
    Family(
        "heim_agent_streams_total", _C, "Streams asked of agents, by result.", ("agent", "result")
    ),
    Family(
        "heim_agent_certificate_expires_seconds",
        _G,
        "When the first certificate in use ends (epoch).",
        ("agent",),
    ),
    Family("heim_agent_refused_total", _C, "Connections of agents not let in.", ("reason",)),
    Family("heim_agent_duplicates_total", _C, "Machines refused for having another one's key."),
    Family("heim_config_generation", _G, "Generation of the configuration in force."),
    Family("heim_config_last_reload_successful", _G, "1 if the last reload was applied, else 0."),
    Family("heim_config_last_reload_timestamp_seconds", _G, "When the last reload was tried."),
    Family("heim_config_source_lost", _G, "1 while a changed document would go unnoticed."),
    Family("heim_certificate_not_after_seconds", _G, "When it expires (epoch).", ("name",)),
    Family("heim_certificate_rejected", _G, "1 if the files hold a bad pair.", ("name",)),
    Family(
        "heim_certificate_info",
        _G,
        "Always 1; what is in force, in hexadecimal.",
        ("name", "serial", "sha256"),
    ),
    Family("heim_access_log_dropped_total", _C, "Access log lines lost."),
    Family("heim_loop_lag_seconds", _G, "Longest stall of the event loop since the last scrape."),
    Family("heim_info", _G, "Always 1; the version is a label.", ("version",)),
)

_BY_NAME: Final = {family.name: family for family in FAMILIES}

Reading = float | Mapping[str, float] | Mapping[tuple[str, ...], float]


class BackendStats:
    """The counters of one backend: plain integers, written by the data plane."""

    __slots__ = ("buckets", "classes", "down", "name", "seconds", "up")

    def __init__(self, name: str) -> None:
        self.name = name
        self.classes = [0] * len(_CLASSES)
        # Each request is in the one bucket it falls into; the sums are made when scraped.
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0
        self.up = 0
        self.down = 0

    def count(self, status: int, seconds: float, up: int, down: int) -> None:
        """Count one request that ended.

        Args:
            status: What the client was answered; 0 when it left before an answer.
            seconds: How long it took.
            up: Body bytes from the client.
            down: Body bytes to the client.
        """
        self.classes[status // 100 if 100 <= status < 600 else 0] += 1
        # Most answers take less than the first bound.
        bucket = 0 if seconds <= _FIRST_BUCKET_S else bisect.bisect_left(BUCKETS_S, seconds)
        self.buckets[bucket] += 1
        self.seconds += seconds
        self.up += up
        self.down += down


class LabelledCounter:
    """A counter for each of a few labels; those beyond `MAX_LABELS` are counted as "other"."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, label: str | enum.Enum, amount: int = 1) -> None:
        """Count `amount` more for `label`; an enum member counts for its value."""
        name = str(label.value) if isinstance(label, enum.Enum) else label
        counts = self._counts
        if name not in counts and len(counts) >= MAX_LABELS:
            name = "other"
        counts[name] = counts.get(name, 0) + amount

    def read(self) -> Mapping[str, float]:
        """The counts so far."""
        return dict(self._counts)


class Metrics:
    """Everything that is exposed. One per process.

    The labelled counters are added to where those things happen. Everything that somebody else
    already knows (how many sessions, which generation) is attached with `expose` and asked for
    when scraped.
    """

    def __init__(self, *, version: str) -> None:
        self._backends: dict[str, BackendStats] = {}
        self._readings: dict[str, Callable[[], Reading]] = {}
        self.denied = LabelledCounter()
        self.rejected = LabelledCounter()
        self.upstream_failures = LabelledCounter()
        self.ended = LabelledCounter()
        self.logins = LabelledCounter()
        self.store_errors = LabelledCounter()
        self.tunnel_refused = LabelledCounter()
        self.expose("heim_denied_total", self.denied.read)
        self.expose("heim_requests_rejected_total", self.rejected.read)
        self.expose("heim_upstream_failures_total", self.upstream_failures.read)
        self.expose("heim_exchanges_ended_total", self.ended.read)
        self.expose("heim_logins_total", self.logins.read)
        self.expose("heim_store_errors_total", self.store_errors.read)
        self.expose("heim_tunnel_refused_total", self.tunnel_refused.read)
        self.expose("heim_info", lambda: {version: 1.0})
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Exposition(self))
        # process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds, ...
        ProcessCollector(registry=self._registry)

    def backend(self, name: str) -> BackendStats:
        """The counters of a backend, made when first asked for; `name` is from configuration."""
        stats = self._backends.get(name)
        if stats is None:
            stats = self._backends[name] = BackendStats(name)
        return stats

    def keep_backends(self, names: Iterable[str]) -> None:
        """Forget the counters of backends that are no longer configured."""
        kept = set(names)
        self._backends = {name: s for name, s in self._backends.items() if name in kept}

    def expose(self, name: str, read: Callable[[], Reading]) -> None:
        """Say where the values of a family come from.

        Args:
            name: One of `FAMILIES`, no histogram; asked for twice, the later wins.
            read: Called for every scrape: a number, or numbers by label (by labels, in order,
                where there are several).

        Raises:
            KeyError: When no such family is in the table.
        """
        family = _BY_NAME[name]
        if family.kind is Kind.HISTOGRAM or "class" in family.labels:
            raise KeyError(f"{name} is counted per backend, not read")
        self._readings[name] = read

    def render(self) -> bytes:
        """The text exposition, of type `CONTENT_TYPE`."""
        return self.read()()

    def read(self) -> Callable[[], bytes]:
        """Read everything now; what is returned writes the exposition of that, in any thread.

        With 5,000 agents it takes 0.2 s to write, for which nobody's request should wait.
        """
        return partial(generate_latest, _Read(list(self._registry.collect())))

    def collect(self) -> Iterator[Metric]:
        """All families that have a source, as prometheus_client wants them."""
        stats = list(self._backends.values())
        yield from _backend_families(stats)
        for name, read in self._readings.items():
            family = _BY_NAME[name]
            try:
                reading = read()
            except Exception:
                # One source that fails must not blind the operator for all the others.
                log.exception("metrics.source_failed", extra={"metric": name})
                continue
            yield _simple(family, reading)


class _Exposition(Collector):
    """What prometheus_client calls when scraped."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.collect()


class _Read(Collector):
    """What was collected."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


def _simple(family: Family, reading: Reading) -> Metric:
    make = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    metric = make(family.name, family.help, labels=family.labels)
    if isinstance(reading, Mapping):
        for label, value in reading.items():
            metric.add_metric([label] if isinstance(label, str) else label, value)
    else:
        metric.add_metric([], reading)
    return metric


def _backend_families(stats: list[BackendStats]) -> Iterator[Metric]:
    requests, duration, up, down = FAMILIES[:4]
    counted = CounterMetricFamily(requests.name, requests.help, labels=requests.labels)
    timed = HistogramMetricFamily(duration.name, duration.help, labels=duration.labels)
    sent = CounterMetricFamily(up.name, up.help, labels=up.labels)
    answered = CounterMetricFamily(down.name, down.help, labels=down.labels)
    for backend in stats:
        for word, count in zip(_CLASSES, backend.classes, strict=True):
            counted.add_metric([backend.name, word], count)
        timed.add_metric([backend.name], _cumulative(backend.buckets), backend.seconds)
        sent.add_metric([backend.name], backend.up)
        answered.add_metric([backend.name], backend.down)
    yield from (counted, timed, sent, answered)


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    """Counts per bucket to what the exposition wants: counts up to each bound, +Inf last."""
    total = 0
    rows: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
        total += count
        rows.append((bound, total))
    return rows
