"""`heim-controller` as a process of its own, against the fake API server of a test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.kube import FakeKube, kubeconfig

__all__ = ["HEIM_CONTROLLER", "Controller", "running", "writes"]

HEIM_CONTROLLER = str(Path(sys.executable).with_name("heim-controller"))

START_DEADLINE_S = 15.0

_WRITES = ("create", "update", "patch", "apply", "delete")


def writes(kube: FakeKube) -> list[tuple[str, str, str]]:
    """Every write since the log of requests was cleared, those of the Lease left out."""
    return [
        (asked.verb, asked.plural, asked.name)
        for asked in kube.asked
        if asked.verb in _WRITES and asked.plural != "leases"
    ]


class Controller:
    """A replica that runs.

    Attributes:
        pod: What it is called.
        process: The process.
    """

    def __init__(self, pod: str, log: Path, process: asyncio.subprocess.Process) -> None:
        self.pod = pod
        self.process = process
        self._log = log
        self._health = ""

    async def started(self) -> None:
        """Wait until it listens."""
        async with asyncio.timeout(START_DEADLINE_S):
            while not (found := self.events("controller.started")):
                if self.process.returncode is not None:
                    raise RuntimeError(self._log.read_text())
                await asyncio.sleep(0.02)
        self._health = found[0]["health"]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log entries of one kind."""
        text = self._log.read_bytes()
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        return [entry for line in lines if (entry := json.loads(line)).get("event") == name]

    @property
    def leads(self) -> bool:
        """Whether it was elected."""
        return bool(self.events("kube.leader_elected"))

    async def get(self, path: str) -> tuple[int, str]:
        """Ask its health address."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{self._health}{path}") as response,
        ):
            return response.status, await response.text()

    async def ready(self) -> bool:
        """Whether /readyz is good."""
        return (await self.get("/readyz"))[0] == 200

    async def metric(self, line: str) -> float:
        """A sample of /metrics, by what stands before its value; 0 when it is not there."""
        _, text = await self.get("/metrics")
        found = [row.removeprefix(line) for row in text.splitlines() if row.startswith(line + " ")]
        return float(found[0]) if found else 0.0

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(START_DEADLINE_S):
            return await self.process.wait()


@asynccontextmanager
async def running(
    kube: FakeKube,
    directory: Path,
    *args: str,
    pod: str = "pod-1",
    program: tuple[str, ...] = (HEIM_CONTROLLER,),
    ca: str = "",
) -> AsyncIterator[Controller]:
    """A replica for the length of the block; `ca` is a file with the authority of the server."""
    config = kubeconfig(directory / f"{pod}.kubeconfig", kube.url, token="secret-token", ca=ca)
    log = directory / f"{pod}.log"
    flags = (
        "--proxy=heim/main", "--domain=example.test", "--provider=idp",
        "--publish-service=heim/heim", "--health-address=127.0.0.1:0", *args,
    )  # fmt: skip
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *program,
            "run",
            *flags,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            # No pod, although the test may say so to others.
            env={
                **os.environ,
                "KUBERNETES_SERVICE_HOST": "",
                "KUBECONFIG": str(config),
                "POD_NAME": pod,
            },
        )
    found = Controller(pod, log, process)
    try:
        await found.started()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
