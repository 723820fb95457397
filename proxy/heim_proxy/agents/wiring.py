"""Everything about agents in one process, joined: what `app` makes, changes and shows."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from heim_proxy.agents.authority import Authority
from heim_proxy.agents.door import AgentDoor
from heim_proxy.agents.enrolment import Enrolments
from heim_proxy.agents.judging import Judge
from heim_proxy.agents.presence import LanePresence, Presence
from heim_proxy.store.base import SessionKind, StoreUnavailable

if TYPE_CHECKING:
    from heim_config.model import Config
    from heim_proxy.agents.registry import Registry
    from heim_proxy.identity.session import Sessions
    from heim_proxy.observe.admin import Admin
    from heim_proxy.observe.audit import Audit
    from heim_proxy.observe.metrics import Metrics
    from heim_proxy.snapshot import Snapshot
    from heim_proxy.store.base import Store
    from heim_runtime.clock import Clock

__all__ = ["Agents", "authority_of"]

log = logging.getLogger(__name__)

_MACHINE: Final = tuple(field.name for field in fields(Presence) if field.name != "lanes")
_LANE: Final = tuple(field.name for field in fields(LanePresence))


def authority_of(config: Config) -> Authority:
    """The authority that a configuration names, or the one beside the state, made if need be.

    Raises:
        KeyFileError: It cannot be used.
    """
    given = config.agents_ca
    if given is not None:
        return Authority.load(given.cert_file, given.key_file, login_host=config.login_host)
    return Authority.load_or_create(config.state.path.parent, login_host=config.login_host)


class Agents:
    """The parts, and what they are asked together.

    Attributes:
        store: Where enrolments are.
        enrolments: Who is which agent.
        registry: Who is here.
        door: Where lanes come in.
    """

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        *,
        authority: Callable[[], Authority],
        snapshot: Callable[[], Snapshot],
        audit: Audit,
        clock: Clock,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: Shared with everything else.
            sessions: Enrolments are sessions, so that they are revoked like sessions.
            authority: The one in force.
            snapshot: The one in force.
            audit: Told who comes and goes.
            clock: Measures the pace of asking.
        """
        self.store: Final = store
        self.enrolments: Final = Enrolments(
            store,
            authority=authority,
            permitted=lambda: snapshot().agents,
            approves=lambda subject: snapshot().policy.grants(subject).approver is not None,
            clock=clock,
            enrolled=lambda name: self.registry.joined(name),
        )
        judge = Judge(
            authority=authority, snapshot=snapshot, enrolments=self.enrolments, sessions=sessions
        )
        self.door: Final = AgentDoor(
            judge=judge, authority=authority, snapshot=snapshot, audit=audit
        )
        self._snapshot: Final = snapshot

    @property
    def registry(self) -> Registry:
        """Who is here."""
        return self.door.registry

    @property
    def authority(self) -> Authority:
        """The one in force."""
        return self.door.authority()

    async def open(self) -> None:
        """Read who joined and when they were here last, for those who ask before they are back."""
        self.swap()
        try:
            rows = await self.store.list_sessions(kind=SessionKind.AGENT)
        except StoreUnavailable as error:
            # Words are missing then, and no agent.
            log.warning("agents.unread", extra={"error": str(error)})
            return
        for row in rows:
            self.registry.joined(row.subject, row.last_seen)

    def swap(self) -> None:
        """Another configuration is in force."""
        self.door.changed()

    def expose(self, metrics: Metrics) -> None:
        """Say where the figures come from."""
        registry = self.registry
        metrics.expose("heim_agents_connected", lambda: self._figures(1))
        metrics.expose("heim_agent_lanes", lambda: self._figures(2))
        metrics.expose(
            "heim_agent_certificate_expires_seconds",
            lambda: {name: expires for name, _, _, expires in registry.by_agent()},
        )
        metrics.expose("heim_agent_streams_total", lambda: registry.outcomes)
        metrics.expose("heim_agent_refused_total", self.door.refused.read)
        metrics.expose("heim_agent_duplicates_total", lambda: registry.duplicates)

    def _figures(self, column: int) -> Mapping[str, float]:
        """Machines (1) or lanes (2) of every agent that is configured, those with none too."""
        figures = dict.fromkeys(self._snapshot().agents, 0.0)
        figures.update({row[0]: float(row[column]) for row in self.registry.by_agent()})
        return figures

    def show(self, admin: Admin) -> None:
        """Serve /debug/agents."""
        admin.debug_pages("agents", self._page)

    def _page(self, limit: int, after: str) -> dict[str, Any]:
        """At most `limit` machines and agents without one, by name and key, from behind `after`."""
        registry = self.registry
        names = sorted({*self._snapshot().agents, *registry.names()})
        name, _, key = after.partition("/")
        rows = (
            row
            for one in names[bisect_left(names, name) :]
            for row in _rows(registry, one, behind=key if after and one == name else None)
        )
        connected: list[dict[str, Any]] = []
        offline: dict[str, Any] = {}
        last = ""
        for one, thumbprint in islice(rows, limit):
            last = f"{one}/{thumbprint}"
            if thumbprint:
                connected.append(_shown(registry.presence(one, thumbprint)))
            else:
                offline[one] = asdict(registry.offline(one))
        return {
            "replica": self.door.replica,
            "connecting": self.door.connecting,
            "connected": connected,
            "offline": offline,
            "next": last if next(rows, None) is not None else None,
        }


def _rows(registry: Registry, name: str, *, behind: str | None) -> list[tuple[str, str]]:
    """Name and key of each machine, from behind a key; of an agent without one the key is ""."""
    keys = sorted(registry.keys(name)) or [""]
    return [(name, key) for key in keys if behind is None or key > behind]


def _shown(one: Presence) -> dict[str, Any]:
    # As `asdict`, which copies every value and takes three times as long.
    lanes = [{name: getattr(lane, name) for name in _LANE} for lane in one.lanes]
    return {name: getattr(one, name) for name in _MACHINE} | {"lanes": lanes}
