from __future__ import annotations

import pytest

from heim_proxy.agents.load import HEAVY_BYTES, Load

MIB = 1024 * 1024


def after(*moved: float) -> Load:
    """Samples, two a second, of so many bytes each."""
    load, total = Load(), 0.0
    for size in moved:
        total += size
        load.sample(int(total))
    return load


@pytest.mark.parametrize(
    ("moved", "heavy"),
    [
        ([], False),
        ([HEAVY_BYTES + 1], True),
        ([HEAVY_BYTES], False),
        ([0.45 * MIB] * 60, True),
        ([0.35 * MIB] * 400, False),
        ([9 * MIB, *[0] * 3], False),
        ([100 * MIB, *[0] * 10], True),
        ([100 * MIB, *[0] * 60], False),
    ],
    ids=["nothing", "at once", "not quite", "a transfer", "slow", "over", "large", "long over"],
)
def test_what_moved_of_late_is_heavy_or_not(moved: list[float], heavy: bool) -> None:
    assert after(*moved).heavy is heavy
