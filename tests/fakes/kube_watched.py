"""An informer that runs beside a test, and what it told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from heim_controller.kube.client import Client
from heim_controller.kube.informer import Change, Informer, Pace
from heim_controller.kube.resources import CONFIG_MAPS, Resource
from tests.fakes.kube import FakeKube
from tests.fakes.waiting import until

__all__ = ["QUICK", "Watched", "running", "watched"]

QUICK = Pace(first=0.01, ceiling=0.05, healthy=5.0, denied=0.05, watch=(240.0, 480.0))


class Watched:
    """An informer that runs, and what it told."""

    def __init__(self, client: Client, resource: Resource = CONFIG_MAPS, **options: Any) -> None:
        self.changes: list[Change] = []
        self.informer = Informer(
            client, resource, **{"pace": QUICK, "on_change": self.changes.append, **options}
        )

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(change.type, change.key[1]) for change in self.changes]


@asynccontextmanager
async def running(
    client: Client, resource: Resource = CONFIG_MAPS, **options: Any
) -> AsyncIterator[Watched]:
    """One that has only begun."""
    found = Watched(client, resource, **options)
    task = asyncio.ensure_future(found.informer.run())
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled(), "an informer never ends by itself"


@asynccontextmanager
async def watched(
    kube: FakeKube, resource: Resource = CONFIG_MAPS, **options: Any
) -> AsyncIterator[Watched]:
    """One that has synced, and watches."""
    before = kube.watching
    async with running(kube.client(), resource, **options) as found:
        await until(lambda: found.informer.synced and kube.watching > before)
        yield found
