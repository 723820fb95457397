from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kube_objects import binding, role
from tests.fakes.kube_schema import complaints, complaints_of_change

USER = {"user": "alice@example.com"}

GOOD: dict[str, dict[str, Any]] = {
    "nothing": role("shop/viewers"),
    "words": role("shop/viewers", title="Whoever may look", description="Read only."),
    "permissions": role(
        "shop/editors",
        {"backend": "wiki", "permission": "all"},
        {"backend": "wiki"},
        {"backend": "other/wiki", "permission": "read"},
    ),
    "privileges": role("heim/admins", breakGlass=True, approveAgents=True),
    "every kind of subject": binding(
        "shop/viewers",
        "viewers",
        USER,
        {"group": "Engineering Team"},
        {"group": "devs", "provider": "keycloak"},
        {"domain": "example.com"},
        {"serviceAccount": "ci"},
    ),
    "nobody": binding("shop/viewers", "viewers"),
    "a binding may have dots in its name": binding("shop/viewers.extra", "viewers", USER),
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a permission without backend": (role("a/b", {"permission": "all"}), "backend: is required"),
    "a backend with a dot": (role("a/b", {"backend": "ingress.a.b"}), "permissions[0].backend"),
    "break glass as text": (role("a/b", breakGlass="true"), "is not boolean"),
    "a title that is a book": (role("a/b", title="a" * 121), "spec.title"),
    "a name with a dot": (role("a/b.c"), "metadata.name"),
    "two subjects in one": (binding("a/b", "c", {**USER, "group": "x"}), "exactly one"),
    "nobody as a subject": (binding("a/b", "c", {}), "exactly one"),
    "a subject of Kubernetes": (
        binding("a/b", "c", {"kind": "User", "name": "x"}), "kind: is not known",
    ),
    "a provider of a user": (binding("a/b", "c", {**USER, "provider": "x"}), "only groups"),
    "a domain with an at": (binding("a/b", "c", {"domain": "@example.com"}), "domain"),
    "a role of another namespace": (binding("a/b", "other/c", USER), "roleRef.name"),
    "too many subjects": (
        binding("a/b", "c", *({"group": f"g{n}"} for n in range(1025))), "too many",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_is_taken(case: str) -> None:
    assert complaints(GOOD[case]) == []


@pytest.mark.parametrize("case", BAD)
def test_is_refused(case: str) -> None:
    made, place = BAD[case]
    assert place in "; ".join(complaints(made))


def test_a_binding_stays_with_its_role() -> None:
    before = binding("a/b", "c", USER)
    assert complaints_of_change(before, binding("a/b", "c", {"group": "x"})) == []
    [said] = complaints_of_change(before, binding("a/b", "d", USER))
    assert "roleRef cannot be changed" in said
