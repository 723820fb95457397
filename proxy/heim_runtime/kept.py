"""Values that one round of work leaves to the next, for as long as they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

__all__ = ["Kept"]

K = TypeVar("K")
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key: `before` are the last round's, `now` those of the round at work.

    What a round does not put into `now` is let go when it ends, so that a value dies with the thing
    that it was made of, and never more is kept than one round uses.
    """

    __slots__ = ("before", "now")

    def __init__(self) -> None:
        """Hold nothing."""
        self.before: Mapping[K, V] = {}
        self.now: dict[K, V] = {}

    def turn(self) -> None:
        """The round has ended, and was no failure."""
        self.before, self.now = self.now, {}

    def clear(self) -> None:
        """Let everything go."""
        self.before, self.now = {}, {}
