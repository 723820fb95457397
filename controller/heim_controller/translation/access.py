"""Roles, RoleBindings and the roles that Ingresses name, to roles of the configuration.

A Role gives access to Backends of its own namespace, and to the Ingresses that name it: the owner
of what is reached always agrees, by having the Role beside it or by naming it. Roles of the Proxy's
namespace speak for the installation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from heim_config.hosts import parse_email
from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import quoted
from heim_controller.translation.hosts import canonical_host
from heim_controller.translation.names import is_label, own_name
from heim_controller.translation.objects import Key, Object, Ref, listed, mapping, text
from heim_controller.translation.sites import ALL, Site

__all__ = ["Openable", "read_roles"]

_FORMS: Final = ("user", "group", "domain", "serviceAccount")
_MAX_TEXT_CHARS: Final = 1024


@dataclass(frozen=True, slots=True)
class Openable:
    """A backend of the document that roles can give access to: its permissions, and its tcp."""

    permissions: frozenset[str]
    tcp: bool


def read_roles(
    context: Context, sites: Iterable[Site], openable: Mapping[str, Openable]
) -> list[dict[str, Any]]:
    """The roles of a document, by name: those that give something.

    Args:
        context: The translation's.
        sites: Ingresses, with the Roles they name.
        openable: The backends of the document that are not public, by name.
    """
    reader = _Roles(context, openable)
    for key, found in sorted(context.objects.roles.items(), key=itemgetter(0)):
        if context.policy.roles.takes(key[0], found):
            context.guarded(Ref("Role", *key), found, reader.role)
    for site in sites:
        reader.ingress(site)
    for key, found in sorted(context.objects.role_bindings.items(), key=itemgetter(0)):
        if context.policy.roles.takes_namespace(key[0]):
            context.guarded(Ref("RoleBinding", *key), found, reader.binding)
    return reader.finish()


class _Roles:
    def __init__(self, context: Context, openable: Mapping[str, Openable]) -> None:
        self._context = context
        self._say = context.findings.add
        self._openable = openable
        self._flags: dict[Key, dict[str, bool]] = {}
        self._bindings: dict[Key, set[tuple[str, str]]] = {}
        self._members: dict[Key, dict[tuple[tuple[str, str], ...], None]] = {}

    def role(self, key: Key, found: Object) -> None:
        """A Role: its flags, and what it gives on Backends."""
        ref = Ref("Role", *key)
        if not is_label(key[0]) or not is_label(key[1]):
            self._say(ref, "InvalidObject", "names hold lower-case letters, digits and hyphens")
            return
        spec = mapping(found.get("spec"))
        flags = {
            name: True
            for field, name in (("breakGlass", "break_glass"), ("approveAgents", "approve_agents"))
            if spec.get(field) is True
        }
        central = key[0] == self._context.policy.namespace
        if flags and not central:
            self._say(ref, "PrivilegeNotAllowed", f"{', '.join(flags)}: only in the Proxy's")
            flags = {}
        self._flags[key] = flags
        self._bindings[key] = set()
        self._members[key] = {}
        for position, one in enumerate(listed(spec.get("permissions"))):
            self._permission(ref, key, mapping(one), f"spec.permissions[{position}]")

    def _permission(self, ref: Ref, key: Key, one: Mapping[str, Any], field: str) -> None:
        written = text(one.get("backend"))
        namespace, slash, name = written.partition("/")
        if not slash:
            namespace, name = key[0], written
        if namespace != key[0] and key[0] != self._context.policy.namespace:
            self._say(ref, "CrossNamespaceReference", f"backend {quoted(written)}", field=field)
            return
        backend = own_name(namespace, name)
        known = self._openable.get(backend) if is_label(namespace) and is_label(name) else None
        if known is None:
            message = f"there is no Backend {namespace}/{name} that people sign in to"
            self._say(ref, "BackendNotFound", message, field=field)
            return
        permission = one.get("permission")
        if (not known.tcp) if permission is None else (permission not in known.permissions):
            what = "tcp" if permission is None else f"permission {quoted(permission)}"
            offer = ", ".join(sorted(known.permissions)) or "none"
            message = f"Backend {namespace}/{name} has no {what}; its permissions are {offer}"
            self._say(ref, "PermissionNotFound", message, field=field)
            return
        self._bindings[key].add((backend, text(permission)))

    def ingress(self, site: Site) -> None:
        """The Roles that an Ingress names, or the Proxy's default ones."""
        known = self._openable.get(site.name)
        default = site.options.roles is None
        for key in site.roles:
            bindings = self._bindings.get(key)
            if bindings is None:
                ref = self._context.policy.ref if default else site.ref
                field = "spec.defaultRoles" if default else "metadata.annotations[heim.dev/roles]"
                self._say(ref, "RoleNotFound", f"there is no Role {key[0]}/{key[1]}", field=field)
            elif known is not None:
                if known.permissions:
                    bindings.add((site.name, ALL))
                if known.tcp:
                    bindings.add((site.name, ""))

    def binding(self, key: Key, found: Object) -> None:
        """A RoleBinding: who is in a Role of the same namespace."""
        ref = Ref("RoleBinding", *key)
        spec = mapping(found.get("spec"))
        role = spec.get("roleRef")
        name = text(role.get("name") if isinstance(role, Mapping) else role)
        members = self._members.get((key[0], name))
        if members is None and (key[0], name) in self._context.objects.roles:
            # Another Proxy's, or a Role whose own trouble is said of itself.
            return
        if members is None:
            message = f"there is no Role {quoted(f'{key[0]}/{name}')}"
            self._say(ref, "RoleNotFound", message, field="spec.roleRef")
            return
        for position, subject in enumerate(listed(spec.get("subjects"))):
            field = f"spec.subjects[{position}]"
            try:
                members[self._member(mapping(subject))] = None
            except ValueError as error:
                message = str((getattr(error, "context", None) or {}).get("message", error))
                self._say(ref, "InvalidSubject", message, field=field)

    def _member(self, subject: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """A subject as the configuration has it; ValueError when it could be nobody."""
        given = [form for form in _FORMS if subject.get(form) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(_FORMS)}")
        form, value = given[0], text(subject[given[0]])
        settings = self._context.settings
        match form:
            case "user":
                user = parse_email(value)
                domains = list(settings.providers.values())
                domain = user.rpartition("@")[2]
                if domains and all(domains) and not any(domain in some for some in domains):
                    raise ValueError(f"no provider is authoritative for {domain}")
                return (("user", user),)
            case "domain":
                host = canonical_host(value)
                if host is None or host.startswith("*"):
                    raise ValueError(f"{quoted(value)} is not a domain")
                return (("domain", host),)
            case "serviceAccount":
                if value not in settings.service_accounts:
                    raise ValueError(f"there is no service account {quoted(value)}")
                return (("service_account", value),)
            case _:
                return self._group(value, subject.get("provider"))

    def _group(self, group: str, provider: object) -> tuple[tuple[str, str], ...]:
        known = self._context.settings.providers
        if not group or group != group.strip() or not group.isprintable():
            raise ValueError(f"{quoted(group)} is not a group")
        if len(group) > _MAX_TEXT_CHARS:
            raise ValueError(f"a group has at most {_MAX_TEXT_CHARS} characters")
        if provider is None:
            if len(known) > 1:
                raise ValueError(f"needs a provider: {', '.join(sorted(known))}")
            return (("group", group),)
        if provider not in known:
            raise ValueError(f"there is no provider {quoted(provider)}")
        return ("group", group), ("provider", text(provider))

    def finish(self) -> list[dict[str, Any]]:
        """The roles that give something, by name."""
        roles: list[dict[str, Any]] = []
        for key in sorted(self._bindings):
            bindings, flags = self._bindings[key], self._flags[key]
            if not bindings and not flags:
                continue
            role: dict[str, Any] = {"name": own_name(*key), **flags}
            role["members"] = [dict(member) for member in sorted(self._members[key])]
            role["bindings"] = [
                {"backend": backend, "permission": permission}
                if permission
                else {"backend": backend}
                for backend, permission in sorted(bindings)
            ]
            roles.append(role)
        return roles
