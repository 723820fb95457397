from __future__ import annotations

import enum
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heim_proxy.observe.metrics import (
    BUCKETS_S,
    FAMILIES,
    MAX_LABELS,
    Kind,
    LabelledCounter,
    Metrics,
)


class Reason(enum.Enum):
    NO_ROLE = "no_role"


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """(name, labels as a=b,c=d) to value, of what a scrape shows."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            found[sample.name, labels] = sample.value
    return found


def test_requests_are_counted_by_class_with_their_time_and_bytes() -> None:
    metrics = Metrics(version="1")
    stats = metrics.backend("grafana")
    for status in (200, 204, 302, 404, 502, 0, 999):
        stats.count(status, 0.02, 10, 100)
    found = samples(metrics)
    counted = {
        labels.rpartition("=")[2]: value
        for (name, labels), value in found.items()
        if name == "heim_requests_total"
    }
    assert counted == {"other": 2, "1xx": 0, "2xx": 2, "3xx": 1, "4xx": 1, "5xx": 1}
    assert found["heim_request_body_bytes_total", "backend=grafana"] == 70
    assert found["heim_response_body_bytes_total", "backend=grafana"] == 700
    assert found["heim_request_duration_seconds_sum", "backend=grafana"] == pytest.approx(0.14)
    assert found["heim_request_duration_seconds_count", "backend=grafana"] == 7


def test_the_histogram_is_cumulative_and_its_bounds_are_inclusive() -> None:
    metrics = Metrics(version="1")
    stats = metrics.backend("a")
    for seconds in (0.0, 0.005, 0.0051, 60.0, 1e6):
        stats.count(200, seconds, 0, 0)
    found = samples(metrics)
    name = "heim_request_duration_seconds_bucket"
    counts = [found[name, f"backend=a,le={bound}"] for bound in (*BUCKETS_S, "+Inf")]
    assert counts[:2] == [2, 3]
    assert counts[-2:] == [4, 5]
    assert counts == sorted(counts)


def test_a_backend_keeps_its_counters_until_it_is_gone_from_the_configuration() -> None:
    metrics = Metrics(version="1")
    metrics.backend("a").count(200, 0, 0, 0)
    metrics.backend("b").count(200, 0, 0, 0)
    assert metrics.backend("a") is metrics.backend("a")
    metrics.keep_backends(["a"])
    assert "b" not in {labels for _, labels in samples(metrics) if labels == "backend=b"}
    assert samples(metrics)["heim_requests_total", "backend=a,class=2xx"] == 1


def test_values_that_others_know_are_asked_for_at_each_scrape() -> None:
    metrics = Metrics(version="1.2.3")
    sessions = [1.0]
    metrics.expose("heim_sessions", lambda: sessions[0])
    metrics.expose("heim_certificate_not_after_seconds", lambda: {"tls/a.crt": 5.0, "b": 6.0})
    assert samples(metrics)["heim_sessions", ""] == 1
    sessions[0] = 2
    found = samples(metrics)
    assert found["heim_sessions", ""] == 2
    assert found["heim_certificate_not_after_seconds", "name=tls/a.crt"] == 5
    assert found["heim_info", "version=1.2.3"] == 1
    assert found["process_open_fds", ""] > 0
    assert ("heim_exchanges", "") not in found


def test_values_may_have_several_labels() -> None:
    metrics = Metrics(version="1")
    metrics.expose("heim_agent_streams_total", lambda: {("desktop", "opened"): 3.0})
    found = samples(metrics)
    assert found["heim_agent_streams_total", "agent=desktop,result=opened"] == 3


def test_one_broken_source_does_not_blind_the_others(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics(version="1")

    def broken() -> float:
        raise OSError

    metrics.expose("heim_sessions", broken)
    metrics.expose("heim_exchanges", lambda: 3)
    assert samples(metrics)["heim_exchanges", ""] == 3
    assert "metrics.source_failed" in caplog.messages


@pytest.mark.parametrize("name", ["heim_unheard_of", "heim_requests_total"])
def test_only_families_of_the_table_can_be_exposed(name: str) -> None:
    with pytest.raises(KeyError):
        Metrics(version="1").expose(name, lambda: 1)


def test_reasons_are_counted_by_the_enums_value() -> None:
    metrics = Metrics(version="1")
    metrics.denied.add(Reason.NO_ROLE)
    metrics.denied.add("no_role", 2)
    assert samples(metrics)["heim_denied_total", "reason=no_role"] == 3


def test_labels_are_bounded_whoever_chooses_them() -> None:
    """security.md R4."""
    counter = LabelledCounter()
    for number in range(10_000):
        counter.add(f"reason {number}")
    read = counter.read()
    assert len(read) == MAX_LABELS + 1
    assert read["other"] == 10_000 - MAX_LABELS


def test_a_label_cannot_forge_a_sample() -> None:
    metrics = Metrics(version="1")
    metrics.denied.add('x"} 1\nheim_sessions 99\n')
    assert ("heim_sessions", "") not in samples(metrics)


def test_every_name_follows_the_conventions() -> None:
    for family in FAMILIES:
        assert re.fullmatch(r"heim_[a-z_]+", family.name)
        assert family.name.endswith("_total") is (family.kind is Kind.COUNTER)
        assert family.help.endswith(".")
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


def test_what_was_read_is_written_in_another_thread_whatever_happens_meanwhile() -> None:
    metrics = Metrics(version="1")
    agents = {"desktop": 1.0}
    metrics.expose("heim_agents_connected", lambda: agents)
    stats = metrics.backend("a")
    stats.count(200, 0.01, 0, 0)
    write = metrics.read()
    stats.count(200, 0.01, 0, 0)
    agents.clear()
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(write).result().decode()
    assert 'heim_requests_total{backend="a",class="2xx"} 1.0' in text
    assert 'heim_agents_connected{agent="desktop"} 1.0' in text
