"""Explanations: which rule decided a request, why the others did not, and what would change it.

For operators (`heim-proxy explain`). The verdict is `Grants.decide`'s own; the rest is commentary
that goes through the same compiled rules once more. Roles name groups and domains, but count people
instead of naming them, so that an explanation can be pasted into a ticket.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from heim_proxy.access.members import IssuerMember, MemberSpec, UserMember, identities, label
from heim_proxy.access.policy import Allow, Deny, DenyReason, Policy, shown
from heim_proxy.access.roles import Role, Rule, TcpRule
from heim_proxy.access.subject import Subject

__all__ = ["Considered", "Explanation", "Outcome", "explain", "explain_connect"]

# More rules than fit a terminal do not explain anything.
_MAX_RULES_SHOWN: Final = 20


R = TypeVar("R", Rule, TcpRule)


class Outcome(enum.Enum):
    """What became of a rule."""

    DECIDES = "decides"
    LATER = "would allow too"
    NOT_A_MEMBER = "not a member"
    OTHER_METHOD = "other method"
    OTHER_PATH = "other path"


@dataclass(frozen=True, slots=True)
class Considered(Generic[R]):
    """A rule of the backend, what became of it and why, as one clause."""

    rule: R
    outcome: Outcome
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision with its reasons.

    `request` is what was asked for in words: ``GET /reports``, or ``tcp``. `considered` holds every
    rule of the backend in the order they were asked, ordinary rules before break-glass; `changes`
    are sentences on what would turn the decision round.
    """

    subject: str
    backend: str
    request: str
    decision: Allow | Deny
    considered: tuple[Considered[Rule] | Considered[TcpRule], ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def rule(self) -> str | None:
        """What decided, by name; None when nothing allowed it."""
        return self.decision.rule if isinstance(self.decision, Allow) else None

    def lines(self) -> Iterator[str]:
        """The explanation for a terminal, most important line first."""
        request = f"{self.request} on {self.backend}"
        if isinstance(self.decision, Allow):
            broken = " (break-glass, audited)" if self.decision.break_glass else ""
            yield f"ALLOWED: {self.subject}: {request}{broken}"
            yield f"  by {self.rule}"
        else:
            yield f"REFUSED ({self.decision.reason.value}): {self.subject}: {request}"
            yield f"  {self.decision.detail}"
        if self.considered:
            yield "rules of this backend:"
        for one in self.considered[:_MAX_RULES_SHOWN]:
            yield f"  {one.rule.text}: {one.outcome.value}: {one.why}"
        if len(self.considered) > _MAX_RULES_SHOWN:
            yield f"  and {len(self.considered) - _MAX_RULES_SHOWN} more"
        if self.changes:
            yield "what would change it:"
        for change in self.changes:
            yield f"  {change}"


def explain(
    policy: Policy, subject: Subject, backend: str, *, method: bytes, path: bytes
) -> Explanation:
    """Explain what `policy` says to a subject's request; `path` is canonical, without its query."""
    decision = policy.decide(subject, backend, method, path)
    request = f"{shown(method)} {shown(path)}"
    found = Explanation(subject.name, backend, request, decision)
    if _failed(decision):
        return found
    considered = tuple(_consider(policy, subject, backend, method=method, path=path))
    changes = tuple(_changes(policy, subject, considered, request=(backend, method, path)))
    return replace(found, considered=considered, changes=changes)


def explain_connect(policy: Policy, subject: Subject, backend: str) -> Explanation:
    """Explain what `policy` says to a subject's TCP stream to a backend."""
    decision = policy.connect(subject, backend)
    found = Explanation(subject.name, backend, "tcp", decision)
    if _failed(decision):
        return found
    considered = tuple(_consider_tcp(policy, subject, backend))
    changes = tuple(_tcp_changes(policy, subject, considered, backend))
    return replace(found, considered=considered, changes=changes)


def _failed(decision: Allow | Deny) -> bool:
    return isinstance(decision, Deny) and decision.reason is DenyReason.INTERNAL


def _consider_tcp(policy: Policy, subject: Subject, backend: str) -> Iterator[Considered[TcpRule]]:
    memberships = _memberships(policy, subject)
    ordinary = [role.tcp[backend] for role in policy.roles if backend in role.tcp]
    emergency = [
        role.tcp_emergency[backend] for role in policy.roles if backend in role.tcp_emergency
    ]
    decided = False
    for rule in ordinary + emergency:
        through = memberships.get(rule.role)
        if through is None:
            yield _not_a_member(rule, subject)
        else:
            yield _allowing(rule, subject, through, decided=decided)
            decided = True


def _consider(
    policy: Policy, subject: Subject, backend: str, *, method: bytes, path: bytes
) -> Iterator[Considered[Rule]]:
    memberships = _memberships(policy, subject)
    ordinary = [rule for role in policy.roles for rule in role.rules.get(backend, ())]
    emergency = [role.emergency[backend] for role in policy.roles if backend in role.emergency]
    decided = False
    for rule in ordinary + emergency:
        through = memberships.get(rule.role)
        if through is None:
            yield _not_a_member(rule, subject)
        elif not rule.covers(method):
            why = f"{shown(method)} is not among the methods of {rule.method}"
            yield Considered(rule, Outcome.OTHER_METHOD, why)
        elif not rule.pattern.matches(path):
            why = f"{shown(path)} is not {rule.pattern.describe()}"
            yield Considered(rule, Outcome.OTHER_PATH, why)
        else:
            yield _allowing(rule, subject, through, decided=decided)
            decided = True


def _not_a_member(rule: R, subject: Subject) -> Considered[R]:
    return Considered(rule, Outcome.NOT_A_MEMBER, f"{subject.name} is not in {rule.role}")


def _allowing(rule: R, subject: Subject, through: str, *, decided: bool) -> Considered[R]:
    outcome = Outcome.LATER if decided else Outcome.DECIDES
    return Considered(rule, outcome, f"{subject.name} is in {rule.role} as {through}")


def _memberships(policy: Policy, subject: Subject) -> Mapping[str, str]:
    """The subject's roles, each with the member it is in the role by."""
    mine = list(identities(subject))
    found = {
        role.name: [label(one) for one in mine if one in role.members] for role in policy.roles
    }
    return {name: labels[0] for name, labels in found.items() if labels}


def _changes(
    policy: Policy,
    subject: Subject,
    considered: tuple[Considered[Rule], ...],
    *,
    request: tuple[str, bytes, bytes],
) -> Iterator[str]:
    backend, method, path = request
    by_outcome = _by_outcome(considered)
    if by_outcome[Outcome.DECIDES]:
        yield from _ways_to_refuse(subject, by_outcome)
        return
    if backend not in policy.backends:
        yield f"nothing: no backend is called {backend}"
        return
    wanted = f"{shown(method)} {shown(path)}"
    enough = {
        rule.role: None
        for rule in by_outcome[Outcome.NOT_A_MEMBER]
        if rule.covers(method) and rule.pattern.matches(path)
    }
    yield from _joining(policy, subject, enough)
    held = {
        rule.permission: None
        for outcome in (Outcome.OTHER_METHOD, Outcome.OTHER_PATH)
        for rule in by_outcome[outcome]
        if rule.permission is not None
    }
    for permission in held:
        yield f"a location for {wanted} in permission {backend}/{permission}, which they hold"
    if not enough and not held:
        yield f"a role with {subject.name} and a permission of {backend} that covers {wanted}"


def _tcp_changes(
    policy: Policy, subject: Subject, considered: tuple[Considered[TcpRule], ...], backend: str
) -> Iterator[str]:
    by_outcome = _by_outcome(considered)
    if by_outcome[Outcome.DECIDES]:
        yield from _ways_to_refuse(subject, by_outcome)
    elif backend not in policy.tcp:
        yield f"nothing: no backend with tcp is called {backend}"
    elif by_outcome[Outcome.NOT_A_MEMBER]:
        enough = {rule.role for rule in by_outcome[Outcome.NOT_A_MEMBER]}
        yield from _joining(policy, subject, enough)
    else:
        yield f"a role with {subject.name} and the binding {{backend: {backend}}}"


def _by_outcome(considered: Iterable[Considered[R]]) -> Mapping[Outcome, list[R]]:
    found: dict[Outcome, list[R]] = {outcome: [] for outcome in Outcome}
    for one in considered:
        found[one.outcome].append(one.rule)
    return found


def _joining(policy: Policy, subject: Subject, names: Iterable[str]) -> Iterator[str]:
    wanted = set(names)
    for role in policy.roles:
        if role.name in wanted:
            yield f"{subject.name} becoming a member of role {role.name} ({_audience(role)})"


def _ways_to_refuse(subject: Subject, by_outcome: Mapping[Outcome, list[R]]) -> Iterator[str]:
    decisive, *rest = by_outcome[Outcome.DECIDES] + by_outcome[Outcome.LATER]
    yield f"{subject.name} leaving role {decisive.role}, or that role losing the rule"
    if rest:
        also = ", ".join(dict.fromkeys(rule.text for rule in rest))
        yield f"and then these would still allow it: {also}"


def _audience(role: Role) -> str:
    people = sum(_names_a_person(member) for member in role.members)
    words = [label(member) for member in role.members if not _names_a_person(member)]
    if people:
        words.append("1 named person" if people == 1 else f"{people} named people")
    return ", ".join(words) or "it has no members yet"


def _names_a_person(member: MemberSpec) -> bool:
    return isinstance(member, UserMember | IssuerMember)
