"""What every reader of objects needs: the objects, the permissions, where findings go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from heim_controller.translation.classes import Classes
from heim_controller.translation.diagnostics import Findings, quoted
from heim_controller.translation.hosts import CATCH_ALL, canonical_host
from heim_controller.translation.objects import Key, Object, Objects, Ref
from heim_controller.translation.policy import Policy
from heim_controller.translation.services import Services
from heim_controller.translation.settings import Settings

__all__ = ["Context"]

T = TypeVar("T")

# What reading an object can raise that is not of the shape its schema promises. Whatever it is, it
# must not keep the other objects from being served.
_UNREADABLE: Final = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(slots=True, eq=False)
class Context:
    """One translation at work."""

    objects: Objects
    settings: Settings
    findings: Findings
    policy: Policy
    services: Services
    # Those of our classes.
    ingresses: Mapping[Key, Object]

    @classmethod
    def of(cls, objects: Objects, settings: Settings) -> Context:
        """A fresh one, with nothing said yet."""
        findings = Findings()
        policy = Policy(objects, settings, findings)
        services = Services(objects, settings, external_names=policy.external_names)
        ingresses = Classes(objects, settings).select(objects.ingresses)
        return cls(objects, settings, findings, policy, services, ingresses)

    def guarded(self, ref: Ref, found: Object, read: Callable[[Key, Object], T | None]) -> T | None:
        """Read one object. What cannot be read at all is said, left out, and hurts nobody else."""
        try:
            return read((ref.namespace, ref.name), found)
        except _UNREADABLE as error:
            message = f"the object cannot be read ({type(error).__name__})"
            self.findings.add(ref, "InvalidObject", message)
            return None

    def canonical(self, written: object) -> str | None:
        """A host in canonical form; None when it is not one."""
        return canonical_host(written) if isinstance(written, str) else None

    def host(self, ref: Ref, written: object, field: str) -> str | None:
        """A rule's host in canonical form, `CATCH_ALL` for none; None if it is not to be had.

        What is wrong with it is said. Whose it is, is not asked here.
        """
        if written is None or written == "":
            return CATCH_ALL
        host = self.canonical(written)
        if host is None:
            self.findings.add(ref, "InvalidHost", f"{quoted(written)} is not a host", field=field)
        elif host in self.policy.login_hosts:
            self.findings.add(
                ref, "LoginHostClaimed", f"{host} is where people sign in", field=field
            )
        elif not self.policy.may_use(ref.namespace, host):
            message = (
                f"{host} ends in no suffix of namespace {ref.namespace}: "
                f"{self.policy.suffixes(ref.namespace)}"
            )
            self.findings.add(ref, "HostNotAllowed", message, field=field)
        else:
            return host
        return None
