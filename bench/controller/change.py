"""From the change of one Ingress to the first request that is served by it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from bench.controller.town import Asker, Town

__all__ = ["ChangeSample", "measure", "percentile", "times_of"]

# Between two requests that look whether it is there: what this adds to each time at the most.
_LOOK_S: Final = 0.004
# The next change comes when what follows from the last one (status, acknowledgement) is over, as
# with a person; how long after that is left to chance, so that no timer is always hit alike.
_PAUSE_S: Final = (0.6, 1.4)
_DEADLINE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class ChangeSample:
    """Seconds of every change, in the order in which they were made.

    Attributes:
        ingresses: How many there were.
        served: Until the first answer of the new path.
        published: Until the controller had written the document, which is part of it.
        wrong: Answers of the new path that were neither the old nor the new one.
    """

    ingresses: int
    served: list[float]
    published: list[float]
    wrong: list[str]


async def measure(
    town: Town, changes: int, *, tell: Callable[[str], None], seed: int = 7
) -> ChangeSample:
    """Give Ingresses one more path each, one after the other."""
    dice = random.Random(seed)
    asker = await Asker.connect(town.kube)
    served: list[float] = []
    began: list[float] = []
    wrong: list[str] = []
    for change in range(changes):
        await asyncio.sleep(dice.uniform(*_PAUSE_S))
        number = dice.randrange(town.count)
        host, target = town.host(number), f"/change/{change}"
        new = town.leads_to(number, "two")
        old = town.leads_to(number, "one")
        began.append(time.time())
        start = time.perf_counter()
        town.lead(number, "two", target=target)
        while (found := await asker.ask(host, target)) != new:
            if found != old:
                wrong.append(f"{host}{target}: {found}")
            if time.perf_counter() - start > _DEADLINE_S:
                raise TimeoutError(f"{host}{target} is not served after {_DEADLINE_S:g} s")
            await asyncio.sleep(_LOOK_S)
        served.append(time.perf_counter() - start)
        if change % 20 == 19:
            tell(f"change {change + 1}/{changes}: {served[-1] * 1000:.0f} ms")
    log = town.kube.directory / "pod-1.log"
    published = list(_first_after(began, list(times_of(log, "controller.published"))))
    return ChangeSample(town.count, served, published, wrong)


def times_of(log: Path, event: str) -> Iterator[float]:
    """When a program logged an event, in seconds since the epoch."""
    for line in log.read_bytes().splitlines():
        entry: dict[str, Any] = json.loads(line)
        if entry.get("event") == event:
            yield datetime.fromisoformat(entry["time"]).timestamp()


def percentile(values: list[float], percent: int) -> float:
    """The smallest value that `percent` of 100 are not above, between two of them if need be."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def _first_after(began: list[float], times: list[float]) -> Iterator[float]:
    for start in began:
        after = [one - start for one in times if one >= start - 0.002]
        if after:
            yield max(0.0, min(after))
