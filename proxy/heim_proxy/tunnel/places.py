"""What each person has of the tunnel: one noisy script must not take it from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from heim_wire.window import WindowBudget

if TYPE_CHECKING:
    from heim_proxy.access.subject import Subject

__all__ = ["Places"]

# Of the process's 512 MiB: upstreams that stand still may hold that much of one person's bytes.
_SHARE_BYTES: Final = 64 * 1024 * 1024


class _Place:
    """One subject's streams, and what their windows may promise together."""

    __slots__ = ("budget", "taken")

    def __init__(self, budget: WindowBudget) -> None:
        self.budget = budget
        self.taken = 0


class Places:
    """Streams and window memory by subject, whatever session. Bounded by what is open."""

    __slots__ = ("_budget", "_places")

    def __init__(self) -> None:
        self._budget = WindowBudget()
        self._places: dict[tuple[str, str], _Place] = {}

    def __len__(self) -> int:
        """How many subjects have a stream."""
        return len(self._places)

    def claim(self, subject: Subject, limit: int) -> bool:
        """Take a place, to be given back with `leave`; False when the subject has `limit`."""
        key = (subject.issuer, subject.subject)
        place = self._places.get(key)
        if place is None:
            place = _Place(WindowBudget(_SHARE_BYTES, parent=self._budget))
        if place.taken >= limit:
            return False
        place.taken += 1
        self._places[key] = place
        return True

    def budget(self, subject: Subject) -> WindowBudget:
        """What the windows of a subject that has a place may promise."""
        return self._places[subject.issuer, subject.subject].budget

    def leave(self, subject: Subject) -> None:
        """Give one place back."""
        key = (subject.issuer, subject.subject)
        place = self._places[key]
        place.taken -= 1
        if not place.taken:
            del self._places[key]
