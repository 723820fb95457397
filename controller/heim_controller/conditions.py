"""What stands in the status of our own kinds: whether an object is accepted, whole and in force.

Pure. `Accepted` says that the object is understood and allowed, `ResolvedRefs` that everything it
points at was found, `Programmed` that the proxy serves what this generation of it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from heim_controller.kube.apply import condition
from heim_controller.kube.resources import Manifest
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Ref, listed, mapping
from heim_controller.translation.reasons import REASONS, Severity
from heim_controller.translation.translate import Served

__all__ = ["Programming", "Standing", "conditions_of", "proxy_conditions"]

# More is for the documentation; an object with a hundred mistakes needs no list of them here.
_MAX_TOLD: Final = 5

Condition = dict[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What the controller knows of how far the proxy is.

    Attributes:
        published: Hash of the document that is published, "" for none.
        applied: Hash of the document that the proxy has in force, "" when nobody knows.
        trouble: Why the proxy does not have what is published, although it had the time; "".
        refused: Why the controller does not publish what it translated; "".
    """

    published: str = ""
    applied: str = ""
    trouble: str = ""
    refused: str = ""


class Programming:
    """Which generation of each object was in a document that the proxy has applied.

    An object is not in question whenever something else changes: it stays Programmed until its own
    generation changes.
    """

    def __init__(self) -> None:
        self._published: tuple[str, dict[Ref, int]] = ("", {})
        self._applied: dict[Ref, int] = {}

    def published(self, digest: str, served: Iterable[Served]) -> None:
        """A document with these generations is published."""
        self._published = (digest, {one.ref: one.generation for one in served})

    def applied(self, digest: str) -> None:
        """The proxy has this document in force."""
        if digest and digest == self._published[0]:
            self._applied = self._published[1]

    def has(self, ref: Ref, generation: int) -> bool:
        """Whether this generation of an object is in force, as far as we saw."""
        return self._applied.get(ref) == generation


def conditions_of(
    one: Served, diagnostics: Iterable[Diagnostic], programming: Programming, current: Manifest
) -> list[Condition]:
    """The conditions of an object of ours, other than the Proxy.

    Args:
        one: What became of it.
        diagnostics: What there is to say about it.
        programming: What is in force.
        current: The object as it is, with the conditions that it has.
    """
    told = list(diagnostics)
    wrong = [
        found
        for found in told
        if not REASONS[found.reason].reference and found.severity == Severity.ERROR.value
    ]
    dangling = [found for found in told if REASONS[found.reason].reference]
    remarks = [found for found in told if found not in wrong and found not in dangling]
    accepted = (
        condition("Accepted", "True", reason="Accepted", message=_told(remarks))
        if one.accepted
        else condition("Accepted", "False", reason=_reason(wrong), message=_told(wrong))
    )
    resolved = (
        condition("ResolvedRefs", "True", reason="ResolvedRefs")
        if one.resolved
        else condition("ResolvedRefs", "False", reason=_reason(dangling), message=_told(dangling))
    )
    return [accepted, resolved, _programmed(one, programming, current)]


def _programmed(one: Served, programming: Programming, current: Manifest) -> Condition:
    if not one.accepted:
        return condition(
            "Programmed", "False", reason="NotAccepted", message="see the condition Accepted"
        )
    if programming.has(one.ref, one.generation) or _was(current, "Programmed", one.generation):
        return condition("Programmed", "True", reason="Programmed")
    return condition(
        "Programmed", "Unknown", reason="Pending", message="the proxy has not applied it yet"
    )


def proxy_conditions(
    one: Served, diagnostics: Iterable[Diagnostic], standing: Standing, current: Manifest
) -> list[Condition]:
    """The conditions of the Proxy: Ready when it serves what the cluster says.

    A change takes the proxy a moment to apply; that alone does not make it unready.
    """
    programming = Programming()
    made = conditions_of(one, diagnostics, programming, current)[:2]
    in_force = bool(standing.published) and standing.applied == standing.published
    if standing.refused:
        ready = condition("Ready", "False", reason="NotPublished", message=standing.refused)
    elif standing.trouble:
        ready = condition("Ready", "False", reason="NotApplied", message=standing.trouble)
    elif in_force or _was(current, "Ready", None):
        ready = condition("Ready", "True", reason="Applied")
    else:
        ready = condition(
            "Ready", "Unknown", reason="Pending", message="the proxy has not applied it yet"
        )
    return [*made, ready]


def _was(current: Manifest, kind: str, generation: int | None) -> bool:
    """Whether a condition is True already, for this generation (None: for any)."""
    for entry in map(mapping, listed(mapping(current.get("status")).get("conditions"))):
        if entry.get("type") == kind and entry.get("status") == "True":
            return generation is None or entry.get("observedGeneration") == generation
    return False


def _reason(told: list[Diagnostic]) -> str:
    return told[0].reason if told else "NotServed"


def _told(told: list[Diagnostic]) -> str:
    lines = [_line(one) for one in told[:_MAX_TOLD]]
    if len(told) > _MAX_TOLD:
        lines.append(f"and {len(told) - _MAX_TOLD} more")
    return "; ".join(lines)


def _line(one: Diagnostic) -> str:
    place: Mapping[bool, str] = {True: f" ({one.field})", False: ""}
    return f"{one.message}{place[bool(one.field)]}"
