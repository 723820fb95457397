"""Connections through agents: an OPEN on one of an agent's lanes, answered, as a transport.

What is asked for is a target by its name, never an address: the agent alone knows where it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from heim_proxy.agents.registry import Registry
    from heim_proxy.edge.dial import Dialer, Errand
    from heim_proxy.routing import Endpoint
    from heim_proxy.snapshot import Snapshot

__all__ = ["AgentDialer", "AgentDialers"]


class AgentDialers:
    """Makes dialers for endpoints of agents (`edge.dial.AgentDialing`). One per process."""

    def __init__(
        self,
        registry: Registry,
        *,
        snapshot: Callable[[], Snapshot],
        now: Callable[[], float],
    ) -> None:
        """Nothing is asked of anybody yet.

        Args:
            registry: Which agents are here.
            snapshot: The one in force.
            now: Seconds since the epoch.
        """
        raise NotImplementedError

    def dialer(self, endpoint: Endpoint, errand: Errand) -> Dialer:
        """A dialer for one connection to `endpoint` (scheme agent), on somebody's behalf."""
        raise NotImplementedError


class AgentDialer:
    """Dials one target of one agent for one `Errand`; see `edge.dial.Dialer`."""

    async def dial(self, factory: Callable[[], asyncio.BaseProtocol]) -> asyncio.BaseProtocol:
        """A protocol connected to the target.

        Raises:
            AgentDialError: With the code, in words.
        """
        raise NotImplementedError
