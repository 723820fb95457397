"""Several objects on one host: who answers, and whose the host is."""

from __future__ import annotations

from typing import Any

from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    at,
    backend,
    ingress,
    path,
    proxy,
    reasons,
    role,
    routes,
    rule,
    translated,
    web,
)

NOTES = {"roles": "viewers"}
SHARED = proxy(ingress={"hostOwnership": "InterNamespaceAllowed"})


def found(*made: Any, **keys: Any) -> Translation:
    spaces = ("shop", "bank")
    common = [one for space in spaces for one in web(space, address=f"10.1.0.{len(space)}")]
    return translated(
        *common, *web("shop", "two", "10.1.0.2"), *(role(f"{space}/viewers") for space in spaces),
        *made, **keys,
    )  # fmt: skip


def made(name: str, *rules: Any, age: int = 0, **spec: Any) -> dict[str, Any]:
    return ingress(name, *rules, notes=NOTES, created=at(age), **spec)


SHOP = ["http://10.1.0.4:8080"]
TWO = ["http://10.1.0.2:8080"]


def test_ingresses_of_one_namespace_share_a_host() -> None:
    merged = found(
        made("shop/a", rule("a.test", "/")), made("shop/b", rule("a.test", path("/b", "two")))
    )
    assert routes(merged) == {"a.test /": SHOP, "a.test /b": TWO}
    assert reasons(merged) == []


def test_of_two_equal_rules_the_older_wins() -> None:
    young = made("shop/a", rule("a.test", path("/x", "two"), "/y"), age=9)
    merged = found(young, made("shop/b", rule("a.test", "/x/"), age=1))
    assert routes(merged) == {"a.test /x": SHOP, "a.test /y": SHOP}
    [said] = merged.diagnostics
    assert (said.reason, said.name, said.field) == (
        "HostPathConflict", "a", "spec.rules[0].http.paths[0]"
    )  # fmt: skip
    assert "Ingress shop/b" in said.message


def test_at_one_age_the_name_decides() -> None:
    merged = found(
        made("shop/b", rule("a.test", "/")), made("shop/a", rule("a.test", path("/", "two")))
    )
    assert routes(merged) == {"a.test /": TWO}
    assert reasons(merged, "b") == ["HostPathConflict"]


def test_exact_and_prefix_of_one_path_are_two_rules() -> None:
    merged = found(made("shop/a", rule("a.test", "/x", path("/x", "two", kind="Exact"))))
    assert routes(merged) == {"a.test /x": SHOP, "a.test =/x": TWO}
    assert reasons(merged) == []


def test_two_spellings_of_a_path_are_one() -> None:
    merged = found(made("shop/a", rule("a.test", "/a!", path("/a%21", "two"))))
    assert routes(merged) == {"a.test /a!": SHOP}
    assert reasons(merged) == ["HostPathConflict"]


def test_of_foo_and_foo_slash_in_one_ingress_the_longer_wins() -> None:
    merged = found(made("shop/a", rule("a.test", "/foo", path("/foo/", "two"))))
    assert routes(merged) == {"a.test /foo": TWO}
    assert reasons(merged) == []


def test_a_namespace_cannot_take_anothers_host() -> None:
    merged = found(
        made("shop/a", rule("a.test", "/"), age=1),
        made("bank/a", rule("a.test", "/login"), rule("b.test", "/"), age=2),
    )
    assert set(routes(merged)) == {"a.test /", "b.test /"}
    [said] = merged.diagnostics
    assert (said.namespace, said.reason) == ("bank", "HostNotOwned")
    assert merged.owners == {"a.test": "shop", "b.test": "bank"}


def test_nor_what_anothers_older_wildcard_covers() -> None:
    merged = found(
        made("shop/a", rule("*.test", "/"), age=1), made("bank/a", rule("a.test", "/"), age=2)
    )
    assert set(routes(merged)) == {"*.test /"}
    assert reasons(merged) == ["HostNotOwned"]


def test_a_younger_wildcard_leaves_what_was_there() -> None:
    merged = found(
        made("shop/a", rule("*.test", "/"), age=2), made("bank/a", rule("a.test", "/"), age=1)
    )
    assert set(routes(merged)) == {"*.test /", "a.test /"}
    assert reasons(merged) == []


def test_an_edit_of_an_old_ingress_takes_no_host() -> None:
    first = found(made("shop/a", rule("a.test", "/"), age=5))
    stolen = made("bank/a", rule("a.test", "/login"), age=1)
    second = found(made("shop/a", rule("a.test", "/"), age=5), stolen, owners=first.owners)
    assert second.owners == first.owners
    assert second.document == first.document
    assert reasons(second) == ["HostNotOwned"]


def test_a_proxy_may_let_namespaces_share_hosts() -> None:
    merged = found(
        SHARED,
        made("shop/a", rule("a.test", "/"), age=1),
        made("bank/a", rule("a.test", "/login", "/"), age=2),
    )
    assert set(routes(merged)) == {"a.test /", "a.test /login"}
    assert reasons(merged) == ["HostPathConflict"]


def test_the_oldest_default_backend_of_a_host_has_the_rest() -> None:
    def rest(service: str) -> dict[str, Any]:
        return {"service": {"name": service, "port": {"number": 80}}}

    merged = found(
        made("shop/a", rule("a.test", "/x"), age=1),
        made("shop/b", rule("a.test", "/y"), age=2, defaultBackend=rest("two")),
        made("shop/c", rule("a.test", "/z"), age=3, defaultBackend=rest("web")),
    )
    assert routes(merged)["a.test /"] == TWO
    assert reasons(merged) == []


def test_a_rule_for_everything_comes_before_any_default_backend() -> None:
    rest = {"service": {"name": "two", "port": {"number": 80}}}
    merged = found(
        made("shop/a", rule("a.test", "/x"), age=1, defaultBackend=rest),
        made("shop/b", rule("a.test", "/"), age=2),
    )
    assert routes(merged)["a.test /"] == SHOP


def test_backends_and_ingresses_are_compared_alike() -> None:
    merged = found(
        backend("shop/app", host="a.test", created=at(1),
                http=[{"path": "/", "upstream": {"service": {"name": "two", "port": 80}}}]),
        made("shop/a", rule("a.test", "/", "/x"), age=2),
        made("bank/a", rule("a.test", "/y"), age=3),
    )  # fmt: skip
    assert routes(merged) == {"a.test /": TWO, "a.test /x": SHOP}
    assert reasons(merged) == ["HostNotOwned", "HostPathConflict"]


def test_streams_of_a_host_are_one_objects() -> None:
    tcp = {**NOTES, "tcp": "true"}
    merged = found(
        ingress("shop/a", rule("a.test", "/"), notes=tcp, created=at(1)),
        ingress("shop/b", rule("a.test", "/"), notes=tcp, created=at(2)),
        made("shop/c", rule("a.test", "/"), age=3),
    )
    assert [(one["name"], "tcp" in one) for one in merged.document["backends"]] == [
        ("ingress.shop.a", True), ("ingress.shop.c", False)
    ]  # fmt: skip
    assert reasons(merged) == ["HostPathConflict"]
