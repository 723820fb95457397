"""What one translation leaves to the next: pieces of which nothing changed that they depend on.

Caches replace objects and never change them, so a piece is good as long as everything that it was
made of is the very same object. What concerns every object (the Proxy, namespaces, classes) is
compared as a whole, and any difference forgets everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Key, Object, Ref
from heim_controller.translation.services import ServiceState
from heim_controller.translation.sites import Rule, Site
from heim_runtime.kept import Kept

__all__ = ["Made", "Memory", "Reading"]


class Reading(NamedTuple):
    """What reading one object gave.

    `found` is the object, `beside` what else it was read with, `asked` are the Services that were
    looked at, as they were, and `told` is what was said of it.
    """

    found: Object
    beside: object
    asked: Sequence[ServiceState]
    site: Site | None
    told: Sequence[Diagnostic]


class Made(NamedTuple):
    """The backends that a share made, and what of it they were made of."""

    site: Site
    rules: Mapping[str, list[Rule]]
    streams: Sequence[str]
    with_tls: frozenset[str]
    backends: list[dict[str, Any]]


class Memory:
    """Pass the same one to each translation of a cluster. Not for two threads at a time.

    Attributes:
        ours: Whether an Ingress is of our classes, with the object that says so.
        slices: Which Service an EndpointSlice is of, with the object that says so.
        services: What is known of each Service that was asked for.
        readings: Each Ingress and Backend, as it was read.
        made: The backends of each site.
        texts: The JSON of each part of the document, by the part's `id`, with the part.
    """

    def __init__(self) -> None:
        """Remember nothing."""
        self._environment: object = None
        self._agents: object = None
        self.ours: Kept[Key, tuple[Object, bool]] = Kept()
        self.slices: Kept[Key, tuple[Object, Key | None]] = Kept()
        self.services: Kept[Key, ServiceState] = Kept()
        self.readings: Kept[Ref, Reading] = Kept()
        self.made: Kept[Ref, Made] = Kept()
        self.texts: Kept[int, tuple[object, str]] = Kept()

    def begin(self, environment: object) -> None:
        """A translation begins; `environment` is what all pieces depend on, compared by value."""
        same = environment == self._environment
        self._environment = environment
        for kept in self._all():
            # Of one that failed half way nothing is believed.
            kept.now.clear()
            if not same:
                kept.clear()

    def end(self) -> None:
        """The translation is done."""
        for kept in self._all():
            kept.turn()

    def same(self, agents: Mapping[Key, frozenset[str]]) -> object:
        """One object for equal targets of Agents, for `Reading.beside`."""
        if agents != self._agents:
            self._agents = agents
        return self._agents

    def _all(self) -> Sequence[Kept[Any, Any]]:
        return (self.ours, self.slices, self.services, self.readings, self.made)

    def __repr__(self) -> str:
        return f"<Memory objects={len(self.readings.before)}>"
