"""What is left out of a document that is too large."""

from __future__ import annotations

from typing import Any, Final

import pytest

from heim_controller.translation.document import canonical
from heim_controller.translation.shedding import shed, weigh
from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    PROXY,
    agent,
    at,
    backend,
    binding,
    certificate,
    challenge,
    cluster,
    ingress,
    loaded,
    namespace,
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

BANK: Final[list[Any]] = [
    *web("bank"), role("bank/tellers"), binding("bank/tellers", "tellers", {"user": "t@bank.test"}),
    ingress("bank/app", rule("bank.test", "/"), notes={"roles": "tellers"},
            tls=[{"hosts": ["bank.test"], "secretName": "tls"}]),
    certificate("bank/tls", "bank.test"), agent("bank/vault", "ssh"),
    backend("bank/own", host="own.bank.test",
            http=[{"path": "/", "upstream": {"service": {"name": "web", "port": 80}}}],
            auth={"roles": ["tellers"]}),
]  # fmt: skip
PUBLIC: Final = {"auth": "none"}
OPEN: Final = [
    proxy(ingress={"allowPublic": {"matchLabels": {"public": "yes"}}, "allowCatchAll": True}),
    namespace("bank", public="yes"),
]
SHARED: Final = [proxy(ingress={"hostOwnership": "InterNamespaceAllowed"})]


def heavy(name: str = "evil/x", host: str = "evil.test", count: int = 100) -> dict[str, Any]:
    paths = [f"/{number:03}{'x' * 100}" for number in range(count)]
    return ingress(name, rule(host, *paths), notes={"roles": "bank/tellers"})


def size(translation: Translation) -> int:
    return len(canonical(translation.document))


def fitted(*made: Any, limit: int = 6000) -> Translation:
    whole = translated(*made)
    assert size(whole) > limit
    found = shed(whole, limit=limit, proxy=PROXY)
    assert size(found) <= limit
    assert found.owners == whole.owners
    loaded(found)
    return found


def test_what_fits_stays_as_it_is() -> None:
    found = translated(*BANK)
    assert shed(found, limit=size(found), proxy=PROXY) is found


def test_others_have_the_same_bytes_with_and_without_the_heavy_one() -> None:
    made = [*web("evil"), role("evil/us"), agent("evil/a", "ssh"), heavy(),
            ingress("evil/tls", rule("t.evil.test", "/"),
                    tls=[{"hosts": ["t.evil.test"], "secretName": "tls"}]),
            certificate("evil/tls", "t.evil.test"),
            ingress("evil/acme", rule("evil.test", challenge("x" * 43))), *solver("evil"),
            ingress("evil/new", rule("new.test", challenge("y" * 43))),
            ingress("evil/asks", rule("evil.test", "/a"), notes={"roles": "bank/unused"}),
            ]  # fmt: skip
    bank = [*BANK, role("bank/unused"), *solver("bank"),
            ingress("bank/acme", rule("bank.test", challenge("x" * 43)))]  # fmt: skip
    found = fitted(*bank, *made)
    alone = translated(*bank)
    assert alone.document["acme_challenges"]
    assert canonical(found.document) == canonical(alone.document)
    assert found.secrets == alone.secrets


def test_each_object_and_the_proxy_are_told() -> None:
    found = fitted(*BANK, heavy(), heavy("evil/y", "y.evil.test"), role("evil/us"))
    for name in ("x", "y", "us"):
        [message] = [
            one.message for one in found.diagnostics if (one.name, one.reason) == (name, "TooLarge")
        ]
        assert "namespace evil takes 3" in message
        assert "6000 in all" in message
    assert "NamespaceLeftOut" in reasons(found, PROXY[1])
    assert "TooLarge" not in [*reasons(found, "app"), *reasons(found, PROXY[1])]
    assert {one.ref.name: (one.accepted, one.hosts) for one in found.served}["x"] == (False, ())
    assert list(found.diagnostics) == sorted(found.diagnostics)


def test_no_more_go_than_must_and_the_order_of_objects_does_not_show() -> None:
    made = [*BANK, heavy("a/x", "a.test", 60), heavy("b/x", "b.test", 90),
            heavy("c/x", "c.test", 60), heavy("d/x", "d.test", 1)]  # fmt: skip
    whole = translated(*made)
    found = fitted(*made, limit=size(whole) - 1)
    names = {one["name"] for one in found.document["backends"]}
    assert "ingress.b.x" not in names
    assert {"ingress.a.x", "ingress.c.x", "ingress.d.x", "ingress.bank.app"} <= names
    again = fitted(cluster(*reversed(made)), limit=size(whole) - 1)
    assert again == found
    # Of two that are the same the first by name.
    limit = size(whole) - weigh(whole)["b"] - 1
    fewer = {one["name"] for one in fitted(*made, limit=limit).document["backends"]}
    assert "ingress.a.x" not in fewer
    assert "ingress.c.x" in fewer


@pytest.mark.parametrize("broad", ["*.test", None], ids=["wildcard", "any host"])
def test_a_broader_rule_of_somebody_else_gets_nothing(broad: str | None) -> None:
    wide = ingress("bank/wide", rule(broad, "/"), notes=PUBLIC, created=at(50))
    found = fitted(*BANK, *OPEN, wide, heavy(host="evil.test"))
    assert "TooLarge" in routes(found)["evil.test /"][0]


def test_a_path_on_a_host_that_is_shared_stays_closed() -> None:
    evil = ingress("evil/y", rule("bank.test", "/mine", path("/one", kind="Exact")))
    found = fitted(*BANK, *SHARED, *web("evil"), heavy(), evil)
    assert "TooLarge" in routes(found)["bank.test /mine"][0]
    assert "TooLarge" in routes(found)["bank.test =/one"][0]
    assert "TooLarge" not in routes(found)["bank.test /"][0]


def test_a_backend_called_like_what_is_closed_is_not_taken_for_it() -> None:
    upstream = {"service": {"name": "web", "port": 80}}
    made = backend("closed/too-large", host="c.test", http=[{"path": "/", "upstream": upstream}])
    wide = ingress("bank/wide", rule("*.test", "/"), notes=PUBLIC, created=at(50))
    found = fitted(*BANK, *OPEN, wide, heavy(), *web("closed"), made)
    names = [one["name"] for one in found.document["backends"]]
    assert "closed.too-large" in names
    assert "closed.too-large.hosts" in names
    assert weigh(found)["closed"] > 0


@pytest.mark.parametrize(
    "made",
    [
        pytest.param([heavy("heim/x")], id="the Proxy's own namespace"),
        pytest.param(
            [*OPEN, ingress("bank/wide", rule("*.evil.test", "/"), notes=PUBLIC,
                            created=at(50)),
             *[ingress(f"evil/{n}", rule(f"{n:0>60}.evil.test", "/")) for n in range(100)]],
            id="what has to be closed",
        ),
    ],
)  # fmt: skip
def test_where_it_does_not_help_nothing_is_left_out(made: list[Any]) -> None:
    whole = translated(*BANK, *made)
    assert size(whole) > 4000
    assert shed(whole, limit=4000, proxy=PROXY) is whole


def test_what_is_asked_of_a_role_weighs_on_whoever_asks() -> None:
    made = [ingress(f"evil/{n}", rule("evil.test", f"/{n}"), notes={"roles": "bank/tellers"})
            for n in range(50)]  # fmt: skip
    before, after = weigh(translated(*BANK)), weigh(translated(*BANK, *made))
    assert after["bank"] == before["bank"]
    assert after["evil"] > 50 * 100
