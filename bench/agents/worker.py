"""A process of the harness that takes orders by line and answers by line."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from bench.tunnel.ground import ROOT
from bench.tunnel.run import LoadError

__all__ = ["Worker"]

_STOP_S: Final = 10.0


class Worker:
    """Started on a core; killed at the end."""

    def __init__(self, command: Sequence[str], *, core: int, nice: int = 0) -> None:
        """Start it and wait until it says "made".

        Args:
            command: Its standard input and output are the orders and answers.
            core: It runs there.
            nice: Below 0 it goes before others (root).

        Raises:
            LoadError: It ended.
        """

        def prepare() -> None:
            os.sched_setaffinity(0, {core})
            os.nice(nice)

        self._command = command
        self._process: Final[subprocess.Popen[str]] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=prepare,
        )
        self.expect("made", 60.0)

    def tell(self, order: str) -> None:
        """Give an order."""
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()

    def answer(self, within_s: float) -> str:
        """The next line it says.

        Raises:
            LoadError: It ended, or was killed because it took longer than that.
        """
        assert self._process.stdout is not None
        timer = threading.Timer(within_s, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise LoadError(f"{' '.join(self._command[:3])} ended, or took more than {within_s} s")
        return line.strip()

    def ask(self, order: str, within_s: float) -> Any:
        """Give an order; its answer, which is JSON."""
        self.tell(order)
        return json.loads(self.answer(within_s))

    def expect(self, word: str, within_s: float) -> None:
        """Wait for one answer."""
        said = self.answer(within_s)
        if said != word:
            raise LoadError(f"said {said[:200]!r} instead of {word!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=_STOP_S)
