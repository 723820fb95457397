"""Policy: roles compiled to grants, and the one function that says yes.

`Policy.grants(subject)` is computed once per session and generation; `Grants.decide` is what runs
per request, `Grants.connect` per tcp stream. Everything here is a function of its arguments: no
clock, no I/O, no logging.

Rules only allow, and the first one in configuration order (role, binding, location) names the
decision. What no rule covers is refused, and so is everything when a rule cannot be evaluated.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from heim_proxy.access.members import MemberSpec, identities
from heim_proxy.access.patterns import Pattern
from heim_proxy.access.roles import (
    ANY,
    EXPLICIT_ONLY,
    BindingSpec,
    LocationSpec,
    PermissionSpec,
    Role,
    RoleSpec,
    TcpRule,
    compile_roles,
    wire_methods,
)
from heim_proxy.access.subject import Subject

__all__ = [
    "Allow",
    "Approver",
    "BindingSpec",
    "Deny",
    "DenyReason",
    "Grants",
    "LocationSpec",
    "PermissionSpec",
    "Policy",
    "RoleSpec",
    "shown",
]

# People share few combinations of roles; the bound only keeps a hostile directory from growing it.
_MAX_GRANTS_KEPT: Final = 1024

# A detail goes to pages and logs; the whole path of up to 8 KiB would drown the sentence.
_MAX_PATH_SHOWN: Final = 120
_UNPRINTABLE: Final = re.compile(rb"[^\x20-\x7e]")


class DenyReason(enum.Enum):
    """Why a request was refused; the value is what logs and pages show."""

    UNKNOWN_BACKEND = "unknown_backend"
    NO_ROLE = "no_role"
    NO_PERMISSION = "no_permission"
    INTERNAL = "internal_error"


@dataclass(frozen=True, slots=True)
class Allow:
    """A positive decision; forwarding functions cannot be called without one.

    `rule` names what decided ("role admin: grafana/all any /"); `roles` are the subject's roles
    that are bound to this backend, sorted.
    """

    backend: str
    rule: str
    roles: tuple[str, ...] = ()
    break_glass: bool = False
    public: bool = False


@dataclass(frozen=True, slots=True)
class Deny:
    """A negative decision with its reason; `detail` is one sentence for people."""

    backend: str
    reason: DenyReason
    detail: str


@dataclass(frozen=True, slots=True)
class Approver:
    """The permission to let agents in and to look at them; `role` is what gives it."""

    role: str
    break_glass: bool


# Stands for every method that no rule of a backend names: no method is empty (RFC 9110, 9.1).
_UNNAMED: Final = b""

# What a matching path starts with, the pattern if that alone does not decide, and the answer.
_Entry = tuple[bytes, Pattern | None, Allow]


@dataclass(frozen=True, slots=True)
class _BackendGrants:
    """A subject's rules on one backend, in order, by wire method; `others` are for the rest."""

    by_method: Mapping[bytes, tuple[_Entry, ...]]
    others: tuple[_Entry, ...]
    roles: tuple[str, ...]


