"""When to ask for a newer certificate, and how loudly to say that there is none. Decisions only.

All times are the proxy's (`heim_agent.clock`), in seconds since the epoch.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from cryptography import x509

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

__all__ = ["Renewals", "Span", "Urgency"]

_DUE: Final = 2 / 3
"""Of a certificate's life."""

_LATE: Final = 1 / 2
"""Of what is left when it is due."""

# Between attempts: a twelfth of what is left, but neither a storm nor a day.
_FIRST_RETRY_S: Final = 30.0
_LAST_RETRY_S: Final = 900.0
_RETRY_PART: Final = 1 / 12
_SPREAD: Final = 0.2


class Urgency(enum.Enum):
    """How bad it is that a certificate was not renewed yet."""

    EARLY = "early"
    DUE = "due"
    LATE = "late"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Span:
    """A certificate's life, from `begins` to `ends`."""

    begins: float
    ends: float

    @classmethod
    def of(cls, certificate: bytes) -> Span:
        """The life of a certificate (DER). Raises ValueError when it is none."""
        found = x509.load_der_x509_certificate(certificate)
        return cls(found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp())

    @property
    def due(self) -> float:
        """When to ask for another."""
        return self.begins + _DUE * (self.ends - self.begins)

    def urgency(self, now: float) -> Urgency:
        """How bad it is."""
        if now >= self.ends:
            return Urgency.OVER
        if now >= self.due + _LATE * (self.ends - self.due):
            return Urgency.LATE
        return Urgency.DUE if now >= self.due else Urgency.EARLY


class Renewals:
    """The attempts to renew one certificate after another."""

    __slots__ = ("_failures", "_fraction", "_next", "span")

    def __init__(self, span: Span, fraction: Callable[[], float] | None = None) -> None:
        """Begin with a certificate in force.

        Args:
            span: Its life.
            fraction: Gives numbers in [0, 1); tests hand in their own.
        """
        self._fraction = fraction or random.SystemRandom().random
        self.renewed(span)

    def renewed(self, span: Span) -> None:
        """Another certificate is in force."""
        self.span = span
        self._failures = 0
        self._next = span.due

    def wait_s(self, now: float) -> float:
        """Seconds until the next attempt; 0 when it is time."""
        return max(0.0, self._next - now)

    def failed(self, now: float) -> Urgency:
        """Note that an attempt failed at `now`; how bad that is."""
        self._failures += 1
        left = max(0.0, self.span.ends - now)
        growing = _FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 20)
        retry = min(growing, max(_FIRST_RETRY_S, min(left * _RETRY_PART, _LAST_RETRY_S)))
        # Lanes that were let in together do not ask together.
        self._next = now + retry * (1.0 - _SPREAD * self._fraction())
        return self.span.urgency(now)
