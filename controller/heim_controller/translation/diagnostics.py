"""What a translation has to say about objects, collected while it works."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from heim_controller.translation.objects import Ref
from heim_controller.translation.reasons import REASONS, Severity

__all__ = ["Diagnostic", "Findings", "one_line", "quoted"]

# One line in `kubectl describe`; the API server takes 1024 bytes for an Event's note.
_MAX_MESSAGE_CHARS: Final = 800
# Values are shown to be recognised; longer ones would bury the message.
_MAX_SHOWN_CHARS: Final = 80


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One thing to tell about one object.

    `reason` is a key of `REASONS` and `severity` its severity; `field` is the place within the
    object, as in ``spec.rules[0].http.paths[1]``, or empty for the whole of it. `message` is one
    line.
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

    @property
    def ref(self) -> Ref:
        """The object it is about."""
        return Ref(self.kind, self.namespace, self.name)


class Findings:
    """Collects the diagnostics of one translation; what is said twice is kept once."""

    __slots__ = ("_found", "_heard")

    def __init__(self) -> None:
        self._found: dict[Diagnostic, None] = {}
        self._heard: list[Diagnostic] = []

    def watch(self) -> list[Diagnostic]:
        """Note from now on what is said, in what is returned."""
        self._heard = []
        return self._heard

    def repeat(self, told: Iterable[Diagnostic]) -> None:
        """Say again what was said before."""
        for one in told:
            self._found[one] = None

    def add(self, ref: Ref, reason: str, message: str, *, field: str = "") -> None:
        """Say something about an object; `reason` must be in `REASONS`."""
        line = one_line(message)
        severity = REASONS[reason].severity.value
        one = Diagnostic(ref.kind, ref.namespace, ref.name, reason, line, severity, field)
        self._found[one] = None
        self._heard.append(one)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Everything that was said, by object: the order of the input does not show."""
        return tuple(sorted(self._found))


def one_line(message: str) -> str:
    """A message without line ends and anything else that cannot be seen, not too long."""
    line = " ".join(message.split())[:_MAX_MESSAGE_CHARS].strip()
    if line.isprintable():
        return line
    return "".join(one if one.isprintable() else "?" for one in line)


def quoted(value: object) -> str:
    """A value of an object for a message: in quotes, ASCII, on one line, short."""
    shown = json.dumps(value if isinstance(value, (str, int, bool)) else str(value))
    return shown if len(shown) <= _MAX_SHOWN_CHARS else f"{shown[:_MAX_SHOWN_CHARS]}..."
