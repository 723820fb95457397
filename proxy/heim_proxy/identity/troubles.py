"""What went wrong lately with a provider, as sign-ins met it: nothing is asked for this alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from heim_proxy.identity.login_errors import ProviderDown, ProviderFault
from heim_runtime.clock import Clock

__all__ = ["Troubles"]


@dataclass(frozen=True, slots=True)
class _Trouble:
    """Times in seconds since the epoch: the first failure since it last worked, and the latest."""

    since: float
    last: float
    reason: str


class Troubles:
    """The requests to one provider that failed when they were last made, by the step of a sign-in.

    By step, since a token endpoint may be dead while the metadata is well. Bounded by the steps.
    """

    __slots__ = ("_by_step", "_clock")

    def __init__(self, clock: Clock) -> None:
        self._clock: Final = clock
        self._by_step: Final[dict[str, _Trouble]] = {}

    @contextmanager
    def watch(self, step: str) -> Iterator[None]:
        """Take note of how a request for `step` ends; what one person's login proves is no matter.

        Raises:
            ProviderDown, ProviderFault: As they came.
        """
        try:
            yield
        except (ProviderDown, ProviderFault) as error:
            now = self._clock.now()
            before = self._by_step.get(step)
            since = now if before is None else before.since
            self._by_step[step] = _Trouble(since, now, str(error))
            raise
        self._by_step.pop(step, None)

    def words(self) -> str:
        """What fails and since when, on one line; empty when nothing did when last tried."""
        return "; ".join(
            f"{trouble.reason}, since {_utc(trouble.since)}, last tried {_utc(trouble.last)}"
            for trouble in self._by_step.values()
        )


def _utc(when: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
