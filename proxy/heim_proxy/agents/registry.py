"""Which agents are connected, by which lanes, and which lane a new stream goes to.

Sans-IO: it decides and remembers; whoever asks ends the lanes it names. A name has machines, each
with its own key; a machine has one run of the program at a time, with one to four lanes. A newer
run of the same key replaces the older one, and the end of an old lane never takes a newer one away.
Two machines with one key (a cloned disk) would take the name from each other for ever: the one that
is here stays then, and both are told.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from heim_proxy.agents.choice import Choice
from heim_proxy.agents.presence import Offline, Presence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from heim_proxy.agents.lane import Lane

__all__ = ["DUPLICATE_RETRY_S", "Arrival", "Registry"]

# A machine that is reset comes back before its old connections are known to be dead: once, or a few
# times while somebody works on it. Clones do it every second.
_MOST_REPLACED: Final = 3
_WINDOW_S: Final = 60.0
DUPLICATE_RETRY_S: Final = 60.0
"""When the second of two machines with one key may ask again."""
# Longer than that and a slow connection: while the second asks, the first one stays.
_DUPLICATE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """What comes of a lane that asks to be taken in.

    Attributes:
        replaced: Lanes to be ended as superseded; they are not in the registry any more.
        twin: A lane of another machine that has the same key, when that is what this looks like.
        refused: The newcomer was not taken in: `twin` stays.
    """

    replaced: tuple[Lane, ...] = ()
    twin: Lane | None = None
    refused: bool = False


@dataclass(slots=True)
class _Machine:
    """One key of a name: the lanes of its current run, by number."""

    boot: str
    lanes: dict[int, Lane] = field(default_factory=dict)
    # When a run was replaced that was still here.
    replaced: list[float] = field(default_factory=list)
    # Until when a newer run is taken for a second machine.
    doubted_until: float = 0.0


class Registry:
    """The lanes that are ready, and the last sight of every agent that is not here."""

    def __init__(self) -> None:
        self._agents: dict[str, dict[str, _Machine]] = {}
        # The same lanes, for `pick`.
        self._choices: dict[str, Choice] = {}
        self._seen: dict[str, float | None] = {}
        # Agents whose last lane ended with its enrolment, and those for whom a machine joined that
        # has not come yet: it takes the place of one that is revoked for it.
        self._revoked: set[str] = set()
        self._expected: set[str] = set()
        # Streams by agent and outcome, since the start.
        self._outcomes: dict[tuple[str, ...], float] = {}
        self.duplicates = 0
        self._lanes = 0

    def __len__(self) -> int:
        """How many lanes there are."""
        return self._lanes

    # -- lanes ------------------------------------------------------------------------------

    def arrive(self, lane: Lane, now: float) -> Arrival:
        """Take in a lane that proved who it is.

        Args:
            lane: It must not be in here.
            now: Monotonic seconds.
        """
        machines = self._agents.setdefault(lane.name, {})
        machine = machines.setdefault(lane.thumbprint, _Machine(lane.boot))
        replaced: tuple[Lane, ...] = ()
        twin: Lane | None = None
        if machine.boot != lane.boot and machine.lanes:
            twin = self._doubt(machine, now)
            if twin is not None:
                return Arrival(twin=twin, refused=True)
            replaced = tuple(machine.lanes.values())
            machine.lanes = {}
        elif lane.number in machine.lanes:
            # The same run again: its old connection is dead, and we have not noticed yet.
            replaced = (machine.lanes.pop(lane.number),)
        self._lanes += 1 - len(replaced)
        choice = self._choices.setdefault(lane.name, Choice())
        for old in replaced:
            choice.remove(old)
        choice.add(lane)
        machine.boot = lane.boot
        machine.lanes[lane.number] = lane
        self._seen.setdefault(lane.name, None)
        self._revoked.discard(lane.name)
        self._expected.discard(lane.name)
        return Arrival(replaced)

    def _doubt(self, machine: _Machine, now: float) -> Lane | None:
        """A lane of the machine that stays, when one too many came with its key."""
        if now >= machine.doubted_until:
            machine.replaced = [at for at in machine.replaced if now - at < _WINDOW_S]
            machine.replaced.append(now)
            if len(machine.replaced) <= _MOST_REPLACED:
                return None
        self.duplicates += 1
        machine.doubted_until = now + _DUPLICATE_S
        return next(iter(machine.lanes.values()))

    def leave(self, lane: Lane, wall: float, *, revoked: bool = False) -> bool:
        """A lane ended; False when it had been replaced or was never taken in.

        Args:
            lane: Whichever.
            wall: Seconds since the epoch.
            revoked: Whether it ended because its enrolment did.
        """
        machines = self._agents.get(lane.name, {})
        machine = machines.get(lane.thumbprint)
        if machine is None or machine.lanes.get(lane.number) is not lane:
            return False
        del machine.lanes[lane.number]
        self._lanes -= 1
        self._choices[lane.name].remove(lane)
        self._seen[lane.name] = wall
        if not machine.lanes:
            del machines[lane.thumbprint]
            if not machines:
                del self._agents[lane.name], self._choices[lane.name]
                if revoked and lane.name not in self._expected:
                    self._revoked.add(lane.name)
        return True

    def pick(self, name: str) -> Lane | Offline:
        """The lane for a new stream of an agent; see `Choice.pick`."""
        choice = self._choices.get(name)
        return self.offline(name) if choice is None else choice.pick()

    def took(self, lane: Lane) -> None:
        """A lane has a stream; one that was replaced may have one still."""
        choice = self._choices.get(lane.name)
        if choice is not None:
            choice.took(lane)

    def freed(self, lane: Lane) -> None:
        """A lane carries nothing any more."""
        choice = self._choices.get(lane.name)
        if choice is not None:
            choice.freed(lane)

    def lanes_of(self, name: str) -> tuple[Lane, ...]:
        """Every lane of an agent."""
        machines = self._agents.get(name, {})
        return tuple(lane for one in machines.values() for lane in one.lanes.values())

    def lanes(self) -> tuple[Lane, ...]:
        """Every lane of every agent."""
        return tuple(
            lane
            for machines in self._agents.values()
            for one in machines.values()
            for lane in one.lanes.values()
        )

    # -- those who are not here -------------------------------------------------------------

    def offline(self, name: str) -> Offline:
        """What is known of an agent that is not connected."""
        return Offline(self._seen.get(name), name in self._seen, name in self._revoked)

    def joined(self, name: str, seen: float | None = None) -> None:
        """A machine is this agent, last here at `seen` (seconds since the epoch).

        Without `seen` it has just joined.
        """
        self._revoked.discard(name)
        if seen is None:
            self._expected.add(name)
        before = self._seen.get(name)
        if before is None or (seen is not None and seen > before):
            self._seen[name] = seen

    def retain(self, names: Iterable[str]) -> None:
        """Forget what is remembered of agents that are not configured any more."""
        kept = set(names)
        self._seen = {name: at for name, at in self._seen.items() if name in kept}
        self._revoked &= kept
        self._expected &= kept
        self._outcomes = {key: n for key, n in self._outcomes.items() if key[0] in kept}

    # -- figures ----------------------------------------------------------------------------

    def count(self, name: str, result: str) -> None:
        """Count a stream that was asked for: "opened", or the slug of why it was not."""
        key = (name, result)
        self._outcomes[key] = self._outcomes.get(key, 0) + 1

    @property
    def outcomes(self) -> Mapping[tuple[str, ...], float]:
        """Streams by agent and result, since the start."""
        return dict(self._outcomes)

    def agents(self) -> list[Presence]:
        """Every machine that is connected, by agent."""
        return [
            _presence(machine)
            for name in sorted(self._agents)
            for machine in self._agents[name].values()
        ]

    def names(self) -> Iterable[str]:
        """Agents that are here."""
        return self._agents.keys()

    def keys(self, name: str) -> Iterable[str]:
        """Thumbprints of the machines of an agent that are here."""
        return self._agents.get(name, {}).keys()

    def presence(self, name: str, thumbprint: str) -> Presence:
        """A machine that is here."""
        return _presence(self._agents[name][thumbprint])

    def by_agent(self) -> Iterator[tuple[str, int, int, float]]:
        """Name, machines, lanes and the earliest end of a certificate, of each that is here."""
        for name, machines in self._agents.items():
            lanes = [lane for one in machines.values() for lane in one.lanes.values()]
            yield name, len(machines), len(lanes), min(lane.valid_until for lane in lanes)


def _presence(machine: _Machine) -> Presence:
    lanes = sorted(machine.lanes.values(), key=lambda lane: lane.number)
    newest = max(lanes, key=lambda lane: lane.since)
    return Presence(
        name=newest.name,
        thumbprint=newest.thumbprint,
        device=newest.device,
        version=newest.version,
        boot=machine.boot,
        since=min(lane.since for lane in lanes),
        expires=min(lane.valid_until for lane in lanes),
        lanes=tuple(lane.presence() for lane in lanes),
    )
