"""Which Secret is shown for which host."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from heim_controller.translation.certificates import mirror_name
from heim_controller.translation.translate import Translation
from tests.fakes.kube_objects import (
    at,
    certificate,
    ingress,
    proxy,
    reasons,
    role,
    rule,
    translated,
    web,
)

DAY = 86400.0


def app(name: str, host: str, *tls: dict[str, Any], age: int = 0) -> list[Any]:
    space = name.split("/", maxsplit=1)[0]
    made = ingress(name, rule(host, "/"), notes={"roles": "viewers"}, tls=list(tls),
                   created=at(age))  # fmt: skip
    return [*web(space), role(f"{space}/viewers"), made]


def entry(secret: str, *hosts: str) -> dict[str, Any]:
    return {"secretName": secret, "hosts": list(hosts)}


def shown(found: Translation) -> list[tuple[str, list[str]]]:
    certificates = found.document["tls"]["certificates"]
    return [(one["secret"], one.get("hosts", [])) for one in certificates]


def test_a_secret_is_shown_for_the_hosts_of_its_entry() -> None:
    found = translated(
        *app("shop/web", "a.test", entry("tls", "a.test")), certificate("shop/tls", "a.test")
    )
    assert shown(found) == [("shop.tls", ["a.test"])]
    assert found.secrets == {("shop", "tls")}
    assert reasons(found) == []


def test_a_wildcard_certificate_is_for_one_label() -> None:
    made = app("shop/web", "a.test", entry("tls", "a.test", "b.test", "x.b.test"))
    found = translated(*made, certificate("shop/tls", "*.test"))
    assert shown(found) == [("shop.tls", ["a.test", "b.test"])]
    [said] = found.diagnostics
    assert (said.reason, "x.b.test" in said.message) == ("TLSSecretInvalid", True)


def test_without_hosts_the_certificate_says_which() -> None:
    made = app("shop/web", "a.test", entry("tls"))
    found = translated(*made, certificate("shop/tls", "a.test", "bank.test"))
    assert shown(found) == [("shop.tls", ["a.test"])]
    assert reasons(found) == []


def test_without_a_secret_the_default_is_served() -> None:
    found = translated(*app("shop/web", "a.test", {"hosts": ["a.test"]}))
    assert shown(found) == []
    assert reasons(found) == []


def test_a_missing_secret_costs_no_route() -> None:
    found = translated(*app("shop/web", "a.test", entry("tls", "a.test")))
    assert reasons(found) == ["TLSSecretMissing"]
    assert shown(found) == []
    assert len(found.document["backends"]) == 1
    [served] = [one for one in found.served if one.ref.kind == "Ingress"]
    assert (served.accepted, served.resolved) == (True, False)


def test_a_secret_of_another_namespace_cannot_be_named() -> None:
    made = app("shop/web", "a.test", entry("bank/tls", "a.test"))
    found = translated(*made, certificate("bank/tls", "a.test"))
    assert found.secrets == frozenset()


def test_the_first_usable_secret_of_a_host_stays() -> None:
    found = translated(
        *app("shop/b", "a.test", entry("old", "a.test"), age=1),
        *app("shop/a", "a.test", entry("new", "a.test"), age=2),
        certificate("shop/old", "other.test"),
        certificate("shop/new", "a.test"),
    )
    assert shown(found) == [("shop.new", ["a.test"])]


def test_a_certificate_for_anothers_host_is_never_served() -> None:
    found = translated(
        *app("shop/web", "a.test", age=1),
        *app("bank/web", "b.test", entry("stolen", "b.test", "a.test"), age=2),
        certificate("bank/stolen", "a.test", "b.test"),
    )
    assert shown(found) == [("bank.stolen", ["b.test"])]


def test_nor_one_for_the_login_host() -> None:
    made = app("shop/web", "a.test", entry("tls", "auth.example.test"))
    found = translated(*made, certificate("shop/tls", "auth.example.test"))
    assert shown(found) == []
    assert reasons(found) == ["HostNotOwned"]


def test_what_was_last_good_is_shown_while_the_secret_is_bad() -> None:
    made = app("shop/web", "a.test", entry("tls", "a.test"))
    broken = certificate("shop/tls", "a.test", problem="tls.key is of another certificate")
    found = translated(*made, broken)
    assert shown(found) == [("shop.tls", ["a.test"])]
    [said] = found.diagnostics
    assert said.reason == "TLSSecretInvalid"
    assert "last good" in said.message


def test_what_was_never_good_is_not() -> None:
    made = app("shop/web", "a.test", entry("tls", "a.test"))
    found = translated(*made, certificate("shop/tls", problem="tls.crt is not PEM"))
    assert shown(found) == []
    assert reasons(found) == ["TLSSecretInvalid"]


def test_time_is_given_and_not_read() -> None:
    made = [*app("shop/web", "a.test", entry("tls", "a.test")),
            certificate("shop/tls", "a.test", not_after=30 * DAY)]  # fmt: skip
    assert reasons(translated(*made)) == []
    assert reasons(translated(*made, now=20 * DAY)) == []
    assert reasons(translated(*made, now=24 * DAY)) == ["CertificateExpiring"]
    expired = translated(*made, now=30 * DAY)
    assert (reasons(expired), shown(expired)) == (["TLSSecretInvalid"], [])


def test_a_certificate_that_wants_stapling_is_said() -> None:
    made = app("shop/web", "a.test", entry("tls", "a.test"))
    found = translated(*made, certificate("shop/tls", "a.test", must_staple=True))
    assert reasons(found) == ["MustStapleUnsupported"]
    assert shown(found) == [("shop.tls", ["a.test"])]


def test_the_proxys_certificates_come_first_and_by_their_own_names() -> None:
    found = translated(
        proxy(certificates=["wild", "edge/two", "gone"]),
        *app("shop/web", "a.test", entry("tls", "a.test")),
        certificate("heim/wild", "*.example.test"),
        certificate("edge/two", "two.test"),
        certificate("shop/tls", "a.test"),
    )
    assert shown(found) == [
        ("heim.wild", []), ("edge.two", []), ("shop.tls", ["a.test"]),
    ]  # fmt: skip
    assert found.secrets == {("heim", "wild"), ("edge", "two"), ("shop", "tls")}
    assert [(one.kind, one.reason) for one in found.diagnostics] == [("Proxy", "TLSSecretMissing")]


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


@given(LABELS, NAMES, LABELS, NAMES)
def test_two_secrets_never_share_a_mirror(a: str, b: str, c: str, d: str) -> None:
    assert (mirror_name((a, b)) == mirror_name((c, d))) is ((a, b) == (c, d))


def test_a_long_name_is_mirrored_under_a_short_one() -> None:
    one = mirror_name(("a" * 63, "b" * 253))
    assert len(one) <= 253
    assert one != mirror_name(("a" * 63, "c" * 253))
    assert "." not in one


def test_a_namespaces_wildcard_is_not_shown_where_the_proxy_has_one() -> None:
    """Else whoever names *.test first breaks TLS of everybody below it, and of the login host."""
    found = translated(
        proxy(certificates=["heim/shared"]),
        certificate("heim/shared", "*.Test"),
        *app("bank/web", "bank.test"),
        *app("evil/web", "*.test", entry("tls", "*.test", "evil.test"), age=9),
        certificate("evil/tls", "*.test"),
    )
    assert shown(found) == [("heim.shared", []), ("evil.tls", ["evil.test"])]


def test_a_wildcard_that_only_a_namespace_has_is_shown() -> None:
    found = translated(
        *app("shop/web", "*.shop.test", entry("tls", "*.shop.test")),
        certificate("shop/tls", "*.shop.test"),
    )
    assert shown(found) == [("shop.tls", ["*.shop.test"])]


def test_thousands_of_hosts_and_names_are_compared_in_no_time() -> None:
    hosts = [f"h{number}.test" for number in range(5000)]
    made = ingress("shop/web", rule("a.test", "/"), notes={"roles": "viewers"},
                   tls=[entry("tls", *hosts)])  # fmt: skip
    names = [f"n{number}.test" for number in range(20000)]
    began = time.process_time()
    found = translated(
        *web("shop"), role("shop/viewers"), made, certificate("shop/tls", *names, "h7.test")
    )
    assert shown(found) == [("shop.tls", ["h7.test"])]
    assert time.process_time() - began < 4
