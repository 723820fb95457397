"""The objects of the fake API server: one revision for all, a history to watch, and its rules."""

from __future__ import annotations

import asyncio
import copy
import json
import time
import uuid
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from heim_controller.kube import resources
from heim_controller.kube.resources import Key, Resource
from tests.fakes import kube_apply, kube_rules
from tests.fakes.kube_apply import Owner

__all__ = ["KINDS", "Denied", "Kind", "Record", "Store"]

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """How objects of one resource behave.

    Attributes:
        status: Whether status is written through /status only.
        generations: Whether metadata.generation counts changes of spec.
        unconditional: Whether a PUT without resourceVersion overwrites whatever is there.
        upserts: Whether a PUT of something that is not there creates it.
    """

    resource: Resource
    status: bool = False
    generations: bool = False
    unconditional: bool = True
    upserts: bool = False


def _ours(resource: Resource) -> Kind:
    return Kind(resource, status=True, generations=True, unconditional=False)


CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)

KINDS = (
    Kind(resources.INGRESSES, status=True, generations=True),
    Kind(resources.INGRESS_CLASSES, generations=True),
    Kind(resources.SERVICES, status=True),
    Kind(resources.ENDPOINT_SLICES, generations=True),
    Kind(resources.SECRETS),
    Kind(resources.CONFIG_MAPS),
    Kind(resources.NAMESPACES, status=True),
    Kind(resources.LEASES, unconditional=False, upserts=True),
    Kind(resources.EVENTS, upserts=True),
    *map(
        _ours,
        (
            resources.PROXIES, resources.BACKENDS, resources.ROLES, resources.ROLE_BINDINGS,
            resources.AGENTS, resources.CERTIFICATES,
        ),
    ),
    Kind(CRDS, status=True, generations=True),
)  # fmt: skip


class Denied(Exception):  # noqa: N818 - what it is
    """An answer that is no object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason

    def status(self) -> Manifest:
        return {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": str(self), "reason": self.reason, "code": self.code,
        }  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One change: the object after it (before it, when it was deleted), and before it."""

    revision: int
    type: str
    resource: Resource
    key: Key
    object: Manifest
    before: Manifest | None


