"""Which Ingresses are ours: by class, by the old annotation, or by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from heim_controller.translation.objects import (
    Key,
    Object,
    Objects,
    annotations_of,
    mapping,
)
from heim_controller.translation.settings import CONTROLLER, GROUP, Settings
from heim_runtime.kept import Kept

__all__ = ["Classes"]

_DEFAULT: Final = "ingressclass.kubernetes.io/is-default-class"
# Deprecated, but cert-manager's solvers and old manifests still carry it.
_ANNOTATION: Final = "kubernetes.io/ingress.class"


class Classes:
    """The IngressClasses of this proxy.

    A class is ours when its controller is, and its parameters, if it has any, name our Proxy.
    """

    def __init__(self, objects: Objects, settings: Settings) -> None:
        self.names = frozenset(
            name
            for (_, name), found in objects.ingress_classes.items()
            if _is_ours(mapping(found.get("spec")), settings.proxy)
        )
        defaults = [
            name
            for (_, name), found in objects.ingress_classes.items()
            if name in self.names and annotations_of(found).get(_DEFAULT) == "true"
        ]
        # With two of them nobody could say why an Ingress is served.
        self._adopts = settings.without_class and len(defaults) == 1

    def ours(self, ingress: Object) -> bool:
        """Whether an Ingress is for us."""
        name = mapping(ingress.get("spec")).get("ingressClassName")
        if name is None:
            name = annotations_of(ingress).get(_ANNOTATION)
        if name is None:
            return self._adopts
        return isinstance(name, str) and name in self.names

    def select(
        self, ingresses: Mapping[Key, Object], known: Kept[Key, tuple[Object, bool]]
    ) -> dict[Key, Object]:
        """Those that are for us; `known` is what was said before, of the same classes."""
        found: dict[Key, Object] = {}
        before, now = known.before, known.now
        for key, ingress in ingresses.items():
            said = before.get(key)
            if said is None or said[0] is not ingress:
                said = (ingress, self.ours(ingress))
            now[key] = said
            if said[1]:
                found[key] = ingress
        return found


def _is_ours(spec: Mapping[str, Any], proxy: Key) -> bool:
    if spec.get("controller") != CONTROLLER:
        return False
    parameters = spec.get("parameters")
    if not isinstance(parameters, Mapping):
        return parameters is None
    return (
        parameters.get("apiGroup") == GROUP
        and parameters.get("kind") == "Proxy"
        and parameters.get("scope") == "Namespace"
        and (parameters.get("namespace"), parameters.get("name")) == proxy
    )
