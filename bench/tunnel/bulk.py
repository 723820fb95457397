"""Transfers as fast as they go, in paired rounds: CPU seconds for each GB, and MB/s."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Final

from bench.tunnel.ground import Ground
from bench.tunnel.load import Job
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.run import Load

__all__ = ["BULK", "Bulk", "BulkResult", "BulkSample", "measure", "paired"]

_WARM_UP: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Bulk:
    """One table: how many streams, and which way the bytes go."""

    name: str
    title: str
    mode: str
    streams: int


BULK: Final[Mapping[str, Bulk]] = MappingProxyType(
    {
        bulk.name: bulk
        for bulk in (
            Bulk("up", "One stream up", "up", 1),
            Bulk("down", "One stream down", "down", 1),
            Bulk("fifty", "Fifty streams up", "up", 50),
        )
    }
)


@dataclass(frozen=True, slots=True)
class BulkSample:
    """One transfer; CPU of the server's and of the client's process tree in seconds."""

    size: int
    seconds: float
    server_s: float
    client_s: float

    @property
    def server(self) -> float:
        """CPU seconds of the server for each GB."""
        return self.server_s / self.size * 1e9

    @property
    def both(self) -> float:
        """CPU seconds of both ends for each GB."""
        return (self.server_s + self.client_s) / self.size * 1e9

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.size / self.seconds / 1e6


@dataclass(frozen=True, slots=True)
class BulkResult:
    """Samples by row, one per round and in the same order everywhere."""

    bulk: Bulk
    samples: dict[str, list[BulkSample]]


def paired(
    ours: Sequence[BulkSample],
    theirs: Sequence[BulkSample],
    of: Callable[[BulkSample], float],
) -> float:
    """Median over the rounds of our value divided by theirs in the same round."""
    return median(of(a) / of(b) for a, b in zip(ours, theirs, strict=True))


def measure(
    ground: Ground,
    tunnels: Sequence[Tunnel],
    bulk: Bulk,
    *,
    rounds: int,
    seconds: float,
    rest: float,
    tell: Callable[[str], None],
) -> BulkResult:
    """Transfer through every tunnel in each round, each time as much as takes `seconds`.

    Args:
        ground: Where they run.
        tunnels: What is compared.
        bulk: What is transferred.
        rounds: Transfers through each.
        seconds: Of a transfer.
        rest: Seconds between transfers, for others on a machine that is not ours alone.
        tell: For progress.
    """
    sizes = {}
    for tunnel in tunnels:
        warm = _transfer(ground, tunnel, bulk, _WARM_UP)
        rate = warm.size / warm.seconds
        # Whole for every number of streams, and at least what the warm-up was.
        sizes[tunnel.label] = max(_WARM_UP, round(rate * seconds / 10_000_000) * 10_000_000)
    samples: dict[str, list[BulkSample]] = {tunnel.label: [] for tunnel in tunnels}
    for number in range(rounds):
        tell(f"{bulk.name}: round {number + 1} of {rounds}")
        for tunnel in secrets.SystemRandom().sample(tunnels, len(tunnels)):
            time.sleep(rest)
            sample = _transfer(ground, tunnel, bulk, sizes[tunnel.label])
            samples[tunnel.label].append(sample)
    return BulkResult(bulk, samples)


def _transfer(ground: Ground, tunnel: Tunnel, bulk: Bulk, size: int) -> BulkSample:
    job = Job(bulk.mode, tunnel.way, streams=bulk.streams, size=size)
    with Load(ground.near, job) as load:
        before = tunnel.cpu_seconds()
        load.go()
        seconds = load.result()["seconds"]
        after = tunnel.cpu_seconds()
    return BulkSample(size, seconds, after[0] - before[0], after[1] - before[1])
