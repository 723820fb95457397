"""Parts of the objects that we apply: conditions, owners. Pure: the time is handed in.

With server-side apply an object says only what we want to own. A field that we leave out the next
time is taken away again if nobody else has it, so that giving up a status is to apply it empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from heim_controller.kube.moments import time_of
from heim_controller.kube.resources import Manifest

__all__ = ["ConditionStatus", "condition", "conditions", "owner_reference", "same_status"]

ConditionStatus: TypeAlias = Literal["True", "False", "Unknown"]

# metav1.Condition.
MAX_MESSAGE: Final = 32_768


def condition(
    type: str,  # noqa: A002 - the API's word
    status: ConditionStatus,
    *,
    reason: str,
    message: str = "",
) -> dict[str, str]:
    """One condition, still without its times; see `conditions`.

    Args:
        type: What is true or not ("Accepted").
        status: Whether it is.
        reason: One CamelCase word; must not be empty.
        message: A sentence for people.
    """
    return {"type": type, "status": status, "reason": reason, "message": message[:MAX_MESSAGE]}


def conditions(
    wanted: Iterable[Mapping[str, str]], current: Manifest, *, now: float
) -> list[dict[str, Any]]:
    """The conditions to apply to an object.

    `observedGeneration` is the object's generation. `lastTransitionTime` moves only when the
    status flips, not with a new reason or message: that is what it means, and an object whose
    status is rewritten on every rebuild would wake everybody that watches it.

    Args:
        wanted: From `condition`, each type once.
        current: The object as it is, with the conditions that it has.
        now: Seconds since the epoch.
    """
    status = current.get("status")
    had = status.get("conditions") if isinstance(status, dict) else None
    before = {
        entry.get("type"): entry
        for entry in (had if isinstance(had, list) else ())
        if isinstance(entry, dict)
    }
    generation = current.get("metadata", {}).get("generation")
    made = []
    for entry in wanted:
        old = before.get(entry["type"], {})
        kept = old.get("lastTransitionTime") if old.get("status") == entry["status"] else None
        made.append(
            {
                **entry,
                **({"observedGeneration": generation} if isinstance(generation, int) else {}),
                "lastTransitionTime": kept or time_of(now),
            }
        )
    return sorted(made, key=lambda entry: str(entry["type"]))


def owner_reference(owner: Manifest) -> dict[str, Any]:
    """A reference that lets Kubernetes delete an object with its owner, of the same namespace.

    Owners in another namespace are not found, and what they own is deleted at once.
    """
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def same_status(wanted: Mapping[str, Any], current: Manifest) -> bool:
    """Whether the status says already what we want it to: then nothing needs to be written.

    Only the keys of `wanted` are compared. Lists count as equal in any order: load balancers are
    told in the order in which the cloud answered.
    """
    status = current.get("status")
    had = status if isinstance(status, dict) else {}
    return all(_canonical(value) == _canonical(had.get(key)) for key, value in wanted.items())


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _canonical(inner) for key, inner in value.items() if inner not in (None, "")}
    if isinstance(value, list | tuple):
        return sorted((_canonical(inner) for inner in value), key=repr)
    return value
