"""Ingresses that change all the time while people ask: who answers must be right at any moment.

What is right for a host is what it leads to, or what it led to before while nobody has seen
the new yet. From the first answer that is new on, an older one is wrong.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.controller.town import SERVICES, Asker, Town

__all__ = ["GONE", "ChurnSample", "History", "measure"]

GONE: Final = "404"
_ASKERS: Final = 8
_PAUSE_S: Final = 0.02
# Of all changes, how many delete.
_DELETE: Final = 0.2
_SETTLE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ChurnSample:
    """What came of it; `late_s`: how long after the last change everything was as it should be."""

    ingresses: int
    seconds: float
    changes: int
    asked: int
    wrong: list[str]
    answers: dict[str, int]
    late_s: float


class History:
    """What a host has led to, and what of that has been seen."""

    def __init__(self, first: str) -> None:
        self._states = [first]
        self._seen = 0

    @property
    def now(self) -> str:
        """What it leads to."""
        return self._states[-1]

    @property
    def seen(self) -> int:
        """How far answers have come; take it before asking."""
        return self._seen

    def change(self, state: str) -> None:
        """It leads somewhere else from now on."""
        self._states.append(state)

    def judge(self, found: str, seen: int) -> bool:
        """Whether an answer is right to a question that was asked when `seen` had been seen."""
        for position in range(seen, len(self._states)):
            if self._states[position] == found:
                self._seen = max(self._seen, position)
                return True
        return False


class _Churn:
    def __init__(self, town: Town) -> None:
        self._town = town
        self._dice = random.Random(11)
        self._hosts = [History(town.leads_to(n, SERVICES[0])) for n in range(town.count)]
        self.changes = 0
        self.asked = 0
        self.wrong: list[str] = []
        self.answers: Counter[str] = Counter()

    async def change_for(self, seconds: float, per_second: float) -> None:
        """Change Ingresses at a steady rate."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(1 / per_second)
            number = self._dice.randrange(self._town.count)
            history = self._hosts[number]
            self.changes += 1
            if history.now != GONE and self._dice.random() < _DELETE:
                self._town.delete(number)
                history.change(GONE)
                continue
            service = next(
                one for one in self._dice.sample(SERVICES, 2)
                if self._town.leads_to(number, one) != history.now
            )  # fmt: skip
            self._town.lead(number, service)
            history.change(self._town.leads_to(number, service))

    async def ask(self) -> None:
        """Ask random hosts for ever, over one connection."""
        asker = await Asker.connect(self._town.kube)
        while True:
            await asyncio.sleep(_PAUSE_S)
            number = self._dice.randrange(self._town.count)
            history = self._hosts[number]
            seen = history.seen
            found = await asker.ask(self._town.host(number))
            self.asked += 1
            self.answers["a Service" if "/" in found else found] += 1
            if not history.judge(found, seen):
                self.wrong.append(f"{self._town.host(number)}: {found} instead of {history.now}")

    async def settle(self) -> float:
        """Ask every host until all lead where they should; returns the seconds that took."""
        began = time.monotonic()
        asker = await Asker.connect(self._town.kube)
        left = list(range(self._town.count))
        while left:
            if time.monotonic() - began > _SETTLE_S:
                self.wrong += [f"{self._town.host(number)}: still not right" for number in left]
                break
            found = {number: await asker.ask(self._town.host(number)) for number in left}
            left = [number for number in left if found[number] != self._hosts[number].now]
        return time.monotonic() - began


async def measure(
    town: Town, *, seconds: float, per_second: float, tell: Callable[[str], None]
) -> ChurnSample:
    """Change and ask for so many seconds."""
    churn = _Churn(town)
    asking = [asyncio.ensure_future(churn.ask()) for _ in range(_ASKERS)]
    try:
        await churn.change_for(seconds, per_second)
        late = await churn.settle()
        for one in asking:
            if one.done():
                one.result()
    finally:
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    tell(f"churn: {churn.changes} changes, {churn.asked} answers, {len(churn.wrong)} wrong")
    return ChurnSample(
        town.count, seconds, churn.changes, churn.asked, churn.wrong, dict(churn.answers), late
    )
