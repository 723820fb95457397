"""Objects of the cluster to the configuration document of one proxy, and what to say about them.

The result depends on the arguments alone: not on the order of objects, nor on a clock. A broken
object costs its own routes and nobody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.objects import Key, Objects, Ref
from heim_controller.translation.settings import Settings

__all__ = ["Served", "Translation", "translate"]


@dataclass(frozen=True, slots=True)
class Served:
    """What became of one object of ours: an Ingress of our class, or one of our own kinds.

    `hosts` are those it answers on, sorted. `accepted` says that it is understood and allowed;
    `resolved`, that everything it points at was found. `generation` is the object's
    `metadata.generation`, for `observedGeneration`.
    """

    ref: Ref
    generation: int
    hosts: tuple[str, ...] = ()
    accepted: bool = True
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class Translation:
    """What came of a translation.

    `document` is the configuration document: hand it to `document.canonical` for bytes that are the
    same whenever it is. `secrets` are the TLS Secrets to mirror for it, each under the name that
    `certificates.mirror_name` gives. `served` holds every object that is ours, in order; nothing
    else's status may be written. `owners` says which namespace each host belongs to: pass it to the
    next translation.
    """

    document: Mapping[str, Any]
    secrets: frozenset[Key]
    diagnostics: tuple[Diagnostic, ...]
    served: tuple[Served, ...]
    owners: Mapping[str, str]


def translate(
    objects: Objects,
    settings: Settings,
    *,
    owners: Mapping[str, str] | None = None,
    now: float | None = None,
) -> Translation:
    """Translate everything.

    Args:
        objects: The state of all caches, which must be synced: what is not there is taken as
            deleted.
        settings: What the controller was started with.
        owners: Which namespace each host belonged to after the last translation. A namespace keeps
            a host for as long as it names it: an old object that is edited to name somebody
            else's host must not win by its age.
        now: Seconds since the epoch, to see which certificates have expired; None leaves that to
            `CertificateFacts.problem`.

    Never raises for what objects say.
    """
    raise NotImplementedError
