"""How the parts of a configuration fit together: references, duplicates, contradictions.

Each check yields findings by their place in the model. Names are looked up in the data as written,
not in the model: a backend with a mistake in it is still a backend that a role may mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

from heim_config.access import Binding, Member
from heim_config.backends import Backend
from heim_config.coherence import contradictions
from heim_config.identity import GOOGLE_ISSUER, Provider
from heim_config.model import Config
from heim_config.paths import decoded
from heim_config.problems import Finding, Loc, nearest, show
from heim_runtime.kept import Kept

__all__ = ["Judged", "Names", "crosscheck", "duplicate_names"]

Found = Iterator[Finding]

# Of what a backend is written with: http, tcp.
_KINDS: Final = {
    (http, tcp): frozenset(word for word, given in (("http", http), ("tcp", tcp)) if given)
    for http in (True, False)
    for tcp in (True, False)
}

# Tenants of login.microsoftonline.com that mean any organisation's accounts.
_ANY_TENANT: Final = frozenset(("common", "organizations", "consumers"))


class Names:
    """What the data defines, whether or not it is valid."""

    def __init__(self, data: dict[str, Any]) -> None:
        identity = data.get("identity")
        providers = identity.get("providers") if isinstance(identity, dict) else None
        self.providers = _names(providers)
        self.service_accounts = _names(data.get("service_accounts"))
        # The targets of each agent.
        self.agents: dict[str, tuple[str, ...]] = {}
        for item in _mappings(data.get("agents")):
            if isinstance(item.get("name"), str):
                self.agents.setdefault(item["name"], _texts(item.get("targets")))
        self.permissions: dict[str, tuple[str, ...]] = {}
        self.public: dict[str, object] = {}
        # Which of http and tcp each backend is written with.
        self.kinds: dict[str, frozenset[str]] = {}
        for item in _mappings(data.get("backends")):
            if isinstance(item.get("name"), str):
                # Of two with one name (a mistake of its own) the first one counts.
                self.permissions.setdefault(item["name"], _names(item.get("permissions")))
                self.public.setdefault(item["name"], item.get("public", False))
                given = (item.get("http") is not None, item.get("tcp") is not None)
                self.kinds.setdefault(item["name"], _KINDS[given])


def duplicate_names(data: dict[str, Any]) -> Found:
    """Names that are given twice where they must differ; places are those of the data."""
    identity = data.get("identity")
    lists: list[tuple[Loc, Any]] = [
        (("backends",), data.get("backends")),
        (("roles",), data.get("roles")),
        (("service_accounts",), data.get("service_accounts")),
        (("agents",), data.get("agents")),
    ]
    if isinstance(identity, dict):
        lists.append((("identity", "providers"), identity.get("providers")))
    backends = data.get("backends")
    for position, item in enumerate(backends if isinstance(backends, list) else ()):
        permissions = item.get("permissions") if isinstance(item, dict) else None
        if isinstance(permissions, list) and len(permissions) > 1:
            lists.append((("backends", position, "permissions"), permissions))
    for loc, items in lists:
        seen: set[str] = set()
        for position, item in enumerate(items if isinstance(items, list) else ()):
            name = item.get("name") if isinstance(item, dict) else None
            if isinstance(name, str) and name in seen:
                message = f"{show(name)} is the name of another one in this list"
                yield Finding((*loc, position, "name"), message, "names are unique")
            elif isinstance(name, str):
                seen.add(name)


class _Judged(NamedTuple):
    """A backend, what contradicts itself in it, and the agents that it goes through."""

    backend: Backend
    contradictions: tuple[Finding, ...]
    ways: tuple[tuple[Loc, str, str], ...]


class Judged:
    """What an earlier check said of each backend by itself; for one caller at a time.

    They are known by being the very same objects. What they mean together is always judged anew.
    """

    def __init__(self) -> None:
        """Know none."""
        # All of the rest of a configuration that contradictions depend on.
        self._beside: object = None
        # By the `id` of a backend.
        self._known: Kept[int, _Judged] = Kept()

    def check(self, config: Config, names: Names) -> Found:
        """What contradicts itself in each backend, and which agents are not there."""
        beside = (config.domain, config.listeners.http is None)
        if beside != self._beside:
            self._beside = beside
            self._known.clear()
        self._known.now.clear()
        before, now = self._known.before, self._known.now
        for position, backend in enumerate(config.backends):
            known = before.get(id(backend))
            if known is None:
                found = tuple(contradictions(backend, config))
                known = _Judged(backend, found, tuple(_ways(backend)))
            now[id(backend)] = known
            for one in known.contradictions:
                yield Finding(("backends", position, *one.loc), one.message, one.hint)
            for loc, agent, target in known.ways:
                yield from _way(("backends", position, *loc), agent, target, names)
        self._known.turn()


def crosscheck(config: Config, names: Names, judged: Judged | None = None) -> Found:
    """Everything about `config` that no single section can know.

    `judged` is what earlier calls found out; it learns.
    """
    yield from _sections(config)
    yield from _hosts(config)
    yield from (judged or Judged()).check(config, names)
    yield from _providers(config)
    for position, role in enumerate(config.roles):
        loc: Loc = ("roles", position)
        for i, member in enumerate(role.members):
            yield from _member(member, (*loc, "members", i), config, names)
        for i, binding in enumerate(role.bindings):
            yield from _binding(binding, (*loc, "bindings", i), names)


def _ways(backend: Backend) -> Iterator[tuple[Loc, str, str]]:
    """Each agent that a backend goes through, with its target and where both are written."""
    tcp = backend.tcp
    if tcp is not None and tcp.agent is not None and tcp.target is not None:
        yield ("tcp",), tcp.agent, tcp.target
    for i, route in enumerate(backend.http):
        if route.agent is not None and route.target is not None:
            yield ("http", i), route.agent, route.target


def _way(loc: Loc, agent: str, target: str, names: Names) -> Found:
    targets = names.agents.get(agent)
    if targets is None:
        yield _unknown((*loc, "agent"), "agent", agent, tuple(names.agents))
    elif target not in targets:
        message = f"agent {agent} has no target {show(target)}"
        yield Finding((*loc, "target"), message, _offer(target, targets))


def _sections(config: Config) -> Found:
    # With a source they come later, and one that cannot be used yet must not refuse the rest.
    if not config.tls.certificates and not config.tls.self_signed and config.source is None:
        yield Finding(
            ("tls", "certificates"),
            "has no certificate, so the https listener cannot work",
            "add {cert_file: ..., key_file: ...} or {directory: ...}",
        )
    for position, certificate in enumerate(config.tls.certificates):
        if certificate.secret is not None and config.source is None:
            yield Finding(
                ("tls", "certificates", position, "secret"),
                "is a Secret in Kubernetes, which only a source leads to",
                "add source, or mount it and write directory",
            )
    private = [backend.name for backend in config.backends if not backend.public]
    if private and not config.identity.providers:
        yield Finding(
            ("identity", "providers"),
            f"has no provider, so nobody can sign in to {private[0]}",
            "add one, or write public: true where no login is meant",
        )
    if config.session.idle > config.session.lifetime:
        yield Finding(
            ("session", "idle"), "is longer than lifetime", "a session never outlives its lifetime"
        )
    seen: dict[str, str] = {}
    listeners = config.listeners
    bound = [("https", listeners.https.address), ("admin", listeners.admin.address)]
    if listeners.http is not None:
        bound.insert(1, ("http", listeners.http.address))
    for name, address in bound:
        other = seen.setdefault(str(address), name)
        if other != name and (address.port or address.path):
            yield Finding(
                ("listeners", name, "address"), f"{address} is listeners.{other}'s address already"
            )


def _hosts(config: Config) -> Found:
    owners: dict[tuple[str, str], str] = {}
    # Hosts about which there is something to say or to compare; of thousands, few are.
    hosts = [config.backend_hosts(backend) for backend in config.backends]
    noted = {config.login_host, "*", *_twice(chain.from_iterable(hosts))}
    for position, backend in enumerate(config.backends):
        if noted.isdisjoint(hosts[position]):
            continue
        listed: set[str] = set()
        for host, place in _hosts_of(config, backend):
            loc: Loc = ("backends", position, *place)
            if host == config.login_host:
                yield Finding(
                    loc,
                    f"{host} is the login host, which is never a backend",
                    "choose another host, or another login_host",
                )
            elif host == "*" and not backend.public:
                yield Finding(
                    loc,
                    "* needs public: true: people can sign in on known hosts alone",
                    "name them",
                )
            elif host in listed:
                yield Finding(loc, f"{host} is a host of backend {backend.name} already")
            else:
                yield from _shared(backend, host, loc, owners)
            listed.add(host)


def _twice(hosts: Iterable[str]) -> Iterator[str]:
    """Those that are there more than once: of one backend or of several."""
    seen: set[str] = set()
    for host in hosts:
        if host in seen:
            yield host
        seen.add(host)


def _shared(backend: Backend, host: str, loc: Loc, owners: dict[tuple[str, str], str]) -> Found:
    """Backends may share a host, but what answers there must not depend on their order."""
    answers = [
        (host, f"{route.match} {decoded(route.path)}")
        for route in backend.http
        if route.host in (None, host)
    ]
    if backend.tcp is not None:
        answers.append((host, "tcp"))
    others = {name for one in answers if (name := owners.get(one)) not in (None, backend.name)}
    if others:
        yield Finding(
            loc,
            f"{host} is a host of backend {min(map(str, others))} already",
            "backends may share a host if they share no path of it, and one has its tcp",
        )
    for one in answers:
        owners.setdefault(one, backend.name)


def _hosts_of(config: Config, backend: Backend) -> Iterator[tuple[str, Loc]]:
    if backend.host is None and not backend.hosts:
        for host in config.backend_hosts(backend):
            yield host, ("name",)
    if backend.host is not None:
        yield backend.host, ("host",)
    for position, host in enumerate(backend.hosts):
        yield host, ("hosts", position)


def _providers(config: Config) -> Found:
    providers = config.identity.providers
    owners: dict[str, str] = {}
    for position, provider in enumerate(providers):
        loc: Loc = ("identity", "providers", position)
        if len(providers) > 1 and not provider.domains:
            yield Finding(
                (*loc, "domains"),
                "is required with several providers",
                "or this one could sign in as the people of another",
            )
        for i, domain in enumerate(provider.domains):
            if owners.setdefault(domain, provider.name) != provider.name:
                yield Finding(
                    (*loc, "domains", i),
                    f"{domain} belongs to provider {owners[domain]} already",
                    "one provider is authoritative for a domain",
                )
        for finding in _provider(provider):
            yield Finding((*loc, *finding.loc), finding.message, finding.hint)


def _provider(provider: Provider) -> Found:
    if provider.type == "google" and provider.issuer != GOOGLE_ISSUER:
        yield Finding(
            ("issuer",), f"is always {GOOGLE_ISSUER} for google", "remove it, or use type: oidc"
        )
    if provider.type == "azure":
        if _ANY_TENANT & set(provider.issuer.lower().split("/")):
            yield Finding(
                ("issuer",),
                "names no tenant, so any organisation's accounts could sign in",
                "write https://login.microsoftonline.com/<tenant id>/v2.0",
            )
        if not provider.hosted_domains:
            yield Finding(
                ("hosted_domains",),
                "is required for azure, which does not say whether an e-mail address is verified",
                "name the domains of your tenant",
            )


def _binding(binding: Binding, loc: Loc, names: Names) -> Found:
    permissions = names.permissions.get(binding.backend)
    if permissions is None:
        yield _unknown((*loc, "backend"), "backend", binding.backend, tuple(names.permissions))
        return
    public = names.public[binding.backend]
    kinds = names.kinds[binding.backend]
    if public is True:
        yield Finding(
            (*loc, "backend"),
            f"{binding.backend} is public, so a binding decides nothing",
            "remove the binding, or public: true",
        )
    elif binding.permission is not None and kinds == {"tcp"}:
        yield Finding(
            (*loc, "permission"),
            f"{binding.backend} has no http, so it has no permissions",
            "remove it: a binding without permission gives tcp",
        )
    elif binding.permission is None and kinds == {"http"} and public is False:
        has = f"it has {', '.join(permissions)}" if permissions else "it has none yet"
        yield Finding(
            (*loc, "permission"), f"is missing: which permission of {binding.backend}", has
        )
    elif binding.permission is not None and binding.permission not in permissions:
        message = f"backend {binding.backend} has no permission {show(binding.permission)}"
        yield Finding((*loc, "permission"), message, _offer(binding.permission, permissions))


def _member(member: Member, loc: Loc, config: Config, names: Names) -> Found:
    providers = config.identity.providers
    if member.group is not None and member.provider is None and len(names.providers) > 1:
        yield Finding(
            (*loc, "provider"),
            f"is missing: whose group {show(member.group)} is meant",
            f"providers are {', '.join(names.providers)}",
        )
    if member.provider is not None and member.provider not in names.providers:
        yield _unknown((*loc, "provider"), "provider", member.provider, names.providers)
    account = member.service_account
    if account is not None and account not in names.service_accounts:
        what = "service account"
        yield _unknown((*loc, "service_account"), what, account, names.service_accounts)
    if len(providers) != len(names.providers):
        return
    if member.issuer is not None and all(found.issuer != member.issuer for found in providers):
        issuers = [found.issuer for found in providers]
        yield _unknown((*loc, "issuer"), "provider with the issuer", member.issuer, tuple(issuers))
    if member.user is not None and providers and all(found.domains for found in providers):
        domain = member.user.rpartition("@")[2]
        if not any(domain in found.domains for found in providers):
            yield Finding(
                (*loc, "user"),
                f"{member.user} can never sign in: no provider is authoritative for {domain}",
                "add the domain to a provider's domains",
            )


def _unknown(loc: Loc, what: str, name: str, known: tuple[str, ...]) -> Finding:
    return Finding(loc, f"there is no {what} {show(name)}", _offer(name, known))


def _offer(name: str, known: tuple[str, ...]) -> str | None:
    hint = nearest(name, known)
    if hint is None and len(known) <= 8:
        return f"there are {', '.join(known)}" if known else "none is defined"
    return hint


def _names(items: Any) -> tuple[str, ...]:
    if not items:
        return ()
    names = [item.get("name") for item in _mappings(items)]
    return tuple([name for name in names if isinstance(name, str)])


def _texts(items: Any) -> tuple[str, ...]:
    return tuple(item for item in items if isinstance(item, str)) if isinstance(items, list) else ()


def _mappings(items: Any) -> list[dict[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
