"""Copies of everything that a translation reads, and which of their changes matter."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from heim_controller.kube import resources
from heim_controller.kube.client import Client
from heim_controller.kube.informer import Change, Informer, Pace
from heim_controller.kube.resources import Key, Manifest, Resource, stripped
from heim_controller.options import Options
from heim_controller.translation.objects import Objects, Ref
from heim_controller.translation.reserved import API_SERVER

__all__ = ["Caches", "Inventory", "TouchedHook", "differs", "trimmed_secret"]

log = logging.getLogger(__name__)

TouchedHook: TypeAlias = Callable[[Ref, bool], None]
"""Called with an object that changed, and whether more than its status did."""

# Kinds by the field of `Objects` that holds them.
_READ: Final[Mapping[str, Resource]] = {
    "ingresses": resources.INGRESSES,
    "ingress_classes": resources.INGRESS_CLASSES,
    "services": resources.SERVICES,
    "endpoint_slices": resources.ENDPOINT_SLICES,
    "namespaces": resources.NAMESPACES,
    "proxies": resources.PROXIES,
    "backends": resources.BACKENDS,
    "roles": resources.ROLES,
    "role_bindings": resources.ROLE_BINDINGS,
    "agents": resources.AGENTS,
}
_BY_KIND: Final = {resource.kind: name for name, resource in _READ.items()}

# What a TLS Secret is made of. cert-manager keeps the type of one that was there before, so the
# type cannot be asked for; these three types can be left out, and are most of a cluster's bytes.
_TLS_KEYS: Final = ("tls.crt", "tls.key")
_NO_TLS: Final = (
    "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,"
    "type!=kubernetes.io/dockerconfigjson"
)

_DENIED: Final = (
    "the API server does not let the controller read Secrets there (403); see rbac.secrets of the "
    "chart"
)
_UNREAD: Final = (
    "the controller does not read Secrets of that namespace; see rbac.secrets of the chart"
)

_SERVICE_OF: Final = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Inventory:
    """All copies as they were at one moment; nothing in it changes any more.

    Attributes:
        objects: What is translated, without certificates.
        secrets: TLS Secrets that may be used, by their key.
        own: Secrets of the Proxy's namespace, our mirrors among them.
        excuses: Why Secrets of a namespace cannot be seen, by namespace, None where they can; ""
            for all others. Without an excuse a Secret that is not here does not exist.
    """

    objects: Objects
    secrets: Mapping[Key, Manifest]
    own: Mapping[Key, Manifest]
    excuses: Mapping[str, str | None] = field(default_factory=dict)


class Caches:
    """One informer for each kind; `run` them in the program's TaskGroup.

    Nothing may be concluded from them before `synced`: what is not there yet looks deleted.
    Secrets of other namespaces are the exception, because one missing permission must not stop the
    whole cluster: where the API server denies them, we go on without.

    Attributes:
        services: The Services that the last translation looked at; changes of others, and of their
            endpoints, matter to nobody. None until there was one.
    """

    def __init__(
        self,
        client: Client,
        options: Options,
        *,
        touched: TouchedHook,
        pace: Pace | None = None,
    ) -> None:
        """Prepare the informers; nothing is asked yet."""
        self._options = options
        self._touched = touched
        self.services: frozenset[Key] | None = None
        self._read = {
            name: Informer(client, resource, on_change=self._changed, pace=pace)
            for name, resource in _READ.items()
        }
        self._own = self._secrets(client, pace, namespace=options.namespace)
        self._others: dict[str, Informer] = {}
        if options.secrets == "cluster":
            fields = f"{_NO_TLS},metadata.namespace!={options.namespace}"
            self._others[""] = self._secrets(client, pace, fields=fields)
        elif options.secrets == "namespaces":
            for namespace in options.secrets_namespaces:
                if namespace != options.namespace:
                    self._others[namespace] = self._secrets(client, pace, namespace=namespace)

    def _secrets(self, client: Client, pace: Pace | None, **where: Any) -> Informer:
        where.setdefault("fields", _NO_TLS)
        return Informer(
            client,
            resources.SECRETS,
            on_change=self._secret_changed,
            keep=trimmed_secret,
            pace=pace,
            **where,
        )

    @property
    def informers(self) -> Iterator[tuple[str, Informer]]:
        """Every informer with what metrics call it."""
        for informer in self._read.values():
            yield informer.resource.plural, informer
        yield f"secrets/{self._options.namespace}", self._own
        for namespace, informer in self._others.items():
            yield f"secrets/{namespace or '*'}", informer

    @property
    def synced(self) -> bool:
        """Whether everything was complete once; never False again."""
        return not self.missing

    @property
    def missing(self) -> list[str]:
        """What was never complete, with the reason where there is one."""
        found = []
        for name, informer in self.informers:
            waived = informer.denied and informer in self._others.values()
            if not informer.synced and not waived:
                found.append(f"{name}: {informer.problem}" if informer.problem else name)
        return found

    @property
    def denied(self) -> frozenset[str]:
        """Namespaces whose Secrets the API server refuses to show; "" for all of them."""
        return frozenset(
            namespace
            for namespace, informer in self._others.items()
            if informer.denied and not informer.synced
        )

    async def wait_synced(self) -> None:
        """Wait until `synced`, for as long as it takes: there may be no API server yet."""
        for informer in (*self._read.values(), self._own):
            await informer.wait_synced()
        for informer in self._others.values():
            await informer.wait_settled()

    async def run(self) -> None:
        """Keep all copies up to date until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, informer in self.informers:
                group.create_task(informer.run(), name=f"controller.cache.{name}")

    def snapshot(self) -> Inventory:
        """All copies as they are now."""
        kinds: dict[str, Any] = {
            name: dict(informer.objects) for name, informer in self._read.items()
        }
        own = dict(self._own.objects)
        secrets = dict(own)
        for informer in self._others.values():
            secrets.update(informer.objects)
        return Inventory(Objects(**kinds), secrets, own, self._excuses())

    def _excuses(self) -> dict[str, str | None]:
        denied = self.denied
        excuses: dict[str, str | None] = {
            namespace: _DENIED if namespace in denied else None for namespace in self._others
        }
        if self._options.secrets != "cluster":
            excuses[""] = _UNREAD
        excuses[self._options.namespace] = None
        return excuses

    def find(self, ref: Ref) -> Manifest | None:
        """An object of a kind that is translated, as it is now."""
        name = _BY_KIND.get(ref.kind)
        return None if name is None else self._read[name].objects.get((ref.namespace, ref.name))

    def service(self, key: Key) -> Manifest | None:
        """A Service as it is now."""
        return self._read["services"].objects.get(key)

    @property
    def ingresses(self) -> Mapping[Key, Manifest]:
        """Every Ingress as it is now, of other classes too."""
        return self._read["ingresses"].objects

    def _changed(self, change: Change) -> None:
        kind = str(change.object.get("kind") or "")
        if not self._concerns(kind, change):
            return
        whole = change.before is None or change.type == "DELETED"
        self._touched(Ref(kind, *change.key), whole or differs(change.before, change.object))

    def _concerns(self, kind: str, change: Change) -> bool:
        """Whether anything that is served can depend on a Service or its endpoints."""
        if self.services is None:
            return True
        if change.key[0] == self._options.namespace or change.key == API_SERVER:
            # What they are on, nobody else's endpoints may be on.
            return True
        if kind == "Service":
            return change.key in self.services or change.key == self._options.publish_service
        if kind == "EndpointSlice":
            labels = change.object["metadata"].get("labels") or {}
            return (change.key[0], labels.get(_SERVICE_OF)) in self.services
        return True

    def _secret_changed(self, change: Change) -> None:
        # Most Secrets of a cluster have nothing to do with TLS.
        if change.object.get("data") or (change.before or {}).get("data"):
            self._touched(Ref("Secret", *change.key), True)


def differs(before: Manifest | None, after: Manifest) -> bool:
    """Whether more than the status of an object changed: what we write ourselves never counts."""
    if before is None:
        return True
    for key in before.keys() | after.keys():
        if key not in ("status", "metadata") and before.get(key) != after.get(key):
            return True
    old, new = before["metadata"], after["metadata"]
    return any(
        old.get(key) != new.get(key)
        for key in ("uid", "labels", "annotations", "generation", "creationTimestamp")
    )


def trimmed_secret(secret: Manifest) -> Manifest:
    """A Secret with nothing of its data but certificate and key; changed in place.

    What else there is in Secrets is none of our business, and much of a cluster's memory.
    """
    data = secret.get("data")
    kept = {key: data[key] for key in _TLS_KEYS if key in data} if isinstance(data, dict) else {}
    secret["data"] = kept
    secret.pop("stringData", None)
    annotations = secret["metadata"].get("annotations")
    if not kept and annotations:
        del secret["metadata"]["annotations"]
    return stripped(secret)
