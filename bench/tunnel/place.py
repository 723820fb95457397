"""Where a program of a run lives: its core, its network namespace, its address.

On one machine everything is on 127.0.0.1 and only the core differs; on the emulated link the two
ends are in namespaces of their own, and nothing of the harness can connect into them. Whether a
program listens is therefore read from the kernel's table of its own namespace.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import Program, StartError

__all__ = ["Place", "cpu_seconds", "is_listening", "parse_stat", "wait_listening"]

_START_S: Final = 20.0
_LISTEN: Final = "0A"
# USER_HZ: the unit of /proc/PID/stat on Linux, whatever the kernel's own tick.
_TICKS_PER_S: Final = 100


@dataclass(frozen=True, slots=True)
class Place:
    """One side of the measurement."""

    core: int
    address: str = "127.0.0.1"
    namespace: str = ""

    def start(
        self,
        command: Sequence[str],
        output: Path,
        *ports: int,
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """Start a program here; returns when it listens on every one of `ports`.

        Raises:
            StartError: It ended, or did not listen in time.
        """
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        program = Program(
            [*inside, *command], core=self.core, output=output, environment=environment
        )
        try:
            for port in ports:
                wait_listening(program, port)
        except StartError:
            program.kill()
            raise
        return program


def wait_listening(program: Program, port: int) -> None:
    """Return when somebody listens on the TCP port in the program's network namespace.

    Raises:
        StartError: The program ended, or nobody listened in time.
    """
    deadline = time.monotonic() + _START_S
    while not _listens(program.pid, port):
        if program.ended or time.monotonic() > deadline:
            raise StartError(f"nothing listens on {port}: {program.tail()}")
        time.sleep(0.02)


def is_listening(table: str, port: int) -> bool:
    """Whether a /proc/net/tcp table has a listener on `port`."""
    wanted = f":{port:04X}"
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == _LISTEN and fields[1].endswith(wanted):
            return True
    return False


def cpu_seconds(program: Program) -> float:
    """CPU time of the process tree so far, with the threads and children that have ended.

    Programs that fork for each connection (websockify, sshd) or end threads in between keep what
    those used only here; 10 ms steps, so it is for runs of seconds.
    """
    ticks = 0
    for pid in program.pids():
        ticks += parse_stat(Path(f"/proc/{pid}/stat").read_text())
    return ticks / _TICKS_PER_S


def parse_stat(text: str) -> int:
    """utime + stime + cutime + cstime in ticks; the command's name may hold anything."""
    fields = text.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])


def _listens(pid: int, port: int) -> bool:
    for name in ("tcp", "tcp6"):
        try:
            if is_listening(Path(f"/proc/{pid}/net/{name}").read_text(), port):
                return True
        except OSError:
            # It has just ended; the caller's next look says so.
            return False
    return False