class Grants:
    """What one combination of roles may do. Shared by all subjects that have it; immutable.

    `known` are the backends that serve http, `tcp` those that serve tcp. The two are judged by
    different methods from different rules; neither sees what the other would say. `approver` is
    None for those who may not let agents in.
    """

    __slots__ = ("_backends", "_fault", "_known", "_streams", "_tcp", "approver", "roles")

    def __init__(
        self,
        roles: tuple[Role, ...],
        known: frozenset[str],
        tcp: frozenset[str] = frozenset(),
        *,
        fault: str = "",
    ) -> None:
        self.roles = tuple(sorted(role.name for role in roles))
        self._known = known
        self._tcp = tcp
        self._fault = fault
        self.approver = _approver(roles)
        self._streams = _tcp_grants(roles)
        bound = {name: None for role in roles for name in (*role.rules, *role.emergency)}
        self._backends = {name: _backend_grants(name, roles) for name in bound}

    def __repr__(self) -> str:
        return f"<Grants roles={','.join(self.roles) or '-'}>"

    def decide(self, backend: str, method: bytes, path: bytes) -> Allow | Deny:
        """Judge a request: the wire `method`, and the canonical `path` without its query.

        Never raises: what cannot be evaluated is `Deny` with `DenyReason.INTERNAL`, whose detail
        ends in the name of the exception, for the caller to count and log.
        """
        try:
            granted = self._backends.get(backend)
            if granted is not None:
                for head, pattern, allow in granted.by_method.get(method, granted.others):
                    # The prefix test is one call into C; most rules that do not match end there.
                    if path.startswith(head) and (pattern is None or pattern.matches(path)):
                        return allow
            return self._refuse(backend, method, path, granted)
        except Exception as error:  # noqa: BLE001 - no answer from policy is a deny (J8)
            return _internal(backend, type(error).__name__)

    def connect(self, backend: str) -> Allow | Deny:
        """Judge a TCP stream to a backend, by its name.

        Never raises: what cannot be evaluated is `Deny` with `DenyReason.INTERNAL`, as in `decide`.
        """
        try:
            allow = self._streams.get(backend)
            return self._refuse_stream(backend) if allow is None else allow
        except Exception as error:  # noqa: BLE001 - no answer from policy is a deny (J8)
            return _internal(backend, type(error).__name__)

    def readable(self, backend: str) -> tuple[bytes, ...]:
        """What the paths that may be read (GET) start with, in order, without break-glass rules."""
        granted = self._backends.get(backend)
        if granted is None:
            return ()
        entries = granted.by_method.get(b"GET", granted.others)
        return tuple(head for head, _, allow in entries if not allow.break_glass)

    def _refuse(
        self, backend: str, method: bytes, path: bytes, granted: _BackendGrants | None
    ) -> Deny:
        if self._fault:
            return _internal(backend, self._fault)
        if backend not in self._known:
            return _unknown(backend)
        if granted is None:
            detail = f"You have no role that gives access to {backend}."
            return Deny(backend, DenyReason.NO_ROLE, detail)
        noun, verb = ("role", "does") if len(granted.roles) == 1 else ("roles", "do")
        detail = (
            f"Your {noun} {', '.join(granted.roles)} on {backend} {verb} not include "
            f"{shown(method)} {shown(path)}."
        )
        return Deny(backend, DenyReason.NO_PERMISSION, detail)

    def _refuse_stream(self, backend: str) -> Deny:
        if self._fault:
            return _internal(backend, self._fault)
        if backend not in self._tcp:
            return _unknown(backend)
        # Where people may have http alone, "no access" would be a puzzle.
        over = " over tcp" if backend in self._known else ""
        detail = f"You have no role that gives access to {backend}{over}."
        return Deny(backend, DenyReason.NO_ROLE, detail)


class Policy:
    """All roles of one configuration, compiled. Immutable but for a memo of grants."""

    __slots__ = ("_by_member", "_grants", "backends", "roles", "tcp")

    def __init__(
        self,
        roles: tuple[Role, ...],
        backends: frozenset[str],
        tcp: frozenset[str] = frozenset(),
    ) -> None:
        self.roles = roles
        self.backends = backends
        self.tcp = tcp
        self._by_member: dict[MemberSpec, list[int]] = {}
        self._grants: dict[tuple[int, ...], Grants] = {}
        for index, role in enumerate(roles):
            for member in role.members:
                self._by_member.setdefault(member, []).append(index)

    @classmethod
    def compile(
        cls,
        *,
        backends: Iterable[str],
        permissions: Iterable[PermissionSpec],
        roles: Iterable[RoleSpec],
        tcp: Iterable[str] = (),
    ) -> Policy:
        """Compile plain values.

        Args:
            backends: All that serve http, with or without permissions.
            permissions: Of those.
            roles: In the order in which their rules are asked.
            tcp: All that serve tcp; a backend may do both.

        Raises:
            ValueError: A duplicate name, a reference to something that does not exist, an unknown
                method word, a pattern that cannot match, or a member with an empty part.
        """
        known, streams = frozenset(backends), frozenset(tcp)
        compiled = compile_roles(backends=known, tcp=streams, permissions=permissions, roles=roles)
        return cls(compiled, known, streams)

    def grants(self, subject: Subject) -> Grants:
        """What `subject` may do. Cheap to keep: equal combinations of roles share one object.

        Never raises: a subject that cannot be evaluated gets grants that refuse everything.
        """
        try:
            held = {index for one in identities(subject) for index in self._by_member.get(one, ())}
            key = tuple(sorted(held))
            found = self._grants.get(key)
            if found is None:
                roles = tuple(self.roles[index] for index in key)
                found = Grants(roles, self.backends, self.tcp)
                if len(self._grants) >= _MAX_GRANTS_KEPT:
                    self._grants.clear()
                self._grants[key] = found
            return found
        except Exception as error:  # noqa: BLE001 - no answer from policy is a deny (J8)
            return Grants((), self.backends, self.tcp, fault=type(error).__name__)

    def decide(self, subject: Subject, backend: str, method: bytes, path: bytes) -> Allow | Deny:
        """Judge one request of a subject; `Grants.decide` for many."""
        return self.grants(subject).decide(backend, method, path)

    def connect(self, subject: Subject, backend: str) -> Allow | Deny:
        """Judge one TCP stream of a subject; `Grants.connect` for many."""
        return self.grants(subject).connect(backend)


