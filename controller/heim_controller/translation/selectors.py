"""Label selectors of the Kubernetes API, on labels and on namespaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heim_controller.translation.objects import Key, Object, labels_of, listed, mapping, text

__all__ = ["Selector", "matches"]


def matches(selector: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Whether `labels` satisfy a LabelSelector; an empty one is satisfied by any.

    An operator that does not exist is never satisfied: selectors here give permissions.
    """
    for key, value in mapping(selector.get("matchLabels")).items():
        if labels.get(key) != value:
            return False
    return all(_satisfied(mapping(one), labels) for one in listed(selector.get("matchExpressions")))


def _satisfied(expression: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    key = text(expression.get("key"))
    values = listed(expression.get("values"))
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values if key in labels else False
        case "NotIn":  # codespell:ignore
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


class Selector:
    """A selector as our kinds write it: labels of the object, and of the namespace it is in.

    ``{namespaceSelector: {...}, matchLabels: {...}, matchExpressions: [...]}``. A namespace that is
    not known satisfies only a selector that asks nothing of namespaces.
    """

    __slots__ = ("_namespaces", "_on_namespace", "_on_object", "_remembered")

    def __init__(self, spec: Mapping[str, Any], namespaces: Mapping[Key, Object]) -> None:
        self._on_namespace = mapping(spec.get("namespaceSelector"))
        self._on_object = {
            key: spec[key] for key in ("matchLabels", "matchExpressions") if key in spec
        }
        self._namespaces = namespaces
        self._remembered: dict[str, bool] = {}

    def takes(self, namespace: str, found: Object) -> bool:
        """Whether it selects an object."""
        if not self.takes_namespace(namespace):
            return False
        return not self._on_object or matches(self._on_object, labels_of(found))

    def takes_namespace(self, namespace: str) -> bool:
        """Whether it selects objects of a namespace at all."""
        known = self._remembered.get(namespace)
        if known is None:
            known = self._remembered[namespace] = self._judge(namespace)
        return known

    def _judge(self, namespace: str) -> bool:
        if not self._on_namespace:
            return True
        found = self._namespaces.get(("", namespace))
        return found is not None and matches(self._on_namespace, labels_of(found))
