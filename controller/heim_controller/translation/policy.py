"""What the Proxy object permits Ingresses and Backends; without a Proxy, as little as there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from heim_controller.translation.annotations import role_key
from heim_controller.translation.diagnostics import Findings, quoted
from heim_controller.translation.hosts import canonical_host, under_suffix
from heim_controller.translation.names import is_label
from heim_controller.translation.objects import (
    Key,
    Object,
    Objects,
    Ref,
    annotations_of,
    listed,
    mapping,
    text,
)
from heim_controller.translation.selectors import Selector
from heim_controller.translation.settings import GROUP, Settings

__all__ = ["HOST_SUFFIXES", "Policy"]

# On a Namespace, by whoever may edit Namespaces: the suffixes its hosts must have.
HOST_SUFFIXES: Final = f"{GROUP}/host-suffixes"

_EVERYTHING: Final[Mapping[str, Any]] = {}


class Policy:
    """The Proxy's settings for what it serves, understood.

    Anything that cannot be read permits nothing, and is said of the Proxy.
    """

    def __init__(self, objects: Objects, settings: Settings, findings: Findings) -> None:
        self.ref = Ref("Proxy", *settings.proxy)
        self.namespace = settings.proxy[0]
        self._findings = findings
        self._namespaces = objects.namespaces
        found = objects.proxies.get(settings.proxy)
        if found is None:
            findings.add(self.ref, "ProxyNotFound", f"there is no {self.ref}")
        spec = mapping(found.get("spec")) if found is not None else _EVERYTHING
        rules = mapping(spec.get("ingress"))
        self.domain = self._host(spec, "domain") or settings.domain.lower()
        own = settings.login_host.lower() or f"auth.{settings.domain.lower()}"
        # Both, should they differ: whoever had one of them could ask people for passwords.
        self.login_hosts = frozenset((own, self._host(spec, "loginHost") or own))
        self.catch_all = rules.get("allowCatchAll") is True
        self.strict = rules.get("hostOwnership") != "InterNamespaceAllowed"
        self.external_names = rules.get("externalName") == "Allowed"
        self.default_public = spec.get("defaultAuth") == "None"
        self.default_roles = self._keys(spec, "defaultRoles", self.namespace)
        self.certificates = self._keys(spec, "certificates", self.namespace)
        self.backends = Selector(mapping(spec.get("backendSelector")), self._namespaces)
        self.roles = Selector(mapping(spec.get("roleSelector")), self._namespaces)
        public = rules.get("allowPublic")
        self._public = (
            Selector({"namespaceSelector": public}, self._namespaces)
            if isinstance(public, Mapping)
            else None
        )
        self._suffixes = self._suffix_rules(rules.get("hostSuffixes"))
        self._allowed_suffixes: dict[str, tuple[tuple[str, ...] | None, tuple[str, ...] | None]]
        self._allowed_suffixes = {}

    def may_be_public(self, namespace: str) -> bool:
        """Whether objects of a namespace may do without a login."""
        return self._public is not None and self._public.takes_namespace(namespace)

    def may_use(self, namespace: str, host: str) -> bool:
        """Whether a namespace may use a host by its suffix, whoever has it."""
        allowed = self._allowed_suffixes.get(namespace)
        if allowed is None:
            allowed = self._suffixes_of(namespace)
            self._allowed_suffixes[namespace] = allowed
        return all(one is None or under_suffix(host, one) for one in allowed)

    def suffixes(self, namespace: str) -> str:
        """The suffixes that a namespace may use, for a message."""
        found = {one for some in self._suffixes_of(namespace) if some is not None for one in some}
        return ", ".join(sorted(found)) or "none"

    def _suffixes_of(self, namespace: str) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Those of the Proxy and those of the namespace itself; None where nothing is said."""
        own: tuple[str, ...] | None = None
        found: Object | None = self._namespaces.get(("", namespace))
        if found is not None and HOST_SUFFIXES in annotations_of(found):
            value = text(annotations_of(found)[HOST_SUFFIXES])
            own = tuple(_suffix(one) for one in value.split(",") if _suffix(one))
        if self._suffixes is None:
            return None, own
        theirs = [one for selector, some in self._suffixes
                  if selector.takes_namespace(namespace) for one in some]  # fmt: skip
        return tuple(theirs), own

    def _suffix_rules(self, value: object) -> list[tuple[Selector, tuple[str, ...]]] | None:
        if value is None:
            return None
        found: list[tuple[Selector, tuple[str, ...]]] = []
        for rule in listed(value):
            suffixes = tuple(_suffix(text(one)) for one in listed(mapping(rule).get("suffixes")))
            found.append((Selector(mapping(rule), self._namespaces), tuple(filter(None, suffixes))))
        return found

    def _host(self, spec: Mapping[str, Any], key: str) -> str | None:
        value = spec.get(key)
        if value is None:
            return None
        host = canonical_host(text(value))
        if host is None:
            self._findings.add(
                self.ref, "InvalidSpec", f"{quoted(value)} is not a host", field=f"spec.{key}"
            )
        return host

    def _keys(self, spec: Mapping[str, Any], key: str, namespace: str) -> tuple[Key, ...]:
        """References as ``name`` or ``namespace/name``; Secrets may have dots in their names."""
        found: list[Key] = []
        for position, value in enumerate(listed(spec.get(key))):
            one = role_key(text(value), namespace)
            first, slash, second = text(value).partition("/")
            if one is None and key == "certificates":
                one = (first, second) if slash else (namespace, first)
                one = one if is_label(one[0]) and canonical_host(one[1]) else None
            if one is None:
                field = f"spec.{key}[{position}]"
                message = f"{quoted(value)} is not NAME or NAMESPACE/NAME"
                self._findings.add(self.ref, "InvalidSpec", message, field=field)
            elif one not in found:
                found.append(one)
        return tuple(found)


def _suffix(value: str) -> str:
    """A suffix without what people write in front of it; empty when it is no host."""
    return canonical_host(value.strip().removeprefix("*").removeprefix(".")) or ""
