"""What a translation has to say about objects: reasons, with what they mean and what to do.

The table is the reference: Events carry the reason, `docs/reference/kubernetes-mapping.md` is
generated from it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from heim_controller.translation.objects import Ref

__all__ = ["REASONS", "Diagnostic", "Findings", "Meaning", "Severity"]

# One line in `kubectl describe`; the API server takes 1024 bytes, the rest is for what it adds.
_MAX_MESSAGE_CHARS: Final = 800


class Severity(enum.Enum):
    """How much is lost: INFO nothing, WARNING something that was asked for, ERROR a whole rule.

    After an ERROR what the object asked for answers 503, or is not there at all where nothing else
    could answer in its place.
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a reason stands for, and what to do about it; one sentence each."""

    severity: Severity
    means: str
    remedy: str


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One thing to tell about one object.

    `reason` is a key of `REASONS`; `field` is the place within the object, as in
    ``spec.rules[0].http.paths[1]``, or empty for the whole of it. `message` is one line.
    """

    kind: str
    namespace: str
    name: str
    reason: str
    message: str
    severity: str
    field: str = ""

    @property
    def is_event_warning(self) -> bool:
        """Whether the Event's type is Warning rather than Normal."""
        return self.severity != Severity.INFO.value


def _error(means: str, remedy: str) -> Meaning:
    return Meaning(Severity.ERROR, means, remedy)


def _warning(means: str, remedy: str) -> Meaning:
    return Meaning(Severity.WARNING, means, remedy)


def _info(means: str, remedy: str) -> Meaning:
    return Meaning(Severity.INFO, means, remedy)


REASONS: Final[Mapping[str, Meaning]] = {}


class Findings:
    """Collects diagnostics of one translation. The same one is kept once."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[Diagnostic, None] = {}

    def add(self, ref: Ref, reason: str, message: str, *, field: str = "") -> None:
        """Say something about an object; the severity is the reason's."""
        line = " ".join(message.split())[:_MAX_MESSAGE_CHARS]
        severity = REASONS[reason].severity.value
        one = Diagnostic(ref.kind, ref.namespace, ref.name, reason, line, severity, field)
        self._found[one] = None

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Everything that was said, by object: the order of the input does not show."""
        return tuple(sorted(self._found))
