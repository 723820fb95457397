"""What sites of tests have in common: a proxy whose clock stands still until a test moves it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.fakes.heim import Heim
from tests.fakes.sessions import ManualClock

__all__ = ["Site"]


@dataclass
class Site:
    """A proxy and its clock."""

    heim: Heim
    clock: ManualClock

    @property
    def live(self) -> int:
        """Exchanges and streams that are in progress."""
        return len(self.heim.proxy._live)

    async def later(self, seconds: float) -> None:
        """Let time pass for the proxy, and let it look at its clock."""
        self.clock.time += seconds
        await self.heim.look_at_the_time(self.clock.now())

    async def change(self, **keys: Any) -> None:
        """Change the configuration, without waiting for the next look at it."""
        await self.heim.change_now(**keys)

    async def line(self, request_id: str) -> dict[str, Any]:
        """The access-log line of a request, once it is written."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            lines = self.heim.log.read_text().splitlines() if self.heim.log.exists() else []
            found[:] = [one for one in map(json.loads, lines) if one["id"] == request_id]
            return bool(found)

        await self.heim.until(look)
        assert len(found) == 1
        return found[0]