class Store:
    """Everything the fake knows. Objects that are given out are never changed in place."""

    def __init__(self, kinds: Iterable[Kind] = KINDS) -> None:
        self.kinds = {kind.resource: kind for kind in kinds}
        # etcd starts at 1, and a real server writes a few hundred objects before we come.
        self.revision = 100
        self.compacted = 0
        self.objects: dict[Resource, dict[Key, Manifest]] = {
            resource: {} for resource in self.kinds
        }
        self.owners: dict[tuple[Resource, Key], list[Owner]] = {}
        self.history: list[Record] = []
        self.changed = asyncio.Event()
        for name in ("default", "kube-system"):
            self.put(resources.NAMESPACES, {"metadata": {"name": name}})

    # What tests do, as somebody else in the cluster.

    def put(self, resource: Resource, manifest: Manifest) -> Manifest:
        """Write an object past every rule, creating its namespace; returns it as stored."""
        manifest = copy.deepcopy(manifest)
        metadata = manifest.setdefault("metadata", {})
        if resource.namespaced:
            namespace = metadata.setdefault("namespace", "default")
            if ("", namespace) not in self.objects[resources.NAMESPACES]:
                self.put(resources.NAMESPACES, {"metadata": {"name": namespace}})
        key = resources.key_of(manifest)
        before = self.objects[resource].get(key)
        manifest |= {"apiVersion": resource.api_version, "kind": resource.kind}
        return self._save(self.kinds[resource], key, manifest, before, "somebody", "Update", "")

    def remove(self, resource: Resource, name: str, namespace: str = "default") -> None:
        """Delete an object past every rule."""
        self.delete(resource, (namespace if resource.namespaced else "", name), {})

    def compact(self) -> None:
        """Forget the history: watches from before, and pages of lists, are answered 410."""
        self.compacted = self.revision

    def get(self, resource: Resource, name: str, namespace: str = "default") -> Manifest | None:
        return self.objects[resource].get((namespace if resource.namespaced else "", name))

    def all(self, resource: Resource) -> list[Manifest]:
        return [manifest for _, manifest in sorted(self.objects[resource].items())]

    # What the API does.

    def read(self, resource: Resource, key: Key) -> Manifest:
        found = self.objects[resource].get(key)
        if found is None:
            raise self.missing(resource, key[1])
        return found

    def missing(self, resource: Resource, name: str) -> Denied:
        return Denied(404, "NotFound", f'{resource} "{name}" not found')

    def create(self, resource: Resource, namespace: str, manifest: Manifest, who: str) -> Manifest:
        manifest = self._received(resource, namespace, manifest)
        metadata = manifest["metadata"]
        if metadata.get("resourceVersion"):
            raise Denied(
                400, "BadRequest", "resourceVersion should not be set on objects to be created"
            )
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        if not metadata.get("name"):
            raise Denied(422, "Invalid", f"{resource.kind}: metadata.name: Required value")
        key = (namespace, metadata["name"])
        if key in self.objects[resource]:
            raise Denied(409, "AlreadyExists", f'{resource} "{key[1]}" already exists')
        if self.kinds[resource].status:
            manifest.pop("status", None)
        self._check(manifest, None)
        return self._save(self.kinds[resource], key, manifest, None, who, "Update", "")

    def replace(
        self, resource: Resource, key: Key, manifest: Manifest, who: str, subresource: str
    ) -> Manifest:
        kind = self.kinds[resource]
        manifest = self._received(resource, key[0], manifest)
        if manifest["metadata"].get("name") != key[1]:
            raise Denied(
                400, "BadRequest", "the name of the object does not match the name on the URL"
            )
        before = self.objects[resource].get(key)
        if before is None:
            if kind.upserts and not subresource:
                manifest["metadata"].pop("resourceVersion", None)
                return self.create(resource, key[0], manifest, who)
            raise self.missing(resource, key[1])
        asked = manifest["metadata"].get("resourceVersion", "")
        if not asked and not kind.unconditional:
            raise Denied(
                422, "Invalid", "metadata.resourceVersion: must be specified for an update"
            )
        self._unchanged(resource, key, before, manifest)
        after = self._part(kind, before, manifest, subresource)
        self._check(after, before)
        return self._save(kind, key, after, before, who, "Update", subresource)

    def patch(
        self, resource: Resource, key: Key, body: Manifest, who: str, subresource: str
    ) -> Manifest:
        kind = self.kinds[resource]
        before = self.read(resource, key)
        after = merged(copy.deepcopy(before), body)
        self._unchanged(resource, key, before, body)
        after = self._part(kind, before, after, subresource)
        self._check(after, before)
        return self._save(kind, key, after, before, who, "Update", subresource)

    def apply(
        self, resource: Resource, key: Key, body: Manifest, who: str, *, force: bool, sub: str
    ) -> Manifest:
        kind = self.kinds[resource]
        if body.get("metadata", {}).get("managedFields"):
            raise Denied(400, "BadRequest", "metadata.managedFields must be nil")
        before = self.objects[resource].get(key)
        if before is None and sub:
            raise self.missing(resource, key[1])
        body = self._received(resource, key[0], body)
        if kind.status:
            body = {name: value for name, value in body.items() if (name == "status") == bool(sub)
                    or name in ("metadata", "apiVersion", "kind")}  # fmt: skip
        if before is not None:
            self._unchanged(resource, key, before, body)
        live = before or {name: body[name] for name in ("apiVersion", "kind")} | {
            "metadata": {"name": key[1], **({"namespace": key[0]} if key[0] else {})}
        }
        owners = copy.deepcopy(self.owners.get((resource, key), []))
        mine = next((owner for owner in owners if owner.name == (who, "Apply", sub)), None)
        if mine is None:
            mine = Owner(who, "Apply", sub, resource.api_version, stamp())
            owners.append(mine)
        others = [owner for owner in owners if owner is not mine]
        try:
            after = kube_apply.applied(live, body, mine, others, force=force)
        except kube_apply.ApplyConflict as e:
            raise Denied(409, "Conflict", str(e)) from e
        self._check(after, before)
        return self._save(kind, key, after, before, who, "Apply", sub, owners)

    def delete(self, resource: Resource, key: Key, options: Manifest) -> None:
        before = self.read(resource, key)
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != before["metadata"]["uid"]:
            raise Denied(409, "Conflict", f"Precondition failed: UID in precondition: {wanted}")
        del self.objects[resource][key]
        self.owners.pop((resource, key), None)
        self.revision += 1
        last = copy.deepcopy(before)
        last["metadata"]["resourceVersion"] = str(self.revision)
        self._note(Record(self.revision, "DELETED", resource, key, last, before))

    def since(self, revision: int) -> Iterator[Record]:
        start = bisect_right(self.history, revision, key=lambda record: record.revision)
        return iter(self.history[start:])

    # Inside.

    def _received(self, resource: Resource, namespace: str, manifest: Manifest) -> Manifest:
        manifest = copy.deepcopy(manifest)
        for name, right in (("apiVersion", resource.api_version), ("kind", resource.kind)):
            if manifest.setdefault(name, right) != right:
                raise Denied(400, "BadRequest", f"{name} {manifest[name]} does not match {right}")
        metadata = manifest.setdefault("metadata", {})
        metadata.pop("managedFields", None)
        if resource.namespaced:
            if metadata.setdefault("namespace", namespace) != namespace:
                raise Denied(
                    400, "BadRequest", "the namespace of the object does not match the URL"
                )
            if ("", namespace) not in self.objects[resources.NAMESPACES]:
                raise Denied(404, "NotFound", f'namespaces "{namespace}" not found')
        return manifest

    def _unchanged(self, resource: Resource, key: Key, before: Manifest, body: Manifest) -> None:
        """Refuse to write over a version, or an object, that the writer did not see."""
        metadata = body.get("metadata") or {}
        for name in ("resourceVersion", "uid"):
            asked = metadata.get(name)
            if asked and asked != before["metadata"][name]:
                raise Denied(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource} "{key[1]}": the object has been '
                    "modified; please apply your changes to the latest version and try again",
                )

    def _part(self, kind: Kind, before: Manifest, after: Manifest, sub: str) -> Manifest:
        """Only status through /status, only the rest elsewhere."""
        if sub:
            after = {**before, "status": after.get("status", {})}
        elif kind.status:
            after = {key: value for key, value in after.items() if key != "status"}
            if "status" in before:
                after["status"] = before["status"]
        return copy.deepcopy(after)

    def _check(self, manifest: Manifest, before: Manifest | None) -> None:
        found = kube_rules.mistakes(manifest, before)
        if found:
            name = manifest["metadata"].get("name")
            raise Denied(
                422, "Invalid", f'{manifest["kind"]} "{name}" is invalid: {"; ".join(found)}'
            )
        # What etcd takes; the API server itself reads 3 MiB.
        if len(json.dumps(manifest)) > 3 * 2**19:
            raise Denied(500, "InternalError", "etcdserver: request is too large")

    def _save(
        self, kind: Kind, key: Key, after: Manifest, before: Manifest | None, who: str,
        operation: str, sub: str, owners: list[Owner] | None = None,
    ) -> Manifest:  # fmt: skip
        metadata = after["metadata"]
        metadata.pop("managedFields", None)
        if before is None:
            metadata |= {
                "uid": str(uuid.uuid4()),
                "creationTimestamp": metadata.get("creationTimestamp") or stamp(),
            }
            if kind.generations:
                metadata["generation"] = 1
        else:
            for name in ("uid", "creationTimestamp", "generation"):
                if name in before["metadata"]:
                    metadata[name] = before["metadata"][name]
            if kind.generations and after.get("spec") != before.get("spec"):
                metadata["generation"] += 1
        place = (kind.resource, key)
        if owners is None:
            owners = copy.deepcopy(self.owners.get(place, []))
            self._own(owners, before or {}, after, (who, operation, sub), kind.resource)
        owners = [owner for owner in owners if owner.fields]
        if before is not None and not kube_apply.differing(before, after) and (
            {owner.name: owner.fields for owner in owners}
            == {owner.name: owner.fields for owner in self.owners.get(place, [])}
        ):  # fmt: skip
            return before
        self.owners[place] = owners
        self.revision += 1
        metadata["resourceVersion"] = str(self.revision)
        metadata["managedFields"] = kube_apply.shown(owners)
        self.objects[kind.resource][key] = after
        verb = "ADDED" if before is None else "MODIFIED"
        self._note(Record(self.revision, verb, kind.resource, key, after, before))
        return after

    def _own(
        self, owners: list[Owner], before: Manifest, after: Manifest,
        name: tuple[str, str, str], resource: Resource,
    ) -> None:  # fmt: skip
        """Who changes a field by an ordinary write owns it from then on."""
        changed = kube_apply.differing(before, after)
        there = kube_apply.fields_of(after).keys()
        for owner in owners:
            owner.fields = (owner.fields & there) - (changed if owner.name != name else set())
        mine = next((owner for owner in owners if owner.name == name), None)
        if mine is None:
            mine = Owner(*name, resource.api_version, stamp())
            owners.append(mine)
        mine.fields |= changed & there

    def _note(self, record: Record) -> None:
        self.history.append(record)
        self.changed.set()
        self.changed = asyncio.Event()


def merged(value: Any, patch: Any) -> Any:
    """A merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = value if isinstance(value, dict) else {}
    for name, inner in patch.items():
        if inner is None:
            made.pop(name, None)
        else:
            made[name] = merged(made.get(name), inner)
    return made


def stamp() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
