"""What every reader of objects needs: the objects, the permissions, where findings go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from heim_controller.translation.classes import Classes
from heim_controller.translation.diagnostics import Findings, quoted
from heim_controller.translation.hosts import CATCH_ALL, canonical_host
from heim_controller.translation.memory import Memory, Reading
from heim_controller.translation.objects import Key, Object, Objects, Ref, mapping
from heim_controller.translation.policy import Policy
from heim_controller.translation.reserved import Reserved
from heim_controller.translation.services import Services
from heim_controller.translation.settings import Settings
from heim_controller.translation.sites import Site

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
    memory: Memory
    # Those of our classes.
    ingresses: Mapping[Key, Object]

    @classmethod
    def of(cls, objects: Objects, settings: Settings, memory: Memory | None = None) -> Context:
        """A fresh one, with nothing said yet; `memory` is what earlier translations left."""
        memory = memory or Memory()
        findings = Findings()
        policy = Policy(objects, settings, findings)
        reserved = Reserved(objects, settings.proxy[0])
        spec = mapping(objects.proxies.get(settings.proxy)).get("spec")
        memory.begin((settings, spec, objects.namespaces, objects.ingress_classes, reserved.facts))
        services = Services(
            objects,
            settings,
            external_names=policy.external_names,
            reserved=reserved,
            states=memory.services,
            slices=memory.slices,
        )
        ingresses = Classes(objects, settings).select(objects.ingresses, memory.ours)
        return cls(objects, settings, findings, policy, services, memory, ingresses)

    def read(
        self,
        ref: Ref,
        found: Object,
        read: Callable[[Key, Object], Site | None],
        *,
        beside: object = None,
    ) -> Site | None:
        """Read one object that asks for hosts, or remember what was read.

        Args:
            ref: Its name.
            found: The object.
            read: Reads it: a function of it, of what is the same for all objects of a translation,
                of Services, and of `beside`.
            beside: Compared by identity.
        """
        readings = self.memory.readings
        known = readings.before.get(ref)
        if (
            known is not None
            and known.found is found
            and known.beside is beside
            and self.services.unchanged(known.asked)
        ):
            self.findings.repeat(known.told)
        else:
            asked, told = self.services.watch(), self.findings.watch()
            site = self.guarded(ref, found, read)
            known = Reading(found, beside, tuple(asked.values()), site, tuple(told))
        readings.now[ref] = known
        return known.site

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
