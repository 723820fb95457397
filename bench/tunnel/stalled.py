"""A gigabyte for a reader that stops reading: what the server's memory grows by."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import Cores, Program
from bench.tunnel.ground import Ground
from bench.tunnel.load import Job
from bench.tunnel.peers.base import Missing, Start, Tunnel
from bench.tunnel.run import Load

__all__ = ["StallSample", "measure", "resident_bytes"]

_GIGABYTE: Final = 1_000_000_000
# What a server needs for its first stream, whatever that does, is not growth.
_WARM_UP: Final = 100_000
_ROUNDS_WARM: Final = 5
_SECONDS: Final = 5.0
_CALM_S: Final = 0.5
_LOOK_S: Final = 0.02
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class StallSample:
    """Bytes: resident memory of all processes of the server before the upload, while the reader
    read, and the highest since it stopped; what the load got rid of then, and the most that it was
    ever allowed to send at once (0: the tunnel does not say)."""

    before: int
    moving: int
    highest: int
    sent: int
    window: int

    @property
    def growth_kib(self) -> float:
        """What the stop cost, beyond what an upload that moves costs."""
        return (self.highest - self.moving) / 1024


def measure(
    directory: Path,
    cores: Cores,
    starts: Sequence[Start],
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> dict[str, list[StallSample]]:
    """Samples by row; a new server for each, as heaps remember what they went through."""
    samples: dict[str, list[StallSample]] = {}
    for number in range(rounds):
        for index, start in enumerate(starts):
            ground = Ground.loopback(directory / f"stalled-{number}-{index}", cores)
            try:
                tunnel = start(ground)
            except Missing as missing:
                tell(f"stalled: left out, {missing}")
                ground.target.stop()
                continue
            tell(f"stalled: {tunnel.label}, round {number + 1} of {rounds}")
            try:
                samples.setdefault(tunnel.label, []).append(_sample(ground, tunnel))
            finally:
                tunnel.stop()
                ground.target.stop()
    return samples


def resident_bytes(program: Program) -> int:
    """Resident memory of the process tree."""
    return _PAGE * sum(
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in program.pids()
    )


def _sample(ground: Ground, tunnel: Tunnel) -> StallSample:
    for mode in ("up", "down") * _ROUNDS_WARM:
        with Load(ground.near, Job(mode, tunnel.way, size=_WARM_UP)) as load:
            load.go()
            load.result()
    time.sleep(_CALM_S)
    before = resident_bytes(tunnel.server)
    job = Job("stall", tunnel.way, size=_GIGABYTE, seconds=_SECONDS)
    with Load(ground.near, job) as load:
        load.go()
        load.expect("moved")
        moving = highest = resident_bytes(tunnel.server)
        load.go()
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            highest = max(highest, resident_bytes(tunnel.server))
            time.sleep(_LOOK_S)
        found = load.result()
    return StallSample(before, moving, highest, found["sent"], found["window"])