def shown(text: bytes) -> str:
    """Bytes of a request for a sentence: printable ASCII, cut off when they are long."""
    clipped = text if len(text) <= _MAX_PATH_SHOWN else text[:_MAX_PATH_SHOWN] + b"..."
    return _UNPRINTABLE.sub(lambda found: b"\\x%02x" % found[0][0], clipped).decode("ascii")


def _internal(backend: str, fault: str) -> Deny:
    detail = f"The access rules could not be evaluated, so the request was refused: {fault}"
    return Deny(backend, DenyReason.INTERNAL, detail)


def _unknown(backend: str) -> Deny:
    return Deny(backend, DenyReason.UNKNOWN_BACKEND, "There is nothing by this name here.")


def _approver(roles: tuple[Role, ...]) -> Approver | None:
    """Breaking the glass comes last, so that it is recorded only when it was needed."""
    by_role = [Approver(role.name, break_glass=False) for role in roles if role.approve_agents]
    by_role += [Approver(role.name, break_glass=True) for role in roles if role.break_glass]
    return by_role[0] if by_role else None


def _tcp_grants(roles: tuple[Role, ...]) -> Mapping[str, Allow]:
    """The answer for each backend that one of the roles may connect to."""
    ordinary: dict[str, list[TcpRule]] = {}
    emergency: dict[str, list[TcpRule]] = {}
    for role in roles:
        for name, rule in role.tcp.items():
            ordinary.setdefault(name, []).append(rule)
        for name, rule in role.tcp_emergency.items():
            emergency.setdefault(name, []).append(rule)
    answers = {
        name: Allow(name, rules[0].text, tuple(sorted(rule.role for rule in rules)))
        for name, rules in ordinary.items()
    }
    for name, rules in emergency.items():
        # Breaking the glass is recorded only when it was needed.
        if name not in answers:
            named = tuple(sorted(rule.role for rule in rules))
            answers[name] = Allow(name, rules[0].text, named, break_glass=True)
    return answers


def _backend_grants(backend: str, roles: tuple[Role, ...]) -> _BackendGrants:
    ordinary = [rule for role in roles for rule in role.rules.get(backend, ())]
    bound = tuple(sorted(role.name for role in roles if backend in role.rules))
    # After every ordinary rule, so that breaking the glass is recorded only when it was needed.
    emergency = [role.emergency[backend] for role in roles if backend in role.emergency]
    everyone = tuple(sorted({*bound, *(rule.role for rule in emergency)}))
    judged = [(rule, Allow(backend, rule.text, bound)) for rule in ordinary]
    judged += [(rule, Allow(backend, rule.text, everyone, break_glass=True)) for rule in emergency]

    def entries(method: bytes) -> tuple[_Entry, ...]:
        return tuple(
            (rule.pattern.head, None if rule.pattern.head_decides else rule.pattern, allow)
            for rule, allow in judged
            if rule.covers(method)
        )

    words = {rule.method for rule in ordinary} - {ANY}
    named = EXPLICIT_ONLY.union(*(wire_methods(word) for word in words))
    by_method = {method: entries(method) for method in named}
    return _BackendGrants(by_method, entries(_UNNAMED), everyone)
