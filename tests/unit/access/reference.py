"""A second policy evaluator, slow and obviously correct, for the engine to be compared with.

It works on the specs themselves, compiles nothing, and shares no code with the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heim_proxy.access.members import (
    DomainMember,
    GroupMember,
    IssuerMember,
    MemberSpec,
    ServiceAccountMember,
    UserMember,
)
from heim_proxy.access.policy import (
    BindingSpec,
    DenyReason,
    LocationSpec,
    PermissionSpec,
    RoleSpec,
)
from heim_proxy.access.subject import Subject, SubjectKind


@dataclass(frozen=True)
class World:
    """Everything a policy is compiled from."""

    backends: Sequence[str]
    permissions: Sequence[PermissionSpec]
    roles: Sequence[RoleSpec]
    tcp: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """`reason` is None when allowed."""

    reason: DenyReason | None
    rule: str | None = None
    break_glass: bool = False
    roles: tuple[str, ...] = ()


def fits(pattern: bytes, path: bytes) -> bool:
    if not path.startswith(b"/"):
        return False
    exact = pattern.startswith(b"=")
    wanted = pattern.removeprefix(b"=").split(b"/")[1:]
    have = path.split(b"/")[1:]
    if exact:
        return len(have) == len(wanted) and all(map(segment_fits, wanted, have))
    if len(have) < len(wanted):
        return False
    if wanted[-1] == b"":  # a prefix ending in a slash: whatever comes after that slash
        wanted = wanted[:-1]
    return all(map(segment_fits, wanted, have))


def segment_fits(wanted: bytes, have: bytes) -> bool:
    return have != b"" if wanted == b"*" else wanted == have


def method_fits(word: str, method: bytes) -> bool:
    if word == "any":
        return method != b"TRACE" and method != b"CONNECT"
    if word == "get" and method == b"HEAD":
        return True
    return method == word.upper().encode()


def is_member(subject: Subject, member: MemberSpec) -> bool:
    if isinstance(member, IssuerMember):
        return (subject.issuer, subject.subject) == (member.issuer, member.subject)
    if isinstance(member, ServiceAccountMember):
        return subject.kind is SubjectKind.SERVICE_ACCOUNT and subject.subject == member.name
    if subject.kind is not SubjectKind.USER:
        return False
    if isinstance(member, UserMember):
        return subject.email is not None and subject.email == member.email
    if isinstance(member, DomainMember):
        return subject.domain is not None and subject.domain == member.domain
    assert isinstance(member, GroupMember)
    return subject.provider == member.provider and member.group in subject.groups


def judge(world: World, subject: Subject, backend: str, *, method: bytes, path: bytes) -> Verdict:
    if backend not in world.backends:
        return Verdict(DenyReason.UNKNOWN_BACKEND)
    mine = [r for r in world.roles if any(is_member(subject, member) for member in r.members)]
    bound = [role for role in mine if any(is_of(b, backend) for b in role.bindings)]
    names = tuple(sorted(role.name for role in bound))
    for role in bound:
        for binding in role.bindings:
            if binding.backend == backend and binding.permission is not None:
                for location in locations(world, backend, binding.permission):
                    if method_fits(location.method, method) and fits(location.pattern, path):
                        where = f"{backend}/{binding.permission}"
                        what = f"{location.method} {location.pattern.decode()}"
                        return Verdict(None, f"role {role.name}: {where} {what}", roles=names)
    breakers = [role for role in mine if role.break_glass]
    if breakers and method_fits("any", method) and path.startswith(b"/"):
        everyone = tuple(sorted({*names, *(role.name for role in breakers)}))
        return Verdict(None, f"role {breakers[0].name}: break-glass", True, everyone)
    if bound or breakers:
        return Verdict(DenyReason.NO_PERMISSION)
    return Verdict(DenyReason.NO_ROLE)


def is_of(binding: BindingSpec, backend: str) -> bool:
    return binding.backend == backend and binding.permission is not None


def judge_stream(world: World, subject: Subject, backend: str) -> Verdict:
    if backend not in world.tcp:
        return Verdict(DenyReason.UNKNOWN_BACKEND)
    mine = [r for r in world.roles if any(is_member(subject, member) for member in r.members)]
    bound = [role for role in mine if BindingSpec(backend, None) in role.bindings]
    if bound:
        names = tuple(sorted(role.name for role in bound))
        return Verdict(None, f"role {bound[0].name}: {backend} tcp", roles=names)
    breakers = [role for role in mine if role.break_glass]
    if breakers:
        names = tuple(sorted(role.name for role in breakers))
        return Verdict(None, f"role {breakers[0].name}: break-glass", True, names)
    return Verdict(DenyReason.NO_ROLE)


def locations(world: World, backend: str, permission: str) -> tuple[LocationSpec, ...]:
    (found,) = [p for p in world.permissions if (p.backend, p.name) == (backend, permission)]
    return found.locations
