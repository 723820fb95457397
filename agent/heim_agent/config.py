"""The agent's configuration: what it serves by which name (agent.toml)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heim_agent.targets import Target

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """One reading of agent.toml.

    Attributes:
        lanes: Connections to each replica of the proxy that are kept up, 1 to 4.
        targets: What is served, by name; the only places that are ever dialled.
    """

    lanes: int = 1
    targets: Mapping[str, Target] = field(default_factory=dict)
