"""What can be wrong with the fake API server: knobs that tests turn while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Asked", "Burst", "Faults"]


@dataclass(frozen=True)
class Asked:
    """One request, as far as faults and tests look at it.

    Attributes:
        verb: get, list, watch, create, update, patch, apply, delete.
        plural: "ingresses"; "ingresses/status" for the subresource.
        token: The bearer token, "" without.
        query: Its parameters.
        namespace: Of the object or the list; "" for all.
        name: Of the object; "" for lists and watches.
    """

    verb: str
    plural: str
    token: str
    query: dict[str, str]
    namespace: str = ""
    name: str = ""


@dataclass
class Burst:
    """The same error for some requests."""

    status: int
    times: int
    retry_after: int | None
    when: Callable[[Asked], bool]


@dataclass
class Faults:
    """Everything off at first.

    Attributes:
        bursts: Errors to answer with, in order; see `answer`.
        forbidden: Verbs of plurals that RBAC denies: ("list", "secrets"), "*" for all.
        silent: Watches say nothing any more and stay open.
        slow_s: Every list waits this long.
        stall_writes: Writes wait for this to be set, before they are done.
        stall_answers: Writes are done, and their answer waits for this to be set.
        chunk: Watches are written in pieces of this many bytes; 0 for whole lines.
        gone_by_status: A compacted version is answered with HTTP 410 and not with an ERROR event.
        duration_s: Watches end after this long whatever was asked for; None as asked.
        bookmark_s: Between two bookmarks.
    """

    bursts: deque[Burst] = field(default_factory=deque)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    silent: bool = False
    slow_s: float = 0.0
    stall_writes: asyncio.Event | None = None
    stall_answers: asyncio.Event | None = None
    chunk: int = 0
    gone_by_status: bool = False
    duration_s: float | None = None
    bookmark_s: float = 60.0

    def answer(
        self,
        status: int,
        *,
        times: int = 1,
        retry_after: int | None = None,
        when: Callable[[Asked], bool] = lambda asked: True,
    ) -> None:
        """Answer the next `times` requests that `when` picks with an error."""
        self.bursts.append(Burst(status, times, retry_after, when))

    def heal(self) -> None:
        """No more planned errors."""
        self.bursts.clear()

    def due(self, asked: Asked) -> Burst | None:
        """The error that this request gets."""
        for burst in self.bursts:
            if burst.times > 0 and burst.when(asked):
                burst.times -= 1
                return burst
        return None

    def denies(self, asked: Asked) -> bool:
        """Whether RBAC says no."""
        return bool(
            {(asked.verb, asked.plural), ("*", asked.plural), (asked.verb, "*"), ("*", "*")}
            & self.forbidden
        )
