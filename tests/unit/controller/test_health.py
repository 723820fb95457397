"""/livez, /readyz and /metrics."""

from __future__ import annotations

import aiohttp
import pytest

from heim_controller.health import Health
from heim_controller.metrics import Readings
from heim_runtime.complaints import Complaint

ANY = ("127.0.0.1", 0)


async def get(health: Health, path: str) -> tuple[int, str]:
    host, port = health.place
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_it_is_ready_when_nothing_is_missing() -> None:
    missing = ["ingresses: 403", "secrets/heim"]
    async with Health(ANY, missing=lambda: missing, readings=dict) as health:
        assert await get(health, "/livez") == (200, "ok\n")
        assert await get(health, "/readyz") == (
            503, "waiting for ingresses: 403\nwaiting for secrets/heim\n",
        )  # fmt: skip
        missing.clear()
        assert await get(health, "/readyz") == (200, "ok\n")


async def test_metrics_are_served_and_nothing_else() -> None:
    readings: Readings = {"heim_controller_leader": {(): 1.0}}
    async with Health(ANY, missing=list, readings=lambda: readings) as health:
        status, text = await get(health, "/metrics")
        assert status == 200
        assert "heim_controller_leader 1.0" in text
        assert (await get(health, "/"))[0] == 404


async def test_an_address_that_is_taken_is_complained_of() -> None:
    async with Health(ANY, missing=list, readings=dict) as health:
        with pytest.raises(Complaint, match="--health-address"):
            async with Health(health.place, missing=list, readings=dict):
                pass
