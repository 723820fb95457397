"""Programs under measurement: start pinned, stop, and what their process tree uses.

CPU time is the scheduler's own account in nanoseconds (/proc/PID/task/TID/schedstat), which is
precise to the context switch and does not grow while somebody else has the core.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

__all__ = ["Cores", "Program", "StartError", "free_port", "parse_pss", "parse_schedstat"]

_START_S: Final = 20.0
_STOP_S: Final = 8.0


class StartError(Exception):
    """A program did not come up; the text ends with what it said."""


class Cores:
    """Which core the servers run on, and which the load and the upstream."""

    def __init__(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise StartError("needs two cores: one for the server, one for the load")
        self.server, self.load = cores[0], cores[1]


class Program:
    """A running program with its children; stops when told, or with the harness."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        core: int,
        output: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it on `core`; both its streams are appended to `output`."""
        self.output = output
        self._command = command
        with output.open("ab") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        # Whatever failed in between: nothing is left running.
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait_for(self, *ports: int) -> None:
        """Return when every port accepts connections.

        Raises:
            StartError: It ended, or did not listen in time.
        """
        deadline = time.monotonic() + _START_S
        for port in ports:
            while not _accepts(port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise StartError(f"{self._command[0]} did not start on {port}: {self.tail()}")
                time.sleep(0.02)

    def tail(self) -> str:
        """The end of what it printed."""
        return self.output.read_text(errors="replace")[-800:]

    def stop(self) -> None:
        """SIGTERM, then SIGKILL; idempotent."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            # A proxy with 2,000 idle connections may drain for longer than we care.
            self.kill()

    def kill(self) -> None:
        """End the whole tree at once."""
        if not self.ended:
            for pid in list(self.pids()):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(_STOP_S)

    def cpu_ns(self) -> int:
        """Nanoseconds that all threads of the tree have run so far."""
        total = 0
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                total += parse_schedstat((task / "schedstat").read_text())
        return total

    def pss_bytes(self) -> int:
        """Memory of the tree; pages shared by n processes count one n-th each."""
        return sum(parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in self.pids())

    def pids(self) -> Iterator[int]:
        """The whole process tree, as it is now."""
        waiting = [self._process.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())


def parse_schedstat(text: str) -> int:
    """Nanoseconds on a core: the first of the three numbers."""
    return int(text.split()[0])


def parse_pss(text: str) -> int:
    """The "Pss:" line of smaps_rollup, in bytes.

    Raises:
        ValueError: There is none.
    """
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss line")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
