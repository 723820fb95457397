from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench.controller import change, proxy_side, report, translate
from bench.controller.change import ChangeSample, percentile, times_of
from bench.controller.churn import ChurnSample, History
from bench.controller.proxy_side import lookup_us
from bench.controller.rotation import RotationSample


def test_who_answers_is_judged_by_what_was_seen_before() -> None:
    history = History("a")
    assert history.judge("a", history.seen)
    history.change("b")
    # Nobody has seen the new one yet: both are right.
    before = history.seen
    assert history.judge("a", before)
    assert history.judge("b", before)
    # A question from before may still be answered by the old one, a later one not.
    assert history.judge("a", before)
    assert not history.judge("a", history.seen)
    assert not history.judge("c", history.seen)


def test_a_state_that_comes_back_is_right_again() -> None:
    history = History("a")
    history.change("b")
    assert history.judge("b", history.seen)
    assert not history.judge("a", history.seen)
    history.change("a")
    assert history.judge("a", history.seen)
    assert not history.judge("b", history.seen)
    assert history.now == "a"


def test_a_state_that_nobody_saw_may_be_skipped() -> None:
    history = History("a")
    history.change("404")
    history.change("b")
    assert history.judge("b", history.seen)
    assert not history.judge("404", history.seen)


def test_times_come_from_a_log_and_belong_to_the_change_before_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    times = ("2026-01-01T00:00:01.500000+00:00", "2026-01-01T00:00:03.000000+00:00")
    lines = [json.dumps({"event": "controller.published", "time": time}) for time in times]
    log.write_text("\n".join([*lines, json.dumps({"event": "other", "time": times[0]})]))
    found = list(times_of(log, "controller.published"))
    assert found[1] - found[0] == 1.5
    began = [found[0] - 0.25, found[0] + 1.0, found[1] + 5]
    assert list(change._first_after(began, found)) == pytest.approx([0.25, 0.5])


@pytest.mark.parametrize(("percent", "value"), [(50, 50.5), (99, 99.01)])
def test_percentiles_are_between_the_values(percent: int, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], percent) == pytest.approx(value)


def test_lookups_are_counted_each() -> None:
    asked: list[object] = []
    assert lookup_us(asked.append, ["a", "b"]) >= 0
    assert asked == ["a", "b"]


def test_both_programs_are_measured_and_told_apart() -> None:
    samples = [(translate.measure(20, rounds=2), proxy_side.measure(20, rounds=2))]
    ((one, two),) = samples
    assert (one.ingresses, one.paths, two.hosts) == (20, 40, 20)
    assert len(one.whole) == len(one.changed) == 2
    assert min(two.lookup_us, two.match_us, two.unknown_us) > 0
    shown = report.build_table(samples)
    assert "| controller |" in shown
    assert "20 Ingresses, 40 paths" in shown
    named = {target.text: target for target in report.build_targets(samples)}
    together = one.cpu + sum(part.cpu for part in two.again.values())
    assert named["build: CPU ms of both, a later document"].value == pytest.approx(together)
    assert all(target.met for target in report.lookup_targets(samples))
    assert "| 20 " in report.lookup_table(samples)


def test_promises_of_changes_are_for_each_size() -> None:
    samples = [
        ChangeSample(10, [0.2] * 60, [0.1] * 60, []),
        ChangeSample(99, [0.6] * 60, [0.5], []),
    ]
    samples[1].published.append(0.5)
    met = {target.text: target.met for target in report.change_targets(samples)}
    assert met == {
        "change, 10 Ingresses: p50 s": True,
        "change, 10 Ingresses: p99 s": True,
        "change, 99 Ingresses: p50 s": False,
        "change, 99 Ingresses: p99 s": True,
    }
    assert "| 0.60 |" in report.change_table(samples)


def test_one_failure_of_any_kind_misses_what_must_not_happen() -> None:
    good = RotationSample(9, 60.0, 60, 60, 0, 900, 90, {})
    bad = RotationSample(9, 60.0, 60, 60, 0, 900, 90, {"kept: 503": 1})
    calm = ChurnSample(9, 60.0, 99, 500, [], {"a Service": 499, "404": 1}, 0.5)
    assert all(target.met for target in report.none_targets([good], [calm]))
    (failed,) = report.none_targets([good, bad], [])
    assert (failed.value, failed.met) == (1, False)
    assert "1 kept: 503" in report.rotation_table([bad])
    assert " 499 | " in report.churn_table([calm])
