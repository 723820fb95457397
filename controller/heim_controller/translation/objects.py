"""What is translated: the objects of the cluster as plain dicts, by kind, namespace and name.

Objects are dicts as the API server sends them, already without what nobody reads (managed fields).
Nothing in this package changes one. TLS Secrets never come here: somebody else opens them, checks
certificate and key, and hands over `CertificateFacts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

__all__ = [
    "CertificateFacts",
    "Key",
    "Object",
    "Objects",
    "Ref",
    "annotations_of",
    "generation",
    "labels_of",
    "listed",
    "mapping",
    "metadata",
    "seniority",
    "text",
]

Object = Mapping[str, Any]
# Namespace and name; the namespace of cluster-wide kinds is "".
Key = tuple[str, str]

_NOTHING: Final[Mapping[str, Any]] = {}
# Younger than everything: an object without creation time is not from an API server.
_NEVER: Final = "9999"


class Ref(NamedTuple):
    """One object: its kind as in its manifest, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What is known of a TLS Secret without its key.

    `names` are the DNS names of the leaf as the certificate has them, empty when nothing usable was
    ever seen. `problem` says in words what is wrong with the Secret as it is now; with `names` it
    means that the last good pair is still served. `not_before` and `not_after` are seconds since
    the epoch.
    """

    names: tuple[str, ...] = ()
    not_before: float | None = None
    not_after: float | None = None
    problem: str | None = None
    must_staple: bool = False


@dataclass(frozen=True, slots=True)
class Objects:
    """Everything that a translation reads, by kind. The mappings are not copied: pass snapshots.

    `certificates` are the Secrets whose facts are known, by the Secret's key: a Secret that is not
    in there does not exist. Namespaces and IngressClasses have "" as namespace.
    """

    ingresses: Mapping[Key, Object] = field(default_factory=dict)
    ingress_classes: Mapping[Key, Object] = field(default_factory=dict)
    services: Mapping[Key, Object] = field(default_factory=dict)
    endpoint_slices: Mapping[Key, Object] = field(default_factory=dict)
    namespaces: Mapping[Key, Object] = field(default_factory=dict)
    certificates: Mapping[Key, CertificateFacts] = field(default_factory=dict)
    proxies: Mapping[Key, Object] = field(default_factory=dict)
    backends: Mapping[Key, Object] = field(default_factory=dict)
    roles: Mapping[Key, Object] = field(default_factory=dict)
    role_bindings: Mapping[Key, Object] = field(default_factory=dict)
    agents: Mapping[Key, Object] = field(default_factory=dict)


def metadata(found: Object) -> Mapping[str, Any]:
    """The metadata of an object; empty when it has none."""
    return mapping(found.get("metadata"))


def annotations_of(found: Object) -> Mapping[str, Any]:
    """The annotations of an object."""
    return mapping(metadata(found).get("annotations"))


def labels_of(found: Object) -> Mapping[str, Any]:
    """The labels of an object."""
    return mapping(metadata(found).get("labels"))


def seniority(found: Object, key: Key, kind: str) -> tuple[str, str, str]:
    """What objects are sorted by where the older one wins: age, then ``namespace/name``, kind.

    RFC 3339 times in UTC, which is what API servers write, sort as text.
    """
    return text(metadata(found).get("creationTimestamp")) or _NEVER, f"{key[0]}/{key[1]}", kind


def generation(found: Object) -> int:
    """The `metadata.generation` of an object; 0 when it has none."""
    value = metadata(found).get("generation")
    return value if isinstance(value, int) else 0


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is a mapping, else an empty one."""
    # Nearly always a dict; asking the abstract class first costs ten times as much.
    if type(value) is dict or isinstance(value, Mapping):
        return value
    return _NOTHING


def listed(value: object) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if type(value) is list else []


def text(value: object) -> str:
    """`value` if it is text, else an empty one."""
    return value if isinstance(value, str) else ""
