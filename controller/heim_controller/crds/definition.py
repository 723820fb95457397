"""A kind of ours as a CustomResourceDefinition: one version, status beside spec, no webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from heim_controller.crds.schema import LABEL, LABEL_CHARS, Schema, listing, section, text, words
from heim_controller.kube.resources import Resource

__all__ = ["ACCEPTED", "PROGRAMMED", "READY", "RESOLVED", "Column", "Kind"]

READY: Final = "Ready"
ACCEPTED: Final = "Accepted"
RESOLVED: Final = "ResolvedRefs"
PROGRAMMED: Final = "Programmed"

_MEANING: Final[Mapping[str, str]] = {
    READY: "the proxy serves what the cluster says",
    ACCEPTED: "the object is understood and allowed",
    RESOLVED: "everything that it points at was found",
    PROGRAMMED: "the proxy serves this generation of it",
}
_MAX_CONDITIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Column:
    """What `kubectl get` shows; those that are `wide` only with -o wide."""

    name: str
    path: str
    kind: Literal["string", "integer", "date"] = "string"
    wide: bool = False

    @classmethod
    def condition(cls, name: str) -> Column:
        """Whether a condition holds."""
        return cls(name, f'.status.conditions[?(@.type=="{name}")].status')

    @classmethod
    def reason(cls, name: str) -> Column:
        """Why a condition is as it is."""
        return cls("Reason", f'.status.conditions[?(@.type=="{name}")].reason', wide=True)

    @property
    def made(self) -> dict[str, Any]:
        """As the API has it."""
        made: dict[str, Any] = {"name": self.name, "type": self.kind, "jsonPath": self.path}
        return {**made, "priority": 1} if self.wide else made


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind.

    Attributes:
        resource: What it is called, and where it is served.
        short: What `kubectl get` takes too: `role` alone is another API's.
        means: One sentence for `kubectl explain`.
        spec: The schema of what people write.
        conditions: The conditions that its status has.
        columns: What `kubectl get` shows, before the age.
        named: Names must be DNS labels, because they are parts of names in the configuration.
        selectable: Fields that `kubectl get --field-selector` can ask for (Kubernetes 1.31).
        status: What its status has beside conditions.
    """

    resource: Resource
    short: str
    means: str
    spec: Schema
    conditions: tuple[str, ...]
    columns: tuple[Column, ...]
    named: bool = False
    selectable: tuple[str, ...] = ()
    status: Mapping[str, Schema] = field(default_factory=dict)

    @property
    def schema(self) -> Schema:
        """The structural schema of whole objects."""
        metadata: Schema = {"type": "object"}
        if self.named:
            name = {"type": "string", "maxLength": LABEL_CHARS, "pattern": LABEL}
            metadata["properties"] = {"name": name}
        status = section(
            "What became of it. Written by the controller.",
            {"conditions": _conditions(self.conditions), **self.status},
        )
        fields = {"metadata": metadata, "spec": self.spec, "status": status}
        return section(self.means, fields, required=("spec",))

    @property
    def definition(self) -> dict[str, Any]:
        """The object to apply; labels and annotations are whoever applies it."""
        resource = self.resource
        singular = resource.kind.lower()
        version = {
            "name": resource.version,
            "served": True,
            "storage": True,
            "subresources": {"status": {}},
            "additionalPrinterColumns": [
                *(column.made for column in self.columns),
                Column("Age", ".metadata.creationTimestamp", kind="date").made,
            ],
            "schema": {"openAPIV3Schema": self.schema},
        }
        if self.selectable:
            version["selectableFields"] = [{"jsonPath": path} for path in self.selectable]
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": str(resource)},
            "spec": {
                "group": resource.group,
                "scope": "Namespaced",
                "names": {
                    "kind": resource.kind,
                    "listKind": f"{resource.kind}List",
                    "plural": resource.plural,
                    "singular": singular,
                    "shortNames": [self.short],
                    "categories": ["heim"],
                },
                "versions": [version],
            },
        }


def _conditions(types: tuple[str, ...]) -> Schema:
    """metav1.Condition, with its own limits."""
    means = "; ".join(f"{name}: {_MEANING[name]}" for name in types)
    one = section(
        "One condition.",
        {
            "type": text("Which.", most=316, least=1, pattern="^[A-Za-z][A-Za-z0-9_.-]*$"),
            "status": words("Whether it holds.", "True", "False", "Unknown"),
            "observedGeneration": {
                "type": "integer",
                "description": "The generation of the object that this is about.",
                "format": "int64",
                "minimum": 0,
            },
            "lastTransitionTime": {
                **text("When the status changed last.", most=64),
                "format": "date-time",
            },
            "reason": text("One word on why.", most=1024, least=1,
                           pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
            "message": text("More for people.", most=32768),
        },
        required=("type", "status", "lastTransitionTime", "reason", "message"),
    )  # fmt: skip
    return listing(f"{means}.", one, most=_MAX_CONDITIONS, keys=("type",))
