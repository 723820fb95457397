"""The kinds of objects that the controller reads and writes, and where the API serves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

__all__ = [
    "AGENTS",
    "BACKENDS",
    "CERTIFICATES",
    "CONFIG_MAPS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "INGRESSES",
    "INGRESS_CLASSES",
    "LEASES",
    "NAMESPACES",
    "PROXIES",
    "ROLES",
    "ROLE_BINDINGS",
    "SECRETS",
    "SERVICES",
    "Key",
    "Manifest",
    "Resource",
    "key_of",
    "stripped",
    "version_of",
]

# An object exactly as the API server speaks of it. Plain dicts: models cost 6 times the time to
# parse (measured), and drop fields that are newer than they are.
Manifest: TypeAlias = dict[str, Any]

# (namespace, name); the namespace is "" for objects of the cluster.
Key: TypeAlias = tuple[str, str]

_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of object.

    Attributes:
        group: API group, "" for the core one.
        version: Version of the group.
        plural: The word in URLs.
        kind: The word in objects.
        namespaced: False for objects of the cluster.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What `apiVersion` says in objects of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of one object, or of all in a namespace, or of all.

        Raises:
            ValueError: A name or namespace that would lead elsewhere ("", "a/b", "..").
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace is not None:
            if not self.namespaced:
                raise ValueError(f"{self.plural} are objects of the cluster, not of {namespace!r}")
            parts += ["namespaces", _segment(namespace)]
        parts.append(self.plural)
        if name is not None:
            if self.namespaced and namespace is None:
                raise ValueError(f"{self.kind} {name!r} needs a namespace")
            parts.append(_segment(name))
        return "/".join(parts)

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _segment(word: str) -> str:
    # The names of objects that users write end up here: nothing in them may act as path or query.
    if not word or word in (".", "..") or not word.isascii() or set(word) & set("/%?#\\ \r\n\t"):
        raise ValueError(f"{word!r} is not the name of a Kubernetes object")
    return word


INGRESSES: Final = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
INGRESS_CLASSES: Final = Resource(
    "networking.k8s.io", "v1", "ingressclasses", "IngressClass", namespaced=False
)
SERVICES: Final = Resource("", "v1", "services", "Service")
ENDPOINT_SLICES: Final = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS: Final = Resource("", "v1", "configmaps", "ConfigMap")
NAMESPACES: Final = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")
CERTIFICATES: Final = Resource("cert-manager.io", "v1", "certificates", "Certificate")

PROXIES: Final = Resource("heim.dev", "v1alpha1", "proxies", "Proxy")
BACKENDS: Final = Resource("heim.dev", "v1alpha1", "backends", "Backend")
ROLES: Final = Resource("heim.dev", "v1alpha1", "roles", "Role")
ROLE_BINDINGS: Final = Resource("heim.dev", "v1alpha1", "rolebindings", "RoleBinding")
AGENTS: Final = Resource("heim.dev", "v1alpha1", "agents", "Agent")


def key_of(manifest: Mapping[str, Any]) -> Key:
    """The namespace and name of an object.

    Raises:
        ValueError: It has no metadata with a name: not an object.
    """
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
        raise ValueError("an object without metadata.name")
    return str(metadata.get("namespace") or ""), name


def version_of(manifest: Mapping[str, Any]) -> str:
    """The resource version of an object or a list, "" when it has none; opaque."""
    metadata = manifest.get("metadata")
    return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""


def stripped(manifest: Manifest) -> Manifest:
    """The object without what nobody reads and what makes half of its size; changed in place.

    `managedFields` and kubectl's copy of what was last applied: the second may hold a Secret that
    the object does not show.
    """
    metadata = manifest.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict) and _LAST_APPLIED in annotations:
            del annotations[_LAST_APPLIED]
    return manifest
