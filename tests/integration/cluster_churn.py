"""Somebody who asks all the time, while a test changes the world around."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Self

from tests.integration.cluster import Cluster

__all__ = ["Churn"]


class Churn:
    """Asks over a connection of its own each time, and over one that is kept, until it ends.

    Attributes:
        asked: How many questions were answered.
        wrong: Every answer that was not the right one, and what went wrong with others.
    """

    def __init__(self, kube: Cluster, host: str, right: str, *, pause_s: float = 0.005) -> None:
        self.asked = 0
        self.wrong: list[str] = []
        self._kube = kube
        self._host = host
        self._right = right
        self._pause_s = pause_s
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(one) for one in (self._fresh(), self._kept())]
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in self._tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks)

    async def _fresh(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            try:
                self._look(await self._kube.leads_to(self._host, plain=False), "fresh")
            except (OSError, EOFError, TimeoutError) as e:
                self.wrong.append(f"fresh: {e!r}")

    async def _kept(self) -> None:
        wire = await self._kube.heim.connect(self._host)
        try:
            while True:
                await asyncio.sleep(self._pause_s)
                wire.send(f"GET / HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
                async with asyncio.timeout(5):
                    found = await wire.answer()
                told = json.loads(found.body) if found.status == 200 else {}
                right = f"{told['namespace']}/{told['service']}" if told else str(found.status)
                self._look(right, "kept")
        except (OSError, EOFError, TimeoutError) as e:
            self.wrong.append(f"kept: {e!r}")

    def _look(self, found: str, how: str) -> None:
        self.asked += 1
        if found != self._right:
            self.wrong.append(f"{how}: {found}")
