"""/livez, /readyz and /metrics, for kubelet and Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Self

from aiohttp import web

from heim_controller.metrics import CONTENT_TYPE, Readings, exposition
from heim_runtime.complaints import UNAVAILABLE, Complaint

__all__ = ["Health"]

log = logging.getLogger(__name__)


class Health:
    """An HTTP server that answers for the program; use it as `async with`.

    /livez answers as long as the event loop runs: what ends a part of the program ends all of it.
    /readyz is good once every cache was complete, and stays so when the API server goes away: a
    restart would not bring it back.

    Attributes:
        place: Host and port that it listens on.
    """

    def __init__(
        self,
        place: tuple[str, int],
        *,
        missing: Callable[[], list[str]],
        readings: Callable[[], Readings],
    ) -> None:
        """Listen on `place` later.

        Args:
            place: Host and port; port 0 for any.
            missing: What /readyz waits for, one line each.
            readings: What /metrics tells.
        """
        self.place = place
        self._missing = missing
        self._readings = readings
        app = web.Application(client_max_size=1024)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, keepalive_timeout=30, shutdown_timeout=1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self.place)
        try:
            await site.start()
        except OSError as e:
            await self._runner.cleanup()
            place = f"{self.place[0]}:{self.place[1]}"
            raise Complaint(
                f"cannot listen on {place} (--health-address): {e.strerror or e}", UNAVAILABLE
            ) from e
        address = self._runner.addresses[0]
        self.place = (address[0], address[1])
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    async def _livez(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        missing = self._missing()
        if missing:
            text = "".join(f"waiting for {one}\n" for one in missing)
            return web.Response(text=text, status=503)
        return web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        body = exposition(self._readings)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
