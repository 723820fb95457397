"""From exec to the first byte through the tunnel, as ssh waits for it: wall time and CPU."""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.tunnel import errand
from bench.tunnel.place import Place
from bench.tunnel.run import LoadError

__all__ = ["Command", "StartSample", "measure", "python_alone"]

_BYTE: Final = b"x"
_WAIT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Command:
    """A program that joins its standard input and output with the target, or (`echoes` false) one
    that only starts and ends, for comparison."""

    label: str
    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    echoes: bool = True


@dataclass(frozen=True, slots=True)
class StartSample:
    """Milliseconds: until the first byte came back (or the end), and CPU until it had ended."""

    wall_ms: float
    cpu_ms: float


def python_alone() -> Command:
    """What the interpreter needs to do nothing."""
    return Command("python -c pass", [sys.executable, "-c", "pass"], echoes=False)


def measure(
    place: Place,
    commands: Sequence[Command],
    cache: Path,
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> dict[str, list[StartSample]]:
    """Start every command in each round, in a new random order.

    Args:
        place: Where they run.
        commands: What is started.
        cache: A directory for bytecode. A package manager compiles what it installs; in a work
            tree nothing may have been compiled, and compiling would be most of what is measured.
        rounds: Starts of each command.
        tell: For progress.
    """
    samples: dict[str, list[StartSample]] = {command.label: [] for command in commands}
    for number in range(rounds + 1):
        if number % 10 == 1:
            tell(f"startup: round {number} of {rounds}")
        for command in secrets.SystemRandom().sample(commands, len(commands)):
            sample = _start(place, command, cache)
            # The first round fills the caches.
            if number:
                samples[command.label].append(sample)
    return samples


def _python(cache: Path) -> dict[str, str]:
    """The environment of an installed Python program, whatever the developer's is."""
    return {
        "PYTHONPYCACHEPREFIX": str(cache),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONUNBUFFERED": "",
    }


def _start(place: Place, command: Command, cache: Path) -> StartSample:
    before = time.perf_counter()
    process = subprocess.Popen(
        list(command.words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **_python(cache), **command.environment},
        preexec_fn=lambda: os.sched_setaffinity(0, {place.core}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if command.echoes:
            os.write(process.stdin.fileno(), errand.pack(errand.ECHO) + _BYTE)
            readable, _, _ = select.select([process.stdout], [], [], _WAIT_S)
            if not readable or os.read(process.stdout.fileno(), 1) != _BYTE:
                raise LoadError(f"{command.label}: the byte did not come back")
            wall = time.perf_counter() - before
        process.stdin.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if not command.echoes:
            wall = time.perf_counter() - before
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()
        process.stdout.close()
    if process.returncode != 0:
        raise LoadError(f"{command.label}: ended with status {process.returncode}")
    return StartSample(wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3)
