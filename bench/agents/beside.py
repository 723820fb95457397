"""One stream that nobody reads beside 500 that echo: do the others feel it (tunnel.md, 6, 8)?"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.agents import live
from bench.agents.worker import Worker
from bench.tunnel.ground import Ground, python
from bench.tunnel.load import Job, percentile
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.run import Load

__all__ = ["STALLS", "BesideSample", "measure"]

_STREAMS: Final = 500
_PACE: Final = 2.0
_SETTLE_S: Final = 2.0
_ANSWER_S: Final = 30.0
_GIGABYTE: Final = 1_000_000_000

STALLS: Final = {
    "": "nobody else",
    "stall": "one upload whose target stopped reading",
    "ignore": "one download that the user does not read",
}
"""What there is beside the live ones, by mode of the load."""


@dataclass(frozen=True, slots=True)
class BesideSample:
    """Echoes of the live streams, in ms."""

    echoes: int
    p50: float
    p95: float
    p99: float


def measure(
    ground: Ground,
    tunnel: Tunnel,
    *,
    rounds: int,
    seconds: float,
    tell: Callable[[str], None],
) -> dict[str, list[BesideSample]]:
    """Samples by what was beside them, one per round; the same live streams all the time."""
    samples: dict[str, list[BesideSample]] = {mode: [] for mode in STALLS}
    job = live.Job(tunnel.way, _STREAMS, _PACE)
    with Worker([*python("bench.agents.live"), job.dump()], core=ground.near.core) as streams:
        time.sleep(_SETTLE_S)
        for number in range(rounds):
            tell(f"beside: round {number + 1} of {rounds}")
            for mode in secrets.SystemRandom().sample(list(STALLS), len(STALLS)):
                samples[mode].append(_sample(ground, tunnel, streams, mode, seconds))
    return samples


def _sample(
    ground: Ground, tunnel: Tunnel, streams: Worker, mode: str, seconds: float
) -> BesideSample:
    if not mode:
        time.sleep(_SETTLE_S)
        return _watch(streams, seconds)
    job = Job(mode, tunnel.way, size=_GIGABYTE, seconds=seconds + 2 * _SETTLE_S)
    with Load(ground.near, job) as load:
        load.go()
        load.expect("moved")
        load.go()
        # Until it has filled everything that it can fill.
        time.sleep(_SETTLE_S)
        found = _watch(streams, seconds)
        load.result()
    return found


def _watch(streams: Worker, seconds: float) -> BesideSample:
    streams.ask("", _ANSWER_S)
    time.sleep(seconds)
    times = [took * 1e3 for took in streams.ask("", _ANSWER_S)]
    return BesideSample(
        len(times), percentile(times, 0.5), percentile(times, 0.95), percentile(times, 0.99)
    )
