"""A slow link: a typist's echoes beside uploads, how uploads share, and how fast streams open."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.process import Cores
from bench.tunnel.ground import Ground
from bench.tunnel.link import link
from bench.tunnel.load import Job, percentile
from bench.tunnel.peers.base import Missing, Start, Tunnel
from bench.tunnel.run import Load, LoadError, check

__all__ = ["WanSample", "measure", "rates"]

_IDLE_S: Final = 3.0
_FLOOD_S: Final = 12.0
# Uploads find their speed before anything is measured.
_SETTLE_S: Final = 3.0
_CALM_S: Final = 1.5
_LOGGED_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class WanSample:
    """Times in ms, rates in Mbit/s. `one_` beside one upload, `four_` beside four."""

    idle_p50: float
    idle_open: float
    one_rate: float
    one_p50: float
    one_p95: float
    one_open: float
    four_rates: tuple[float, ...]
    four_p50: float
    four_p95: float
    four_open: float

    @property
    def spread(self) -> float:
        """How far the fastest of the four is from the slowest, as a part of their mean."""
        mean = sum(self.four_rates) / len(self.four_rates)
        return (max(self.four_rates) - min(self.four_rates)) / mean


def measure(
    directory: Path,
    cores: Cores,
    starts: Sequence[Start],
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> dict[str, list[WanSample]]:
    """Every tunnel on a link of its own in each round; about 35 s for each."""
    samples: dict[str, list[WanSample]] = {}
    for number in range(rounds):
        for index, start in enumerate(starts):
            with link(directory / f"wan-{number}-{index}", cores) as ground:
                try:
                    tunnel = start(ground)
                except Missing as missing:
                    tell(f"wan: left out, {missing}")
                    continue
                tell(f"wan: {tunnel.label}, round {number + 1} of {rounds}")
                try:
                    samples.setdefault(tunnel.label, []).append(_sample(ground, tunnel))
                finally:
                    tunnel.stop()
    return samples


def rates(floods: Sequence[dict[str, Any]], begin: float, end: float) -> tuple[float, ...]:
    """Mbit/s of each flood between two moments, from what the target noted of it."""
    found = []
    for flood in sorted(floods, key=lambda flood: int(flood["tag"])):
        inside = [(at, size) for at, size in flood["arrived"] if begin <= at <= end]
        if len(inside) < 2:
            found.append(0.0)
            continue
        (first, had), (last, has) = inside[0], inside[-1]
        found.append((has - had) * 8 / (last - first) / 1e6)
    return tuple(found)


def _sample(ground: Ground, tunnel: Tunnel) -> WanSample:
    check(ground.near, Job("check", tunnel.way))
    with Load(ground.near, Job("type", tunnel.way, count=1, seconds=_IDLE_S)) as load:
        load.go()
        idle = load.result()
    one_rates, one = _beside(ground, tunnel, uploads=1)
    time.sleep(_CALM_S)
    four_rates, four = _beside(ground, tunnel, uploads=4)
    return WanSample(
        idle_p50=_ms(idle["echoes"], 0.5),
        idle_open=_ms(idle["opened"], 0.5),
        one_rate=one_rates[0],
        one_p50=_ms(one["echoes"], 0.5),
        one_p95=_ms(one["echoes"], 0.95),
        one_open=_ms(one["opened"], 0.5),
        four_rates=four_rates,
        four_p50=_ms(four["echoes"], 0.5),
        four_p95=_ms(four["echoes"], 0.95),
        four_open=_ms(four["opened"], 0.5),
    )


def _beside(
    ground: Ground, tunnel: Tunnel, *, uploads: int
) -> tuple[tuple[float, ...], dict[str, Any]]:
    """Rates of the uploads, and what the typist beside them saw."""
    log = ground.directory / "floods"
    seen = len(_floods(log))
    flood = Job("flood", tunnel.way, streams=uploads, seconds=_FLOOD_S)
    with Load(ground.near, flood) as floods:
        # The typist's stream is open before, as a person's would be.
        typing = Job("type", tunnel.way, count=1, seconds=_FLOOD_S - _SETTLE_S - 1)
        with Load(ground.near, typing) as typist:
            floods.go()
            time.sleep(_SETTLE_S)
            begin = time.monotonic()
            typist.go()
            found = typist.result()
            end = time.monotonic()
        floods.result()
    deadline = time.monotonic() + _LOGGED_S
    while len(_floods(log)) < seen + uploads:
        if time.monotonic() > deadline:
            raise LoadError(f"{tunnel.label}: uploads did not end at the target")
        time.sleep(0.1)
    return rates(_floods(log)[seen:], begin, end), found


def _floods(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def _ms(seconds: Sequence[float], part: float) -> float:
    return percentile(seconds, part) * 1e3
