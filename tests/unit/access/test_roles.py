from __future__ import annotations

from collections.abc import Sequence

import pytest

from heim_proxy.access.members import DomainMember, UserMember
from heim_proxy.access.patterns import compile_pattern
from heim_proxy.access.roles import (
    ANY,
    BindingSpec,
    LocationSpec,
    PermissionSpec,
    Role,
    RoleSpec,
    Rule,
    TcpRule,
    compile_roles,
    wire_methods,
)

ALICE = UserMember("alice@example.com")
EVERYTHING = (LocationSpec("any", b"/"),)
ALL = PermissionSpec("app", "all", EVERYTHING)


def compiled(
    roles: Sequence[RoleSpec], permissions: Sequence[PermissionSpec] = (ALL,)
) -> tuple[Role, ...]:
    return compile_roles(
        backends=frozenset(("app", "db")),
        tcp=frozenset(("db", "ssh")),
        permissions=permissions,
        roles=roles,
    )


def rule(method: str, pattern: bytes = b"/") -> Rule:
    return Rule("dev", "app", "all", method, compile_pattern(pattern))


COVERED = {
    "any": "GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND FOO",
    "get": "GET HEAD",
    "head": "HEAD",
    "post": "POST",
    "put": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
    "options": "OPTIONS",
    "trace": "TRACE",
    "connect": "CONNECT",
}
WIRE = [*COVERED["any"].split(), "TRACE", "CONNECT", "get", ""]


@pytest.mark.parametrize("word", COVERED)
def test_location_covers_its_methods_and_no_other(word: str) -> None:
    """C25, C26: HEAD goes with GET; TRACE and CONNECT only by name; unknown ones only by any."""
    covered = {method for method in WIRE if rule(word).covers(method.encode())}
    # Methods are case-sensitive: "get" is just a method nobody names. The edge refuses it (C24).
    assert covered == set(COVERED[word].split()) | ({"get", ""} if word == "any" else set())


def test_wire_methods_are_what_a_word_covers() -> None:
    assert all(rule(word).covers(m) for word in COVERED if word != ANY for m in wire_methods(word))


def test_rule_is_named_by_role_permission_and_location() -> None:
    assert rule("get", b"=/a/*").text == "role dev: app/all get =/a/*"


def test_rules_keep_the_order_of_configuration() -> None:
    read = PermissionSpec("app", "read", (LocationSpec("get", b"/b"), LocationSpec("head", b"/a")))
    bindings = (BindingSpec("app", "read"), BindingSpec("app", "all"))
    (role,) = compiled([RoleSpec("dev", (ALICE,), bindings)], (ALL, read))
    assert [found.text for found in role.rules["app"]] == [
        "role dev: app/read get /b",
        "role dev: app/read head /a",
        "role dev: app/all any /",
    ]
    assert not role.emergency


def test_method_words_may_be_upper_case() -> None:
    read = PermissionSpec("app", "read", (LocationSpec("GET", b"/"),))
    (role,) = compiled([RoleSpec("dev", (ALICE,), (BindingSpec("app", "read"),))], (read,))
    assert [found.method for found in role.rules["app"]] == ["get"]


def test_break_glass_role_has_a_rule_for_every_backend() -> None:
    (role,) = compiled([RoleSpec("emergency", (ALICE,), break_glass=True)])
    assert sorted(role.emergency) == ["app", "db"]
    assert role.emergency["db"].text == "role emergency: break-glass"
    assert role.emergency["db"].pattern.matches(b"/anything")
    assert not role.rules


def test_break_glass_role_has_a_tcp_rule_for_every_backend_with_tcp() -> None:
    (role,) = compiled([RoleSpec("emergency", (ALICE,), break_glass=True)])
    assert sorted(role.tcp_emergency) == ["db", "ssh"]
    assert role.tcp_emergency["ssh"].text == "role emergency: break-glass"
    assert not role.tcp


def test_binding_without_permission_is_a_tcp_rule_and_nothing_else() -> None:
    twice = (BindingSpec("ssh"), BindingSpec("db"), BindingSpec("ssh"))
    (role,) = compiled([RoleSpec("dev", (ALICE,), twice)])
    assert list(role.tcp.values()) == [TcpRule("dev", "ssh"), TcpRule("dev", "db")]
    assert role.tcp["ssh"].text == "role dev: ssh tcp"
    assert (role.rules, role.emergency, role.tcp_emergency) == ({}, {}, {})


def test_binding_with_permission_gives_no_tcp() -> None:
    everything = PermissionSpec("db", "all", EVERYTHING)
    (role,) = compiled([RoleSpec("dev", (ALICE,), (BindingSpec("db", "all"),))], (everything,))
    assert sorted(role.rules) == ["db"]
    assert not role.tcp


def test_members_are_normalised_and_counted_once() -> None:
    twice = (UserMember("Alice@Example.com"), ALICE, DomainMember("EXAMPLE.com"))
    (role,) = compiled([RoleSpec("dev", twice)])
    assert role.members == (ALICE, DomainMember("example.com"))


def dev(binding: BindingSpec) -> RoleSpec:
    return RoleSpec("dev", (ALICE,), (binding,))


REFUSED = [
    ("permission of an unknown backend", (), (PermissionSpec("web", "p", ()),), "backend 'web'"),
    ("permission twice", (), (ALL, ALL), "'all' of 'app' is defined twice"),
    ("role twice", (RoleSpec("dev", ()), RoleSpec("dev", ())), (ALL,), "'dev' is defined twice"),
    ("binding to an unknown backend", (dev(BindingSpec("web", "all")),), (ALL,), "'web/all'"),
    ("binding to an unknown permission", (dev(BindingSpec("app", "x")),), (ALL,), "'app/x'"),
    ("permission of another backend", (dev(BindingSpec("db", "all")),), (ALL,), "'db/all'"),
    (
        "unknown method",
        (),
        (PermissionSpec("app", "p", (LocationSpec("gte", b"/"),)),),
        "unknown method 'gte'",
    ),
    (
        "bad pattern",
        (),
        (PermissionSpec("app", "p", (LocationSpec("get", b"/a*"),)),),
        "whole segment",
    ),
    ("tcp of a backend without it", (dev(BindingSpec("app")),), (ALL,), "no tcp backend 'app'"),
    ("tcp of an unknown backend", (dev(BindingSpec("web")),), (ALL,), "no tcp backend 'web'"),
    ("permission of tcp", (dev(BindingSpec("ssh", "all")),), (ALL,), "no permission 'ssh/all'"),
    ("permission for tcp", (), (PermissionSpec("ssh", "p", ()),), "no backend 'ssh'"),
    ("empty member", (RoleSpec("dev", (UserMember(""),)),), (ALL,), "empty"),
]


@pytest.mark.parametrize(
    ("roles", "permissions", "message"), [pytest.param(*c[1:], id=c[0]) for c in REFUSED]
)
def test_rules_that_point_nowhere_are_refused(
    roles: tuple[RoleSpec, ...], permissions: tuple[PermissionSpec, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(roles, permissions)
