"""Roles, bindings and members."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from heim_controller.translation.settings import Settings
from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    SETTINGS,
    backend,
    binding,
    ingress,
    namespace,
    proxy,
    reasons,
    role,
    rule,
    translated,
    web,
)

HTTP = [{"path": "/", "upstream": {"service": {"name": "web", "port": 80}}}]
READ = [{"name": "read", "methods": ["GET"], "paths": ["/"]}]


def found(*made: Any, settings: Settings = SETTINGS) -> Translation:
    grafana = backend("shop/grafana", host="grafana.test", http=HTTP, permissions=READ,
                      tcp={"upstream": {"service": {"name": "web", "port": 80}}})  # fmt: skip
    return translated(*web("shop"), grafana, *made, settings=settings)


def roles(seen: Translation) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in seen.document["roles"]}


def gives(backend_: str, permission: str | None = None) -> dict[str, str]:
    one = {"backend": backend_}
    return one if permission is None else {**one, "permission": permission}


def test_a_role_gives_permissions_and_tcp() -> None:
    seen = found(role("shop/viewers", gives("grafana", "read"), gives("grafana")))
    assert roles(seen)["shop.viewers"]["bindings"] == [
        {"backend": "shop.grafana"},
        {"backend": "shop.grafana", "permission": "read"},
    ]
    assert reasons(seen) == []


def test_a_role_that_gives_nothing_is_not_there() -> None:
    assert roles(found(role("shop/idle"))) == {}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (gives("gone", "read"), "BackendNotFound"),
        (gives("grafana", "gone"), "PermissionNotFound"),
        (gives("bank/app", "all"), "CrossNamespaceReference"),
        (gives("a/b/c"), "CrossNamespaceReference"),
        (gives(""), "BackendNotFound"),
    ],
)
def test_a_permission_that_leads_nowhere_gives_nothing(given: dict[str, str], reason: str) -> None:
    seen = found(role("shop/viewers", given))
    assert roles(seen) == {}
    assert reasons(seen) == [reason]


def test_a_role_of_another_namespace_opens_nothing() -> None:
    seen = found(role("bank/thieves", gives("shop/grafana", "read"), gives("grafana", "read")))
    assert roles(seen) == {}
    assert reasons(seen) == ["BackendNotFound", "CrossNamespaceReference"]


def test_roles_of_the_proxys_namespace_speak_for_all() -> None:
    seen = found(role("heim/ops", gives("shop/grafana", "read")))
    assert roles(seen)["heim.ops"]["bindings"] == [
        {"backend": "shop.grafana", "permission": "read"}
    ]


def test_what_is_public_or_closed_is_not_given() -> None:
    made = [
        proxy(ingress={"allowPublic": {}}),
        backend("shop/open", host="open.test", http=HTTP, auth={"mode": "None"}),
        backend("shop/closed", host="closed.test"),
        role("shop/viewers", gives("open", "read"), gives("closed", "read")),
    ]
    seen = found(*made)
    assert roles(seen) == {}
    assert reasons(seen, "viewers") == ["BackendNotFound", "PermissionNotFound"]


@pytest.mark.parametrize(
    ("subject", "member"),
    [
        ({"user": "Alice@Example.test"}, {"user": "alice@example.test"}),
        ({"group": "team a"}, {"group": "team a"}),
        ({"group": "ops", "provider": "idp"}, {"group": "ops", "provider": "idp"}),
        ({"domain": "Example.TEST"}, {"domain": "example.test"}),
        ({"serviceAccount": "ci"}, {"service_account": "ci"}),
    ],
)
def test_subjects_become_members(subject: dict[str, str], member: dict[str, str]) -> None:
    settings = replace(SETTINGS, service_accounts=frozenset(("ci",)))
    seen = found(
        role("shop/viewers", gives("grafana", "read")), binding("shop/b", "viewers", subject),
        settings=settings,
    )  # fmt: skip
    assert roles(seen)["shop.viewers"]["members"] == [member]
    assert reasons(seen) == []


@pytest.mark.parametrize(
    "subject",
    [
        {}, {"user": "alice"}, {"user": "*@example.test"}, {"user": 7}, {"user": "a@b\n"},
        {"user": "a@example.test", "group": "x"}, {"group": ""}, {"group": " x"},
        {"group": "a\nb"}, {"group": "x" * 1025}, {"group": "x", "provider": "gone"},
        {"group": "x", "provider": ["idp"]}, {"domain": "*.example.test"}, {"domain": "10.0.0.1"},
        {"serviceAccount": "gone"}, {"kind": "User", "name": "alice"}, "alice",
    ],
    ids=str,
)  # fmt: skip
def test_a_subject_that_is_nobody_is_left_out(subject: Any) -> None:
    seen = found(
        role("shop/viewers", gives("grafana", "read")),
        binding("shop/b", "viewers", subject, {"user": "alice@example.test"}),
    )
    assert roles(seen)["shop.viewers"]["members"] in ([{"user": "alice@example.test"}], [])
    assert set(reasons(seen)) <= {"InvalidSubject", "InvalidObject"}
    assert reasons(seen)


def test_with_several_providers_a_group_names_its_own() -> None:
    two = replace(SETTINGS, providers={"a": frozenset(("a.test",)), "b": frozenset(("b.test",))})
    seen = found(
        role("shop/viewers", gives("grafana", "read")),
        binding("shop/b", "viewers", {"group": "ops"}, {"user": "x@c.test"},
                {"user": "x@a.test"}, {"group": "ops", "provider": "b"}),
        settings=two,
    )  # fmt: skip
    assert roles(seen)["shop.viewers"]["members"] == [
        {"group": "ops", "provider": "b"}, {"user": "x@a.test"}
    ]  # fmt: skip
    assert reasons(seen) == ["InvalidSubject", "InvalidSubject"]


def test_bindings_are_of_the_roles_namespace() -> None:
    seen = found(
        role("shop/viewers", gives("grafana", "read")),
        binding("bank/b", "viewers", {"user": "thief@example.test"}),
        binding("bank/c", "shop/viewers", {"user": "thief@example.test"}),
    )
    assert roles(seen)["shop.viewers"]["members"] == []
    assert reasons(seen) == ["RoleNotFound", "RoleNotFound"]


def test_great_privileges_are_the_proxys_namespaces() -> None:
    seen = found(
        role("heim/ops", breakGlass=True, approveAgents=True),
        role("shop/ops", gives("grafana", "read"), breakGlass=True, approveAgents=True),
    )
    assert roles(seen)["heim.ops"]["break_glass"] is True
    assert roles(seen)["heim.ops"]["approve_agents"] is True
    assert set(roles(seen)["shop.ops"]) == {"name", "members", "bindings"}
    assert reasons(seen) == ["PrivilegeNotAllowed"]


def test_an_ingress_may_name_a_role_of_another_namespace() -> None:
    seen = found(
        role("team/staff"), ingress("shop/x", rule("x.test", "/"), notes={"roles": "team/staff"})
    )
    assert roles(seen)["team.staff"]["bindings"] == [
        {"backend": "ingress.shop.x", "permission": "all"}
    ]


def test_roles_are_selected() -> None:
    chosen = proxy(roleSelector={"namespaceSelector": {"matchLabels": {"team": "a"}}})
    seen = found(
        chosen, namespace("shop"), role("shop/viewers", gives("grafana", "read")),
        ingress("shop/x", rule("x.test", "/"), notes={"roles": "viewers"}),
    )  # fmt: skip
    assert roles(seen) == {}
    assert reasons(seen) == ["RoleNotFound"]


def test_names_hold_no_dots() -> None:
    assert reasons(found(role("shop/a.b", gives("grafana", "read")))) == ["InvalidObject"]
