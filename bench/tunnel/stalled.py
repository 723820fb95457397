"""A gigabyte for a reader that never reads: what the server's memory grows by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import Program
from bench.tunnel.ground import Ground
from bench.tunnel.load import Job
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.run import Load

__all__ = ["StallSample", "measure", "resident_bytes"]

_GIGABYTE: Final = 1_000_000_000
_WARM_UP: Final = 100_000_000
_SECONDS: Final = 5.0
_LOOK_S: Final = 0.02
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class StallSample:
    """Bytes of resident memory (all processes of the server), and what the load got rid of."""

    before: int
    highest: int
    sent: int

    @property
    def growth_kib(self) -> float:
        return (self.highest - self.before) / 1024


def measure(
    ground: Ground, tunnels: Sequence[Tunnel], *, rounds: int, tell: Callable[[str], None]
) -> dict[str, list[StallSample]]:
    """Samples by row. Each server has carried much before: what it needs once is not growth."""
    samples: dict[str, list[StallSample]] = {tunnel.label: [] for tunnel in tunnels}
    for number in range(rounds):
        for tunnel in tunnels:
            tell(f"stalled: {tunnel.label}, round {number + 1} of {rounds}")
            for mode in ("up", "down"):
                with Load(ground.near, Job(mode, tunnel.way, size=_WARM_UP)) as load:
                    load.go()
                    load.result()
            time.sleep(0.5)
            samples[tunnel.label].append(_stall(ground, tunnel))
    return samples


def resident_bytes(program: Program) -> int:
    """Resident memory of the process tree."""
    return _PAGE * sum(
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in program.pids()
    )


def _stall(ground: Ground, tunnel: Tunnel) -> StallSample:
    before = highest = resident_bytes(tunnel.server)
    job = Job("stall", tunnel.way, size=_GIGABYTE, seconds=_SECONDS)
    with Load(ground.near, job) as load:
        load.go()
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            highest = max(highest, resident_bytes(tunnel.server))
            time.sleep(_LOOK_S)
        sent = load.result()["sent"]
    return StallSample(before, highest, sent)
