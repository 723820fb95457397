from __future__ import annotations

import pytest
from bench.tunnel import errand
from bench.tunnel.emulator import Direction
from bench.tunnel.load import Job, percentile
from bench.tunnel.place import is_listening, parse_stat
from bench.tunnel.stream import Way
from bench.tunnel.wan import rates

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0
   1: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0
"""


@pytest.mark.parametrize(
    ("port", "listens"),
    [
        pytest.param(8080, True, id="a listener"),
        pytest.param(8081, False, id="only a connection"),
        pytest.param(80, False, id="nobody"),
    ],
)
def test_listeners_are_found_in_the_kernels_table(port: int, listens: bool) -> None:
    assert is_listening(TABLE, port) is listens


def test_cpu_time_counts_children_that_ended_and_survives_odd_names() -> None:
    fields = " ".join(["S", *"123456789", "10", "100", "20", "3", "4", "20", "0"])
    assert parse_stat(f"7 (a) b (c)) {fields}") == 127


def test_an_errand_comes_back_as_it_was() -> None:
    packed = errand.pack(errand.FLOOD, 5_000_000_000, 3)
    assert len(packed) == errand.SIZE
    assert errand.unpack(packed) == (errand.FLOOD, 5_000_000_000, 3)


def test_a_job_survives_its_command_line() -> None:
    job = Job("up", Way(443, codec="heim", head="GET /\r\n\r\n"), streams=50, size=10)
    assert Job.read(job.dump()) == job


@pytest.mark.parametrize(
    ("part", "value"),
    [
        pytest.param(0.5, 50, id="median"),
        pytest.param(0.99, 99, id="p99"),
        pytest.param(1.0, 100, id="the highest"),
        pytest.param(0.0, 1, id="the lowest"),
    ],
)
def test_percentiles_are_values_that_were_seen(part: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), part) == value


def test_a_packet_waits_for_the_rate_and_then_for_the_delay() -> None:
    way = Direction(rate=1_000.0, delay=0.02, limit=10_000)
    assert way.enter(b"a" * 100, now=0.0)
    assert way.enter(b"b" * 100, now=0.0)
    assert way.next(0.0) == pytest.approx(0.12)
    assert way.due(0.119) == []
    assert way.due(0.121) == [b"a" * 100]
    assert way.due(0.221) == [b"b" * 100]
    assert way.next(0.3) == 1.0


def test_a_full_queue_drops_at_its_tail_and_takes_again_when_it_drained() -> None:
    way = Direction(rate=1_000.0, delay=0.0, limit=150)
    assert [way.enter(b"x" * 100, now=0.0) for _ in range(4)] == [True, True, False, False]
    assert way.enter(b"x" * 100, now=0.1)
    assert len(way.due(1.0)) == 3


def test_rates_are_taken_within_the_time_that_is_looked_at() -> None:
    """What arrived while uploads found their speed, or after the end, does not count."""
    steady = {"tag": 1, "arrived": [[0.0, 0], [1.0, 9_000_000], [2.0, 10_000_000], [5.0, 13e6]]}
    slow = {"tag": 0, "arrived": [[1.0, 0], [2.0, 500_000], [9.0, 9e9]]}
    gone = {"tag": 2, "arrived": [[0.0, 0]]}
    assert rates([steady, slow, gone], 1.0, 5.0) == pytest.approx((4.0, 8.0, 0.0))
