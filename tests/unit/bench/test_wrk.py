from __future__ import annotations

import pytest
from bench.wrk import WrkError, parse

LINE = (
    'HEIM {"requests":2000,"bytes":2048000,"duration_us":500000,'
    '"p50_us":800,"p99_us":2100,"errors":3}'
)


def test_a_burst_is_read_from_among_wrks_own_lines() -> None:
    burst = parse(f"Running 1s test\n  1 threads\nRequests/sec: 12\n{LINE}\n")
    assert (burst.requests, burst.p50_us, burst.p99_us, burst.errors) == (2000, 800, 2100, 3)
    assert burst.per_second == 4000


@pytest.mark.parametrize(
    "output",
    [
        pytest.param("", id="silence"),
        pytest.param("unable to connect to app.bench.test:443", id="no result line"),
        pytest.param(LINE.replace('"requests":2000', '"requests":0'), id="nothing answered"),
    ],
)
def test_output_without_a_result_is_an_error_and_not_a_zero(output: str) -> None:
    with pytest.raises(WrkError):
        parse(output)
