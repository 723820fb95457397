"""Small exchanges: a ping-pong of 64 bytes on one stream, and streams opened for one echo each."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.tunnel.ground import Ground
from bench.tunnel.load import Job
from bench.tunnel.peers.base import Tunnel
from bench.tunnel.run import Load, LoadError

__all__ = ["OpenSample", "PingSample", "measure_opens", "measure_pings"]

_PINGS: Final = 10_000
_OPENS: Final = 1_500


@dataclass(frozen=True, slots=True)
class PingSample:
    """Round trips of 64 B, in microseconds; CPU of the server and of both ends for each."""

    p50_us: float
    p99_us: float
    server_us: float
    both_us: float


@dataclass(frozen=True, slots=True)
class OpenSample:
    """Streams opened for one echo of 64 B, eight at a time. CPU for each, in microseconds."""

    per_second: float
    p50_ms: float
    server_us: float
    both_us: float


def measure_pings(
    ground: Ground, tunnels: Sequence[Tunnel], *, rounds: int, tell: Callable[[str], None]
) -> dict[str, list[PingSample]]:
    """Samples by row, one per round."""
    samples: dict[str, list[PingSample]] = {tunnel.label: [] for tunnel in tunnels}
    for number in range(rounds):
        tell(f"ping: round {number + 1} of {rounds}")
        for tunnel in secrets.SystemRandom().sample(tunnels, len(tunnels)):
            samples[tunnel.label].append(_ping(ground, tunnel))
    return samples


def measure_opens(
    ground: Ground, tunnels: Sequence[Tunnel], *, rounds: int, tell: Callable[[str], None]
) -> dict[str, list[OpenSample]]:
    """Samples by row, one per round."""
    samples: dict[str, list[OpenSample]] = {tunnel.label: [] for tunnel in tunnels}
    for number in range(rounds):
        tell(f"open: round {number + 1} of {rounds}")
        for tunnel in secrets.SystemRandom().sample(tunnels, len(tunnels)):
            samples[tunnel.label].append(_open(ground, tunnel))
    return samples


def _ping(ground: Ground, tunnel: Tunnel) -> PingSample:
    with Load(ground.near, Job("ping", tunnel.way, streams=1, count=_PINGS)) as load:
        load.go()
        load.expect("warm")
        before = tunnel.cpu_seconds()
        load.go()
        found = load.result()
        after = tunnel.cpu_seconds()
    server, client = after[0] - before[0], after[1] - before[1]
    return PingSample(
        found["p50"] * 1e6,
        found["p99"] * 1e6,
        server / _PINGS * 1e6,
        (server + client) / _PINGS * 1e6,
    )


def _open(ground: Ground, tunnel: Tunnel) -> OpenSample:
    before = tunnel.cpu_seconds()
    with Load(ground.near, Job("open", tunnel.way, streams=0, count=_OPENS)) as load:
        load.go()
        found = load.result()
        after = tunnel.cpu_seconds()
    if found["opened"] != _OPENS:
        raise LoadError(f"{tunnel.label}: opened {found['opened']} of {_OPENS} streams")
    server, client = after[0] - before[0], after[1] - before[1]
    return OpenSample(
        _OPENS / found["seconds"],
        found["p50"] * 1e3,
        server / _OPENS * 1e6,
        (server + client) / _OPENS * 1e6,
    )
