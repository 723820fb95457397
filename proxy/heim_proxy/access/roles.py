"""Roles, bindings, permissions and locations, compiled to the rules that policy judges by.

The `Spec` classes are what configuration says, `Rule` and `Role` what it means. References are
checked here again although configuration was validated before: an access rule that points nowhere
must never be skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from heim_proxy.access.members import MemberSpec, canonical_member
from heim_proxy.access.patterns import Pattern, compile_pattern

__all__ = [
    "ANY",
    "EXPLICIT_ONLY",
    "BindingSpec",
    "LocationSpec",
    "PermissionSpec",
    "Role",
    "RoleSpec",
    "Rule",
    "TcpRule",
    "compile_roles",
    "wire_methods",
]

# The location word that covers every method but `EXPLICIT_ONLY`.
ANY: Final = "any"

# TRACE echoes a request's credentials back to scripts, CONNECT asks for a socket: neither is meant
# by "any", nor by break-glass. The edge answers both with 405 before it asks (C20).
EXPLICIT_ONLY: Final = frozenset((b"TRACE", b"CONNECT"))

# A location word and the wire methods it covers. HEAD is GET without the body, so whoever may read
# may ask for it (C26); a `head` location alone does not read.
_METHODS: Final[Mapping[str, frozenset[bytes]]] = {
    "get": frozenset((b"GET", b"HEAD")),
    "head": frozenset((b"HEAD",)),
    "post": frozenset((b"POST",)),
    "put": frozenset((b"PUT",)),
    "patch": frozenset((b"PATCH",)),
    "delete": frozenset((b"DELETE",)),
    "options": frozenset((b"OPTIONS",)),
    "trace": frozenset((b"TRACE",)),
    "connect": frozenset((b"CONNECT",)),
}


@dataclass(frozen=True, slots=True)
class LocationSpec:
    """A method word (`any`, `get`, ... in either case) and a pattern with a canonical path."""

    method: str
    pattern: bytes


@dataclass(frozen=True, slots=True)
class PermissionSpec:
    """A named set of locations of one backend. Without locations it allows nothing."""

    backend: str
    name: str
    locations: tuple[LocationSpec, ...]


@dataclass(frozen=True, slots=True)
class BindingSpec:
    """What a role gives on a backend: a permission for http, its tcp with `permission` None."""

    backend: str
    permission: str | None = None


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A named set of members with bindings.

    A `break_glass` role allows everything on every backend, over tcp too, and says so in the
    decision. Its bindings, if it has any, are what its members may do on an ordinary day without it
    being said. Members of an `approve_agents` role, and of a break-glass one, may let agents in.
    """

    name: str
    members: tuple[MemberSpec, ...]
    bindings: tuple[BindingSpec, ...] = ()
    break_glass: bool = False
    approve_agents: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """One location of one binding of one role; `permission` is None for break-glass."""

    role: str
    backend: str
    permission: str | None
    method: str
    pattern: Pattern

    @property
    def text(self) -> str:
        """How decisions, logs and explanations name it."""
        if self.permission is None:
            return f"role {self.role}: break-glass"
        where = f"{self.backend}/{self.permission}"
        return f"role {self.role}: {where} {self.method} {self.pattern.text}"

    def covers(self, method: bytes) -> bool:
        """Whether the rule is about a wire `method`; methods are case-sensitive (RFC 9110, 9.1)."""
        if self.method == ANY:
            return method not in EXPLICIT_ONLY
        return method in _METHODS[self.method]


@dataclass(frozen=True, slots=True)
class TcpRule:
    """The binding of one role to a backend's tcp; there is nothing finer to allow."""

    role: str
    backend: str
    break_glass: bool = False

    @property
    def text(self) -> str:
        """How decisions, logs and explanations name it."""
        if self.break_glass:
            return f"role {self.role}: break-glass"
        return f"role {self.role}: {self.backend} tcp"


@dataclass(frozen=True, slots=True)
class Role:
    """A compiled role: its rules by backend in configuration order, break-glass ones apart.

    What it says about http and what it says about tcp never meet: each has mappings of its own.
    """

    name: str
    members: tuple[MemberSpec, ...]
    rules: Mapping[str, tuple[Rule, ...]]
    emergency: Mapping[str, Rule]
    tcp: Mapping[str, TcpRule]
    tcp_emergency: Mapping[str, TcpRule]
    break_glass: bool = False
    approve_agents: bool = False


def wire_methods(word: str) -> frozenset[bytes]:
    """The wire methods a location word other than `any` names."""
    return _METHODS[word]


def compile_roles(
    *,
    backends: frozenset[str],
    tcp: frozenset[str],
    permissions: Iterable[PermissionSpec],
    roles: Iterable[RoleSpec],
) -> tuple[Role, ...]:
    """Compile roles in their order; see `Policy.compile` for what is refused with ValueError."""
    named: dict[tuple[str, str], tuple[tuple[str, Pattern], ...]] = {}
    for spec in permissions:
        if spec.backend not in backends:
            raise ValueError(f"permission {spec.name!r}: there is no backend {spec.backend!r}")
        if (spec.backend, spec.name) in named:
            raise ValueError(f"permission {spec.name!r} of {spec.backend!r} is defined twice")
        named[spec.backend, spec.name] = tuple(_location(found) for found in spec.locations)
    compiled: dict[str, Role] = {}
    for role in roles:
        if role.name in compiled:
            raise ValueError(f"role {role.name!r} is defined twice")
        compiled[role.name] = _role(role, named, backends, tcp)
    return tuple(compiled.values())


def _location(spec: LocationSpec) -> tuple[str, Pattern]:
    word = spec.method.lower()
    if word != ANY and word not in _METHODS:
        raise ValueError(f"location: unknown method {spec.method!r}")
    return word, compile_pattern(spec.pattern)


def _role(
    spec: RoleSpec,
    named: Mapping[tuple[str, str], tuple[tuple[str, Pattern], ...]],
    known: frozenset[str],
    tcp: frozenset[str],
) -> Role:
    rules: dict[str, list[Rule]] = {}
    streams: dict[str, TcpRule] = {}
    for binding in spec.bindings:
        if binding.permission is None:
            if binding.backend not in tcp:
                raise ValueError(f"role {spec.name!r}: there is no tcp backend {binding.backend!r}")
            streams[binding.backend] = TcpRule(spec.name, binding.backend)
            continue
        locations = named.get((binding.backend, binding.permission))
        if locations is None:
            wanted = f"{binding.backend}/{binding.permission}"
            raise ValueError(f"role {spec.name!r}: there is no permission {wanted!r}")
        rules.setdefault(binding.backend, []).extend(
            Rule(spec.name, binding.backend, binding.permission, method, pattern)
            for method, pattern in locations
        )
    everything = compile_pattern(b"/")
    return Role(
        name=spec.name,
        # Listed twice is still one member, also where explanations count them.
        members=tuple(dict.fromkeys(canonical_member(member) for member in spec.members)),
        rules={backend: tuple(found) for backend, found in rules.items()},
        emergency={name: Rule(spec.name, name, None, ANY, everything) for name in sorted(known)}
        if spec.break_glass
        else {},
        tcp=streams,
        tcp_emergency={name: TcpRule(spec.name, name, break_glass=True) for name in sorted(tcp)}
        if spec.break_glass
        else {},
        break_glass=spec.break_glass,
        approve_agents=spec.approve_agents,
    )
