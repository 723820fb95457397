"""What programs are told about a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.portal.reachable import Reachable, reachable, service_domains, token_domains
from tests.fakes.sessions import ALICE, BOB
from tests.fakes.snapshots import app, configured, role, snapshot


def tcp(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "tcp": {"upstream": "10.0.0.5:22"}, **keys}


def connects(name: str, *backends: str, members: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "name": name,
        "members": members,
        "bindings": [{"backend": backend} for backend in backends],
    }


ALICES = [{"user": "alice@example.test"}]
ROLES = [role("dev", "wiki/all"), connects("ssh", "db", "web", members=ALICES)]
BOTH = {**app("web"), "tcp": {"upstream": "10.0.0.6:22"}}


def test_backends_are_listed_by_name_and_by_how_they_are_used() -> None:
    made = snapshot(
        configured([app("wiki"), tcp("db"), BOTH, tcp("secret")],
                   [*ROLES, role("web", "web/all")])
    )  # fmt: skip
    assert reachable(made, ALICE) == (
        Reachable("db", "tcp", "db.example.test", "https://db.example.test"),
        Reachable("web", "http", "web.example.test", "https://web.example.test/"),
        Reachable("web", "tcp", "web.example.test", "https://web.example.test"),
        Reachable("wiki", "http", "wiki.example.test", "https://wiki.example.test/"),
    )


def test_nobody_sees_what_they_may_not_use() -> None:
    made = snapshot(configured([app("wiki"), tcp("db"), BOTH], ROLES))
    assert reachable(made, BOB) == ()


def test_addresses_carry_the_public_port() -> None:
    made = snapshot(configured([tcp("db"), BOTH, app("wiki")], ROLES, public_port=8443))
    assert [one.url for one in reachable(made, ALICE)] == [
        "https://db.example.test:8443",
        "https://web.example.test:8443",
        "https://wiki.example.test:8443/",
    ]
    assert {one.host for one in reachable(made, ALICE)} == {
        "db.example.test", "web.example.test", "wiki.example.test",
    }  # fmt: skip


def test_a_service_account_sees_what_it_may_use() -> None:
    members = [{"service_account": "backup"}]
    made = snapshot(
        configured([tcp("db")], [connects("r", "db", members=members)],
                   service_accounts=[{"name": "backup"}])
    )  # fmt: skip
    backup = Subject(SubjectKind.SERVICE_ACCOUNT, issuer="heim", subject="backup", provider="heim")
    assert [one.name for one in reachable(made, backup)] == ["db"]


@pytest.mark.parametrize(
    ("hosts", "domains"),
    [
        pytest.param([], ("example.test",), id="none outside"),
        pytest.param(["a.example.test", "example.test"], ("example.test",), id="below the domain"),
        pytest.param(["db.other.test"], ("example.test", "db.other.test"), id="a host outside"),
        pytest.param(["*.other.test"], ("example.test", "*.other.test"), id="a wildcard outside"),
        pytest.param(["notexample.test"], ("example.test", "notexample.test"), id="a like name"),
        pytest.param(
            ["b.other.test", "a.other.test"],
            ("example.test", "a.other.test", "b.other.test"),
            id="several",
        ),
    ],
)
def test_tokens_may_go_to_our_hosts_and_nowhere_else(
    hosts: list[str], domains: tuple[str, ...]
) -> None:
    backends = [app("wiki"), *([tcp("db", hosts=hosts)] if hosts else [])]
    assert token_domains(configured(backends)) == domains


@pytest.mark.parametrize(
    ("login_host", "domains"),
    [
        pytest.param("auth.example.test", ("example.test",), id="below the domain"),
        pytest.param("example.test", ("example.test",), id="the domain"),
        pytest.param("in.db.other.test", ("example.test", "db.other.test"), id="below a backend"),
        pytest.param("auth.test", ("example.test", "auth.test"), id="elsewhere"),
        pytest.param("notexample.test", ("example.test", "notexample.test"), id="a like name"),
    ],
)
def test_a_service_token_may_go_to_the_login_host(
    login_host: str, domains: tuple[str, ...]
) -> None:
    backends = [tcp("db", host="db.other.test")] if "db.other.test" in domains else []
    assert service_domains(configured(backends, login_host=login_host)) == domains
