from __future__ import annotations

import pytest
from bench.tunnel.bulk import BULK, BulkResult, BulkSample
from bench.tunnel.report import (
    bulk_table,
    bulk_targets,
    stall_targets,
    start_targets,
    wan_table,
    wan_targets,
)
from bench.tunnel.stalled import StallSample
from bench.tunnel.startup import StartSample
from bench.tunnel.wan import WanSample

MUX = "heim mux at both ends"


def moved(server_s: float, client_s: float = 0.0) -> BulkSample:
    return BulkSample(1_000_000_000, 2.0, server_s, client_s)


def result(name: str = "up", **samples: list[BulkSample]) -> BulkResult:
    labels = {"mux": MUX, "nginx2": "nginx at both ends"}
    return BulkResult(BULK[name], {labels.get(key, key): value for key, value in samples.items()})


def slow(
    rate: float = 96.0, p50: float = 60.0, four: tuple[float, ...] = (24, 24, 24)
) -> WanSample:
    return WanSample(41, 42, rate, p50, p50, 60, four, 70, 80, 80)


def test_cpu_is_told_per_gigabyte_and_both_ends_are_summed() -> None:
    sample = BulkSample(500_000_000, 2.0, 0.5, 0.25)
    assert (sample.server, sample.both, sample.rate) == (1.0, 1.5, 250.0)


@pytest.mark.parametrize(
    ("name", "ours", "met"),
    [
        pytest.param("up", 1.3, True, id="up at the limit"),
        pytest.param("up", 1.31, False, id="up above"),
        pytest.param("down", 1.0, True, id="down at the limit"),
        pytest.param("down", 1.01, False, id="down above"),
        pytest.param("fifty", 1.3, True, id="fifty streams at the limit"),
    ],
)
def test_the_proxy_process_is_held_to_nginx_in_the_same_round(
    name: str, ours: float, met: bool
) -> None:
    """The second round was disturbed: it says nothing about who is cheaper."""
    found = bulk_targets(
        result(name, heim=[moved(ours), moved(9)], nginx=[moved(1), moved(9 / ours)])
    )
    assert [target.met for target in found] == [met]


def test_the_mux_is_held_to_its_own_number() -> None:
    found = bulk_targets(result(mux=[moved(0.9, 0.8), moved(1.0, 0.8), moved(0.9, 0.86)]))
    assert [(target.value, target.met) for target in found] == [(pytest.approx(1.76), True)]


def test_pairs_of_ends_are_compared_with_a_pair_of_ends() -> None:
    table = bulk_table(result(mux=[moved(1, 1)], nginx2=[moved(1, 0.6)], nginx=[moved(0.5)]))
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[4:]}
    assert list(rows) == ["nginx", "nginx at both ends", MUX], "servers alone come first"
    assert rows[MUX].split("|")[7].strip() == "1.25"
    assert rows["nginx"].split("|")[5].strip() == ""


def test_memory_beyond_the_window_counts_in_the_worst_sample() -> None:
    kib = 1024
    samples = [
        StallSample(0, 500 * kib, 900 * kib, 7, 256 * kib),
        StallSample(0, 500 * kib, 990 * kib, 7, 256 * kib),
    ]
    (target,) = stall_targets({"heim": samples})
    assert (target.value, target.met) == (490 - 256, False)


def test_start_up_is_told_as_medians() -> None:
    samples = [StartSample(wall, wall - 10) for wall in (40.0, 45.0, 900.0)]
    found = start_targets({"heim-tunnel proxy": samples})
    assert [(target.value, target.met) for target in found] == [(45.0, True), (35.0, True)]


@pytest.mark.parametrize(
    ("sample", "met"),
    [
        pytest.param(slow(), [True, True, True], id="all met"),
        pytest.param(slow(p50=76), [False, True, True], id="echoes wait"),
        pytest.param(slow(rate=94), [True, False, True], id="the link is not full"),
        pytest.param(slow(four=(24, 24, 25)), [True, True, False], id="one upload has more"),
    ],
)
def test_the_slow_link_is_held_to_echo_rate_and_fairness(
    sample: WanSample, met: list[bool]
) -> None:
    assert [target.met for target in wan_targets({MUX: [sample]})] == met


def test_the_typical_round_is_shown_for_the_four_rates() -> None:
    rounds = [slow(four=four) for four in ((1.0, 3.0), (2.0, 2.1), (2.0, 2.0))]
    assert "2.0 2.1" in wan_table({MUX: rounds})
