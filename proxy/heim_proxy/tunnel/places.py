"""How many streams each person has: one noisy script must not take the tunnel from the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heim_proxy.access.subject import Subject

__all__ = ["Places"]


class Places:
    """Counts streams by subject, whatever session they run under. Bounded by what is open."""

    __slots__ = ("_taken",)

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], int] = {}

    def claim(self, subject: Subject, limit: int) -> bool:
        """Take a place, to be given back with `leave`; False when the subject has `limit`."""
        key = (subject.issuer, subject.subject)
        taken = self._taken.get(key, 0)
        if taken >= limit:
            return False
        self._taken[key] = taken + 1
        return True

    def leave(self, subject: Subject) -> None:
        """Give one place back."""
        key = (subject.issuer, subject.subject)
        left = self._taken[key] - 1
        if left:
            self._taken[key] = left
        else:
            del self._taken[key]
