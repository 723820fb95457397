"""Which lane of an agent a new stream goes to, without a look at each: a group may have thousands.

Those that carry nothing are kept apart. Any of them is as good a choice as there is, so that the
others are compared only where there is none.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from heim_proxy.agents.lane import Lane

__all__ = ["COMPARED", "Choice"]

COMPARED: Final = 128
"""Lanes that carry something and are compared for one stream, all in turn: 0.1 ms."""

_NOTHING: Final = (False, False, False, 0, 0)


class Choice:
    """The lanes of one name."""

    __slots__ = ("_free", "_taken")

    def __init__(self) -> None:
        """There is none yet."""
        # Both in the order in which they should be looked at. What has become free is noticed late
        # (`freed`), and stands among the others until then.
        self._free: OrderedDict[Lane, None] = OrderedDict()
        self._taken: OrderedDict[Lane, None] = OrderedDict()

    def add(self, lane: Lane) -> None:
        """A lane is here; it carries nothing."""
        self._free[lane] = None

    def remove(self, lane: Lane) -> None:
        """It is not here any more."""
        self._free.pop(lane, None)
        self._taken.pop(lane, None)

    def took(self, lane: Lane) -> None:
        """It has a stream."""
        if lane in self._free:
            del self._free[lane]
            self._taken[lane] = None

    def freed(self, lane: Lane) -> None:
        """It carries nothing any more."""
        if lane in self._taken:
            del self._taken[lane]
            self._free[lane] = None

    def pick(self) -> Lane:
        """The lane with least to send, then with fewest streams.

        Those with something large on its way, those that are full and those that go away come last,
        in this order: where there is no other, `Lane.open` says why it cannot. Where more than
        COMPARED carry something, and no other is here, it is the best of the next COMPARED.
        """
        free, taken = self._free, self._taken
        while free:
            lane = next(iter(free))
            if _load(lane) == _NOTHING:
                return lane
            # It goes away, or has a stream of its agent's.
            del free[lane]
            taken[lane] = None
        few = len(taken) <= COMPARED
        compared = list(taken if few else islice(taken, COMPARED))
        if not few:
            for lane in compared:
                taken.move_to_end(lane)
        return min(compared, key=_load)


def _load(lane: Lane) -> tuple[bool, bool, bool, int, int]:
    session = lane.channel.session
    return (
        session.going_away, session.full, lane.heavy, session.queued, len(session.streams)
    )  # fmt: skip
