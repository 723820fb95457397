"""Server-side apply and field ownership, as far as the fake API server needs them.

A field is a path of keys; an item of a list that has identities (conditions by type) is a key of
its own, every other list is one field. Who wrote a field is kept as sets of paths, and shown in
`metadata.managedFields` in the form of the real one (`f:` and `k:` keys).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ApplyConflict", "Owner", "applied", "differing", "fields_of", "shown"]

Path = tuple[Any, ...]
Manifest = dict[str, Any]

# Lists whose items are merged, and by what: the path in the object, without items of lists.
IDENTITIES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("status", "conditions"): ("type",),
    ("metadata", "ownerReferences"): ("uid",),
    ("spec", "ports"): ("port", "protocol"),
}

# What says which object it is belongs to nobody.
IDENTITY_FIELDS = {
    ("apiVersion",),
    ("kind",),
    *(
        ("metadata", name)
        for name in (
            "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
            "managedFields", "generateName", "selfLink",
        )
    ),
}  # fmt: skip


class ApplyConflict(Exception):  # noqa: N818 - the API's word
    """Other managers own fields that would change."""

    def __init__(self, conflicts: dict[Path, str]) -> None:
        super().__init__(
            f"Apply failed with {len(conflicts)} conflict(s): "
            + ", ".join(f'conflict with "{who}": {dotted(path)}' for path, who in conflicts.items())
        )


@dataclass
class Owner:
    """What one manager wrote in one way."""

    manager: str
    operation: str
    subresource: str
    api_version: str
    time: str
    fields: set[Path] = field(default_factory=set)

    @property
    def name(self) -> tuple[str, str, str]:
        return self.manager, self.operation, self.subresource


@dataclass(frozen=True)
class Item:
    """An item of a list with identities, as part of a path."""

    identity: str


def dotted(path: Path) -> str:
    return "".join(f"[{part.identity}]" if isinstance(part, Item) else f".{part}" for part in path)


def plain(path: Path) -> tuple[str, ...]:
    return tuple(part for part in path if not isinstance(part, Item))


def identity(path: Path, entry: Any) -> Item | None:
    names = IDENTITIES.get(plain(path))
    if names is None or not isinstance(entry, dict):
        return None
    defaults = {"protocol": "TCP"}
    return Item(json.dumps({name: entry.get(name, defaults.get(name)) for name in names}))


def merges(path: Path, value: Any) -> bool:
    """Whether the list at `path` is merged by item."""
    return isinstance(value, list) and plain(path) in IDENTITIES


def fields_of(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Every field of an object, with its value."""
    if path in IDENTITY_FIELDS:
        return {}
    if isinstance(value, dict) and value:
        found: dict[Path, Any] = {}
        for key, inner in value.items():
            found |= fields_of(inner, (*path, key))
        return found
    if merges(path, value) and value:
        found = {}
        for entry in value:
            item = identity(path, entry)
            found |= fields_of(entry, (*path, item))
        return found
    if value is None or not path:
        return {}
    return {path: value}


def differing(before: Manifest, after: Manifest) -> set[Path]:
    """The fields that are not the same in both."""
    old, new = fields_of(before), fields_of(after)
    return {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}


def applied(
    live: Manifest, wanted: Manifest, owner: Owner, others: list[Owner], *, force: bool
) -> Manifest:
    """What `live` becomes when `owner` applies `wanted`; `owner` and `others` are updated.

    Raises:
        ApplyConflict: A field of another manager would change, and `force` is not set.
    """
    had, want = fields_of(live), fields_of(wanted)
    conflicts = {
        path: other.manager
        for other in others
        for path in want
        if path in other.fields and had.get(path) != want[path]
    }
    if conflicts and not force:
        raise ApplyConflict(conflicts)
    for other in others:
        other.fields -= conflicts.keys()
    merged: Manifest = merge(copy.deepcopy(live), wanted, ())
    kept: set[Path] = set().union(*(other.fields for other in others)) if others else set()
    for path in owner.fields - want.keys() - kept:
        remove(merged, path)
    owner.fields = set(want)
    return merged


def merge(into: Any, wanted: Any, path: Path) -> Any:
    if isinstance(into, dict) and isinstance(wanted, dict):
        for key, value in wanted.items():
            into[key] = merge(into.get(key), value, (*path, key))
        return into
    if merges(path, wanted) and isinstance(into, list):
        places = {identity(path, entry): index for index, entry in enumerate(into)}
        for entry in wanted:
            item = identity(path, entry)
            if item in places:
                into[places[item]] = merge(into[places[item]], entry, (*path, item))
            else:
                into.append(copy.deepcopy(entry))
        return into
    return copy.deepcopy(wanted)


def remove(value: Any, path: Path, done: Path = ()) -> None:
    """Take a field away, and what is empty then."""
    head, rest = path[0], path[1:]
    if isinstance(head, Item):
        if not isinstance(value, list):
            return
        for index, entry in enumerate(value):
            if identity(done, entry) == head:
                names = set(json.loads(head.identity))
                # What says which item it is goes with the item, once nothing else is in it.
                if rest[0] not in names:
                    remove(entry, rest, (*done, head))
                if not set(entry) - names:
                    del value[index]
                return
        return
    if not isinstance(value, dict) or head not in value:
        return
    if rest:
        remove(value[head], rest, (*done, head))
        if value[head] in ({}, []):
            del value[head]
    else:
        del value[head]


def shown(owners: list[Owner]) -> list[Manifest]:
    """`managedFields`."""
    return [
        {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": owner.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": tree(owner.fields),
            **({"subresource": owner.subresource} if owner.subresource else {}),
        }
        for owner in owners
        if owner.fields
    ]


def tree(paths: set[Path]) -> Manifest:
    made: Manifest = {}
    for path in sorted(paths, key=dotted):
        place = made
        for part in path:
            name = f"k:{part.identity}" if isinstance(part, Item) else f"f:{part}"
            place = place.setdefault(name, {})
    return made
