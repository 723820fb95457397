"""What one object asks for, understood but not yet compared with what others ask for.

A site becomes a backend of the configuration, or none when nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from heim_controller.translation.annotations import NONE, Options
from heim_controller.translation.objects import Key, Ref

__all__ = ["ALL", "Challenge", "Rule", "Site", "Target", "TlsEntry"]

# The permission of an Ingress: everything but TRACE, for whoever has one of its roles.
ALL: Final = "all"


class Target(NamedTuple):
    """Where requests go: upstream URLs, a target of an agent, or nowhere for a reason.

    `agent` is its name in the configuration, the target's and the scheme.
    """

    upstreams: Sequence[str] = ()
    agent: tuple[str, str, str] | None = None
    unavailable: str = ""

    @property
    def is_https(self) -> bool:
        """Whether certificates of upstreams are to be verified."""
        if self.agent is not None:
            return self.agent[2] == "https"
        return bool(self.upstreams) and self.upstreams[0].startswith("https:")


class Rule(NamedTuple):
    """One host and path of a site. `path` is canonical, `match` is exact or prefix.

    `identity` is what two rules of a host cannot share. `place` leads back to the object.
    """

    host: str
    path: str
    match: str
    identity: str
    target: Target
    place: tuple[int, int]
    strip: bool = False


class TlsEntry(NamedTuple):
    """One entry of `spec.tls`: canonical hosts, empty for "as the certificate says"."""

    secret: str
    hosts: tuple[str, ...]
    field: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """An ACME challenge that a solver in the site's namespace can answer."""

    host: str
    token: str
    upstreams: Sequence[str]
    field: str


@dataclass(slots=True, eq=False)
class Site:
    """One Ingress or Backend, read.

    `hosts` are those its ordinary rules name, in order. `closed` is why everything of it answers
    503, if it does. `closures` are paths that answer 503 unless somebody has them. `fallback` is
    where requests go that no rule of a host covers. `tcp` is what the configuration says about its
    streams, `named` counts endpoints of its rules, `settings` are further keys of the backend,
    `upstream_tls` one that only https needs. `roles` are the Roles that an Ingress names, `longer`
    the rules that were written with a slash at the end.
    """

    ref: Ref
    seniority: tuple[str, str, str]
    name: str
    generation: int = 0
    options: Options = NONE
    public: bool = False
    closed: str = ""
    named: int = 0
    hosts: dict[str, None] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    closures: tuple[tuple[str, str], ...] = ()
    fallback: Target | None = None
    tcp: dict[str, Any] | None = None
    roles: tuple[Key, ...] = ()
    permissions: Sequence[dict[str, Any]] = ()
    settings: Mapping[str, Any] | None = None
    upstream_tls: Mapping[str, Any] | None = None
    tls: Sequence[TlsEntry] = ()
    challenges: tuple[Challenge, ...] = ()
    longer: set[tuple[str, str]] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        """The namespace of its object."""
        return self.ref.namespace

    def add(self, rule: Rule, *, longer: bool = False) -> None:
        """Add a rule. Of /foo and /foo/, `longer`, in one object the longer wins (types.go)."""
        key = (rule.host, rule.identity)
        if longer:
            self.longer.add(key)
        if longer or key not in self.longer:
            self.rules.append(rule)

    def settle(self) -> None:
        """Drop the rules that a longer one replaced; once, because there may be thousands."""
        if self.longer:
            last = {(one.host, one.identity): number for number, one in enumerate(self.rules)}
            self.rules = [
                one
                for number, one in enumerate(self.rules)
                if (key := (one.host, one.identity)) not in self.longer or last[key] == number
            ]

    def field_of(self, rule: Rule) -> str:
        """The place of a rule in the object."""
        first, second = rule.place
        if self.ref.kind != "Ingress":
            return f"spec.http[{second}]"
        return f"spec.rules[{first}].http.paths[{second}]"
