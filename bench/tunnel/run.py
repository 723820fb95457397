"""One job of the load from the harness's side: start it, let it go, read what it says."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from types import TracebackType
from typing import Any, Final, Self

from bench.tunnel.ground import ROOT, python
from bench.tunnel.load import Job
from bench.tunnel.place import Place

__all__ = ["Load", "LoadError", "check"]

_LIMIT_S: Final = 150.0


class LoadError(Exception):
    """The load failed; the text is what it said."""


class Load:
    """A load process in a place, ready with its streams open once this is constructed."""

    def __init__(self, place: Place, job: Job) -> None:
        """Start it and wait until its streams are open.

        Raises:
            LoadError: It could not open them.
        """
        inside = ["ip", "netns", "exec", place.namespace] if place.namespace else []
        self._job = job
        self._process = subprocess.Popen(
            [*inside, *python("bench.tunnel.load"), job.dump()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, {place.core}),
        )
        # Whatever hangs in a tunnel ends here, and the read that waits for it with an error.
        self._timer = threading.Timer(_LIMIT_S, self._process.kill)
        self._timer.start()
        self.expect("ready")

    def expect(self, word: str) -> None:
        """Wait for the load to say `word`."""
        said = self._line().strip()
        if said != word:
            raise LoadError(f"{self._job.mode}: said {said!r} instead of {word!r}")

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the end of the work; streams are still open then."""
        found: dict[str, Any] = json.loads(self._line())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if kind is not None:
            self._process.kill()
        self._process.communicate("end\n" if kind is None else None, timeout=30)

    def _line(self) -> str:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            self._timer.cancel()
            raise LoadError(f"{self._job.mode}: {self._process.stderr.read()[-800:]}")
        return line


def check(place: Place, job: Job) -> None:
    """Nothing is measured before random bytes have come back through it unharmed.

    Raises:
        LoadError: They have not.
    """
    with Load(place, job) as load:
        load.go()
        if not load.result()["intact"]:
            raise LoadError("what came back was not what had been sent")
