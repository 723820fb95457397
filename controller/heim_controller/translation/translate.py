"""Objects of the cluster to the configuration document of one proxy, and what to say about them.

The result depends on the arguments alone: not on the order of objects, nor on a clock. A broken
object costs its own routes and nobody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from heim_controller.translation.access import Openable, read_roles
from heim_controller.translation.acme import challenges
from heim_controller.translation.agents import read_agents
from heim_controller.translation.backends import BackendReader
from heim_controller.translation.certificates import choose
from heim_controller.translation.context import Context
from heim_controller.translation.diagnostics import Diagnostic
from heim_controller.translation.document import remembered
from heim_controller.translation.ingresses import IngressReader
from heim_controller.translation.memory import Memory
from heim_controller.translation.merging import Merged, merge
from heim_controller.translation.objects import Key, Object, Objects, Ref, generation
from heim_controller.translation.reasons import REASONS, Severity
from heim_controller.translation.settings import Settings
from heim_controller.translation.sites import Site
from heim_runtime.collector import paused

__all__ = ["Served", "Translation", "translate"]


class Served(NamedTuple):
    """What became of one object of ours: an Ingress of our class, or one of our own kinds.

    `hosts` are those it answers on, sorted; some of them with 503 when it is not `accepted`, which
    says that it is understood and allowed, or not `resolved`, that everything it points at was
    found. `generation` is the object's `metadata.generation`, for `observedGeneration`.
    """

    ref: Ref
    generation: int
    hosts: tuple[str, ...] = ()
    accepted: bool = True
    resolved: bool = True


@dataclass(frozen=True, slots=True)
class Translation:
    """What came of a translation.

    `document` is the configuration document: hand it to `document.canonical` for bytes that are the
    same whenever it is. `secrets` are the TLS Secrets to mirror for it, each under the name that
    `certificates.mirror_name` gives. `served` holds every object that is ours, in order; nothing
    else's status may be written. `owners` says which namespace each host belongs to: pass it to the
    next translation. `solvers` says whose solver answers the challenge of a host and token.
    `services` are the Services that it depends on, which may not be there; changes of others, and
    of their endpoints, change nothing.
    """

    document: Mapping[str, Any]
    secrets: frozenset[Key]
    diagnostics: tuple[Diagnostic, ...]
    served: tuple[Served, ...]
    owners: Mapping[str, str]
    solvers: Mapping[tuple[str, str], str]
    services: frozenset[Key]


def translate(
    objects: Objects,
    settings: Settings,
    *,
    owners: Mapping[str, str] | None = None,
    now: float | None = None,
    memory: Memory | None = None,
) -> Translation:
    """Translate everything.

    Args:
        objects: The state of all caches, which must be synced: what is not there is taken as
            deleted.
        settings: What the controller was started with.
        owners: Which namespace each host belonged to after the last translation. A namespace keeps
            a host for as long as it names it: an old object that is edited to name somebody
            else's host must not win by its age.
        now: Seconds since the epoch, to see which certificates have expired; None leaves that to
            `CertificateFacts.problem`.
        memory: What the last translation left; it learns. The result is the same without.

    Never raises for what objects say.
    """
    # A collection in the middle walks through all caches: with 5,000 Ingresses that was half of the
    # time.
    with paused():
        context = Context.of(objects, settings, memory)
        found = _translate(context, owners or {}, now)
        context.memory.end()
        return found


def _translate(context: Context, owners: Mapping[str, str], now: float | None) -> Translation:
    agents = read_agents(context)
    sites = _sites(context, {key: frozenset(one["targets"]) for key, one in agents.items()})
    merged = merge(sites, owners, context)
    certificates = choose(merged, context, now)
    with_tls = frozenset(certificates.hosts)
    backends = [
        backend for share in merged.shares for backend in remembered(share, with_tls, context)
    ]
    answered = challenges(sites, merged.owners, context)
    document = {
        "acme_challenges": [one for _, one in answered],
        "agents": list(agents.values()),
        "backends": sorted(backends, key=lambda backend: str(backend["name"])),
        "roles": read_roles(context, sites, dict(_openable(backends))),
        "tls": {"certificates": certificates.entries, "self_signed": True},
    }
    diagnostics = context.findings.sorted()
    return Translation(
        document=document,
        secrets=frozenset(certificates.secrets),
        diagnostics=diagnostics,
        served=_served(context, merged, diagnostics),
        owners=merged.owners.hosts,
        solvers={(one["host"], one["token"]): namespace for namespace, one in answered},
        services=frozenset(
            state.key for one in context.memory.readings.now.values() for state in one.asked
        ),
    )


def _sites(context: Context, agents: Mapping[Key, frozenset[str]]) -> list[Site]:
    """Everything that asks for hosts, by seniority."""
    objects = context.objects
    sites: list[Site] = []
    ingresses = IngressReader(context)
    for key, found in context.ingresses.items():
        site = context.read(Ref("Ingress", *key), found, ingresses.read)
        if site is not None:
            sites.append(site)
    beside = context.memory.same(agents)
    backends = BackendReader(context, agents)
    for key, found in objects.backends.items():
        if context.policy.backends.takes(key[0], found):
            site = context.read(Ref("Backend", *key), found, backends.read, beside=beside)
            if site is not None:
                sites.append(site)
    sites.sort(key=attrgetter("seniority"))
    return sites


def _openable(backends: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Openable]]:
    """What roles can give access to: what is public decides nothing by roles."""
    for backend in backends:
        if not backend.get("public"):
            names = frozenset([one["name"] for one in backend.get("permissions", ())])
            yield str(backend["name"]), Openable(names, "tcp" in backend)


def _served(
    context: Context, merged: Merged, diagnostics: Iterable[Diagnostic]
) -> tuple[Served, ...]:
    """What became of every object that is ours."""
    accepted: dict[Ref, bool] = {}
    resolved: dict[Ref, bool] = {}
    for one in diagnostics:
        meaning = REASONS[one.reason]
        if meaning.reference:
            resolved[one.ref] = False
        elif meaning.severity is Severity.ERROR:
            accepted[one.ref] = False
    known: dict[Ref, Served] = {}
    for share in merged.shares:
        ref = share.site.ref
        hosts = tuple(share.rules) if not share.streams else (*share.rules, *share.streams)
        if len(hosts) > 1:
            hosts = tuple(sorted(set(hosts)))
        ok, found = accepted.get(ref, True), resolved.get(ref, True)
        known[ref] = Served(ref, share.site.generation, hosts, ok, found)
    for ref, made in _others(context):
        ok, found = accepted.get(ref, True), resolved.get(ref, True)
        known[ref] = Served(ref, generation(made), (), ok, found)
    return tuple(sorted(known.values()))


def _others(context: Context) -> Iterator[tuple[Ref, Object]]:
    """Objects that are ours and ask for no host."""
    objects, policy = context.objects, context.policy
    for ref, one in context.memory.readings.now.items():
        if one.site is None:
            yield ref, one.found
    for key, found in objects.roles.items():
        if policy.roles.takes(key[0], found):
            yield Ref("Role", *key), found
    for key, found in objects.role_bindings.items():
        if policy.roles.takes_namespace(key[0]):
            yield Ref("RoleBinding", *key), found
    for key, found in objects.agents.items():
        if policy.backends.takes_namespace(key[0]):
            yield Ref("Agent", *key), found
    proxy = objects.proxies.get(context.settings.proxy)
    if proxy is not None:
        yield policy.ref, proxy
