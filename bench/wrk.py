"""One burst of load from wrk, and what it saw."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CONNECTIONS", "Burst", "WrkError", "parse", "run"]

# Keep-alive connections of one burst.
CONNECTIONS = 64


class WrkError(Exception):
    """wrk failed, or said nothing that can be read."""


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst as the client saw it. `errors`: bad status, socket errors and timeouts."""

    requests: int
    bytes: int
    duration_us: int
    p50_us: int
    p99_us: int
    errors: int

    @property
    def per_second(self) -> float:
        return self.requests * 1e6 / self.duration_us


def run(url: str, lua: Path, *, seconds: int, core: int, connections: int = CONNECTIONS) -> Burst:
    """Load `url` with one thread on `core`; returns when the burst is over.

    Raises:
        WrkError: wrk could not connect or failed.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(lua), url]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds + 30,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    if done.returncode != 0:
        raise WrkError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(output: str) -> Burst:
    """Read the line that our script prints at the end.

    Raises:
        WrkError: There is no such line, or no request was answered.
    """
    for line in output.splitlines():
        if line.startswith("HEIM "):
            burst = Burst(**json.loads(line.removeprefix("HEIM ")))
            if burst.requests <= 0 or burst.duration_us <= 0:
                raise WrkError("no request was answered")
            return burst
    raise WrkError(f"no result in wrk's output: {output[-300:]!r}")
