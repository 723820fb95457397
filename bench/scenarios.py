"""The scenarios by name: what is asked for, over what, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["MEMORY", "SCENARIOS", "SIZES", "Scenario"]

# Bytes of an answer's body by the first segment of its path.
SIZES: Final[Mapping[str, int]] = MappingProxyType({"1k": 1024, "64k": 64 * 1024})

# The scenario that is no load: what an idle TLS connection holds.
MEMORY: Final = "memory"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table: every server gets this load.

    `rate` is the offered load in requests per second; None is as fast as the server answers.
    """

    name: str
    title: str
    size: str
    tls: bool
    rate: int | None = None

    @property
    def body_bytes(self) -> int:
        return SIZES[self.size]


SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario("tls-1k", "TLS 1.3, 1 KiB answers", "1k", tls=True),
            Scenario("http-1k", "Plain http, 1 KiB answers", "1k", tls=False),
            Scenario("tls-64k", "TLS 1.3, 64 KiB answers", "64k", tls=True),
            Scenario("http-64k", "Plain http, 64 KiB answers", "64k", tls=False),
            Scenario(
                "latency", "TLS 1.3, 1 KiB answers, 8,000 requests/s offered", "1k", True, 8_000
            ),
        )
    }
)
