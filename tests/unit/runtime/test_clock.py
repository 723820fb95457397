from __future__ import annotations

import time

from heim_runtime.clock import Clock, SystemClock


def test_the_system_clock_tells_both_times() -> None:
    clock: Clock = SystemClock()
    before = time.time()
    assert before <= clock.now() <= time.time()
    earlier = clock.monotonic()
    assert clock.monotonic() >= earlier
