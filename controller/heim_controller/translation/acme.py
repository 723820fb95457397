"""Which requests of a certificate authority are let through without a login, and nothing wider.

A challenge is an exact token path whose backend is a Service that cert-manager labelled as solver,
on the solver's port; the Ingress itself, which anybody may label, decides nothing. Whoever answers
a challenge gets a certificate for the host, so the solver must be in the namespace that the host
belongs to, or in the Proxy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from heim_controller.translation.context import Context
from heim_controller.translation.hosts import Owners
from heim_controller.translation.objects import mapping, text
from heim_controller.translation.paths import acme_token
from heim_controller.translation.services import Resolved, Services
from heim_controller.translation.sites import Challenge, Site

__all__ = ["Answer", "answer", "challenges"]

# cert-manager wrote ImplementationSpecific before it wrote Exact; it means the same here.
_EXACT: Final = ("Exact", "ImplementationSpecific")
# A solver is one pod.
_MOST: Final = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """A token, and who answers for it: nobody as long as the solver is not ready."""

    token: str
    upstreams: Sequence[str]


def answer(services: Services, namespace: str, path: Mapping[str, Any]) -> Answer | None:
    """The challenge that a path of an Ingress is; None when it is an ordinary path."""
    token = acme_token(text(path.get("path")))
    backend = mapping(path.get("backend"))
    if token is None or path.get("pathType") not in _EXACT:
        return None
    if not services.is_solver(namespace, backend):
        return None
    found = services.resolve(namespace, backend)
    if not isinstance(found, Resolved):
        return Answer(token, ())
    return Answer(token, found.target("http", by_name=False).upstreams[:_MOST])


def challenges(
    sites: Iterable[Site], owners: Owners, context: Context
) -> list[tuple[str, dict[str, Any]]]:
    """The challenges that may be answered, by host and token.

    Each is the namespace of its solver, and what the configuration has. `sites` come in order of
    seniority.
    """
    found: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {}
    # Of hosts that nobody named, the first solver's namespace; the others wait.
    unnamed: dict[str, str] = {}
    for site in sites:
        for one in site.challenges:
            if not _may_answer(site, one, owners, context, unnamed):
                message = f"{one.host} does not belong to namespace {site.namespace}"
                context.findings.add(site.ref, "ACMEHostNotOwned", message, field=one.field)
                continue
            made = {"host": one.host, "token": one.token, "upstreams": one.upstreams}
            found.setdefault((one.host, one.token), (site.namespace, made))
    return [found[key] for key in sorted(found)]


def _may_answer(
    site: Site, one: Challenge, owners: Owners, context: Context, unnamed: dict[str, str]
) -> bool:
    policy = context.policy
    if one.host.startswith("*"):
        return False
    if site.namespace == policy.namespace:
        return True
    if one.host in policy.login_hosts or not policy.may_use(site.namespace, one.host):
        return False
    owner = owners.owner(one.host)
    if owner is None:
        owner = unnamed.setdefault(one.host, site.namespace)
    return owner == site.namespace
