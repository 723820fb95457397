"""Whose streams a lane carries: nobody may take so many that there are none for the others.

A lane has 1024 streams, for every target of the agent: whoever opens web pages without end would
shut out those who want to log in on the same machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Container, Hashable, Sized
    from typing import Protocol

    class Live(Container[int], Sized, Protocol):
        """The numbers of the streams that are open."""


__all__ = ["EACH", "PUBLIC", "Shares"]

EACH: Final = 256
"""Streams of one person on one lane, whatever their sessions; more where `tunnel.streams_per_user`
gives them more. Browsers make dozens."""

PUBLIC: Final = 512
"""Of everybody on public backends together, who are strangers: half of a lane."""

_REMEMBERED: Final = 2_048


class Shares:
    """Of one lane. Streams that are over are forgotten now and then, not each at its end."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: dict[int, Hashable] = {}

    def full(self, owner: Hashable, live: Live, *, limit: int) -> bool:
        """Whether `owner` has `limit` streams among those that are `live`."""
        if len(live) < limit:
            # Nearly always: nobody can have as many.
            return False
        self._forget(live)
        return sum(one == owner for one in self._owners.values()) >= limit

    def note(self, number: int, owner: Hashable, live: Live) -> None:
        """Stream `number` is for `owner`."""
        if len(self._owners) >= _REMEMBERED:
            self._forget(live)
        self._owners[number] = owner

    def _forget(self, live: Live) -> None:
        self._owners = {number: owner for number, owner in self._owners.items() if number in live}
