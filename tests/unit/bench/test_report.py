from __future__ import annotations

import json

import pytest
from bench.load import LoadResult, Sample
from bench.memory import MemoryResult, MemorySample
from bench.report import as_json, load_table, memory_table, paired_ratio, table, targets
from bench.scenarios import SCENARIOS
from bench.wrk import Burst


def sample(us: int, beside_us: int = 0, *, errors: int = 0) -> Sample:
    burst = Burst(1000, 1000 * 1024, 1_000_000, 900, 2000, errors)
    return Sample(burst, us * 1_000_000, beside_us * 1_000_000)


def result(name: str = "tls-1k", **samples: list[Sample]) -> LoadResult:
    by_label = {label.replace("_", "+"): found for label, found in samples.items()}
    return LoadResult(SCENARIOS[name], 449, {}, by_label)


def test_ratio_is_taken_within_each_round_and_then_the_median() -> None:
    """A disturbed round slows everybody: medians of each column would give 20/10 = 2."""
    ours = [sample(15), sample(20), sample(60)]
    theirs = [sample(10), sample(10), sample(40)]
    assert paired_ratio(ours, theirs) == 1.5


def test_an_authentication_service_counts_to_its_server() -> None:
    found = targets(
        [result(heim=[sample(20)], nginx=[sample(10)], nginx_auth=[sample(17, 8)])], None
    )
    assert [(target.value, target.met) for target in found] == [(2.0, False), (0.8, True)]


def test_a_target_is_met_exactly_at_its_limit_and_missed_above() -> None:
    at, above = (
        targets([result(heim=[sample(us)], nginx=[sample(100)])], None)[0] for us in (150, 151)
    )
    assert (at.met, above.met) == (True, False)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        pytest.param("tls-1k", 2, id="1 KiB: against nginx and nginx+auth"),
        pytest.param("tls-64k", 1, id="64 KiB: against nginx"),
        pytest.param("latency", 0, id="latency promises nothing"),
    ],
)
def test_each_scenario_is_held_to_its_own_promises(name: str, count: int) -> None:
    one = [sample(10)]
    assert len(targets([result(name, heim=one, nginx=one, nginx_auth=one)], None)) == count


def test_memory_is_told_per_connection_fresh_and_used() -> None:
    mib = 1024 * 1024
    fresh, used = MemorySample(50 * mib, 90 * mib, 2048), MemorySample(60 * mib, 140 * mib, 2048)
    held = MemoryResult({"heim": [fresh]}, {"heim": [used]})
    assert [target.value for target in targets([], held)] == [20.0, 40.0]
    assert "20.0" in memory_table(held)


def test_errors_are_shown_and_summed() -> None:
    cells = load_table(result(nginx=[sample(10, errors=2), sample(10, errors=5)])).split("|")
    assert cells[-2].strip() == "7"


def test_table_is_markdown_with_aligned_columns() -> None:
    lines = table(("server", "µs"), [("heim", "20.1"), ("nginx", "9.0")]).splitlines()
    assert lines[1] == "| ------ | ---: |"
    assert lines[3] == "| nginx  |  9.0 |"


def test_json_keeps_every_sample() -> None:
    kept = json.loads(json.dumps(as_json([result(nginx=[sample(10), sample(11)])])))
    assert [one["cpu_ns"] for one in kept[0]["samples"]["nginx"]] == [10_000_000, 11_000_000]
