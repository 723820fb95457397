"""Challenges of a certificate authority: let through by one exact rule."""

from __future__ import annotations

from typing import Any

import pytest

from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    at,
    challenge,
    ingress,
    path,
    proxy,
    reasons,
    role,
    routes,
    rule,
    solver,
    translated,
    web,
)

TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
WHERE = f"/.well-known/acme-challenge/{TOKEN}"
SOLVED = {"host": "a.test", "token": TOKEN, "upstreams": ["http://10.1.9.9:8089"]}


def found(*made: Any, **keys: Any) -> Translation:
    return translated(*web("shop"), *web("bank"), role("shop/viewers"), *made, **keys)


def app(**keys: Any) -> dict[str, Any]:
    return ingress("shop/app", rule("a.test", "/"), notes={"roles": "viewers"}, **keys)


def solving(space: str = "shop", host: str | None = "a.test", **keys: Any) -> list[Any]:
    """The Ingress and the Service that cert-manager makes."""
    kind = keys.pop("kind", "Exact")
    created = keys.pop("created", at(99))
    made = ingress(
        f"{space}/cm-acme-http-solver-x",
        rule(host, challenge(TOKEN, kind=kind)),
        created=created,
        labels={"acme.cert-manager.io/http01-solver": "true"},
    )
    return [made, *solver(space)]


def test_a_solver_in_the_hosts_namespace_is_let_through() -> None:
    seen = found(app(), *solving())
    assert seen.document["acme_challenges"] == [SOLVED]
    assert list(routes(seen)) == ["a.test /"]
    assert reasons(seen) == []


def test_implementation_specific_means_exact_here() -> None:
    seen = found(app(), *solving(kind="ImplementationSpecific"))
    assert seen.document["acme_challenges"] == [SOLVED]


def test_editing_in_place_is_the_same() -> None:
    edited = ingress("shop/app", rule("a.test", "/", challenge(TOKEN)), notes={"roles": "viewers"})
    seen = found(edited, *solver("shop"))
    assert seen.document["acme_challenges"] == [SOLVED]
    assert list(routes(seen)) == ["a.test /"]


def test_a_host_without_anything_else_can_have_its_first_certificate() -> None:
    seen = found(*solving())
    assert seen.document["acme_challenges"] == [SOLVED]
    assert seen.document["backends"] == []
    # It named no host: whoever does next is not too late.
    assert seen.owners == {}


def test_a_solver_never_owns_a_host() -> None:
    seen = found(*solving("bank", created=at(0)), app(created=at(5)))
    assert list(routes(seen)) == ["a.test /"]
    assert seen.document["acme_challenges"] == []
    assert reasons(seen) == ["ACMEHostNotOwned"]


@pytest.mark.parametrize("owner", ["a.test", "*.test"])
def test_a_solver_of_another_namespace_is_not(owner: str) -> None:
    one = ingress("shop/app", rule(owner, "/"), notes={"roles": "viewers"})
    seen = found(one, *solving("bank"))
    assert seen.document["acme_challenges"] == []
    assert reasons(seen) == ["ACMEHostNotOwned"]
    assert all(TOKEN not in where for where in routes(seen))


def test_sharing_hosts_is_not_sharing_certificates() -> None:
    shared = proxy(ingress={"hostOwnership": "InterNamespaceAllowed"})
    assert found(shared, app(), *solving("bank")).document["acme_challenges"] == []


def test_the_proxys_namespace_solves_for_all() -> None:
    seen = found(app(), *solving("heim"))
    assert seen.document["acme_challenges"] == [SOLVED]
    assert reasons(seen) == []


def test_the_login_host_is_the_proxys() -> None:
    login = "auth.example.test"
    assert len(found(*solving("heim", login)).document["acme_challenges"]) == 1
    seen = found(*solving("shop", login))
    assert seen.document["acme_challenges"] == []
    assert reasons(seen) == ["ACMEHostNotOwned"]


def test_suffixes_hold_for_solvers_too() -> None:
    narrow = proxy(ingress={"hostSuffixes": [{"suffixes": ["example.test"]}]})
    seen = found(narrow, *solving())
    assert seen.document["acme_challenges"] == []
    assert reasons(seen) == ["ACMEHostNotOwned"]


def test_of_two_solvers_for_nobodys_host_the_older_is_let_through() -> None:
    seen = found(*solving("shop", created=at(2)), *solving("bank", created=at(1)))
    assert seen.document["acme_challenges"] == [SOLVED]
    assert [one.namespace for one in seen.diagnostics] == ["shop"]


@pytest.mark.parametrize("host", [None, "*.test", "10.0.0.1"])
def test_a_challenge_has_one_host(host: str | None) -> None:
    seen = found(*solving(host=host))
    assert seen.document["acme_challenges"] == []
    assert routes(seen) == {}


def test_a_solver_that_is_not_ready_is_no_ordinary_rule() -> None:
    seen = found(app(), *solving()[:2])
    assert seen.document["acme_challenges"] == []
    assert list(routes(seen)) == ["a.test /"]
    assert reasons(seen) == []


def ordinary(*made: Any, wanted: dict[str, Any]) -> None:
    """The path is a rule like any other: nobody without a role reaches it."""
    one = ingress("shop/app", rule("a.test", wanted), notes={"roles": "viewers"})
    seen = found(one, *made)
    assert seen.document["acme_challenges"] == []
    [backend] = seen.document["backends"]
    assert not backend.get("public")


@pytest.mark.parametrize(
    "wanted",
    [
        challenge(TOKEN, kind="Prefix"),
        challenge("short"),
        challenge(TOKEN + "/x"),
        path(WHERE, "cm-acme-http-solver-x", kind="Exact", port=80),
        path("/.well-known/acme-challenge/", "cm-acme-http-solver-x", port=8089),
        path("/admin", "cm-acme-http-solver-x", kind="Exact", port=8089),
    ],
)
def test_nothing_wider_is_a_challenge(wanted: dict[str, Any]) -> None:
    ordinary(*solver("shop"), wanted=wanted)


def test_a_label_on_the_ingress_decides_nothing() -> None:
    ordinary(*solver("shop", app="web"), wanted=challenge(TOKEN))


def test_a_label_of_another_value_is_none() -> None:
    made = solver("shop", **{"acme.cert-manager.io/http01-solver": "yes"})
    ordinary(*made, wanted=challenge(TOKEN))
