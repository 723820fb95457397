from __future__ import annotations

from pathlib import Path

import pytest

from heim_config.advice import advice
from heim_config.load import load_text

BASE = """
version: 1
domain: example.com
tls: {certificates: [{cert_file: a, key_file: b}]}
identity:
  providers:
    - {name: google, type: google, client_id: x, client_secret_env: X, domains: [example.com]}
"""
OKTA = """
    - {name: okta, type: okta, issuer: "https://o.example.com", client_id: x,
       client_secret_env: X, domains: [example.org]}
"""


def told(text: str) -> tuple[str, ...]:
    return advice(load_text(text, file=Path("heim.yaml")))


@pytest.mark.parametrize(
    ("members", "more", "expected"),
    [
        pytest.param("{group: sre}", "", 1, id="google is the only provider"),
        pytest.param("{group: sre, provider: google}", OKTA, 1, id="google by name"),
        pytest.param("{group: sre, provider: okta}", OKTA, 0, id="okta tells groups"),
        pytest.param("{user: a@example.com}", "", 0, id="a person"),
    ],
)
def test_a_group_that_nobody_can_be_in_is_told(members: str, more: str, expected: int) -> None:
    found = told(f"{BASE}{more}roles:\n  - {{name: r, members: [{members}]}}\n")
    assert len(found) == expected
    assert all("roles[0].members[0].group" in line and "google" in line for line in found)


SSH = """backends:
  - {name: ssh, tcp: {upstream: "h:22"}}
  - name: web
    http: [{path: /, upstream: "http://h"}]
    permissions: [{name: p, locations: [{any: /}]}]
"""
ACCOUNTS = "service_accounts: [{name: ci}]\n"


def of_roles(*roles: str) -> tuple[str, ...]:
    return told(f"{BASE}{ACCOUNTS}{SSH}roles: [{', '.join(f'{{{one}}}' for one in roles)}]\n")


def of_part(start: str, *roles: str) -> list[str]:
    return [line for line in of_roles(*roles) if line.startswith(start)]


ROBOT = "members: [{user: a@example.com}, {service_account: ci}]"
TCP = "name: t, members: [{user: a@example.com}], bindings: [{backend: ssh}]"


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        pytest.param("bindings: [{backend: web, permission: p}]", 1, id="only http"),
        pytest.param("bindings: [{backend: web, permission: p}, {backend: ssh}]", 0, id="tcp too"),
        pytest.param("bindings: [{backend: ssh}]", 0, id="only tcp"),
        pytest.param("bindings: []", 0, id="nothing, to nobody"),
        pytest.param("break_glass: true", 0, id="break-glass, which is tcp too"),
    ],
)
def test_a_service_account_in_a_role_without_tcp_is_told(one: str, expected: int) -> None:
    found = of_part("roles", f"name: r, {ROBOT}, {one}", TCP)
    assert len(found) == expected, found
    if found:
        assert found[0] == (
            "roles[0].members[1].service_account: ci gains nothing by it: service tokens are for "
            "heim-tunnel, and role r gives only http"
        )


def test_service_accounts_alone_are_nothing_to_tell() -> None:
    assert told(BASE + ACCOUNTS) == ()


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        pytest.param((), "nobody can connect to it", id="no role"),
        pytest.param(
            ("name: r, bindings: [{backend: web, permission: p}]",),
            "nobody can connect to it",
            id="http alone",
        ),
        pytest.param(
            ("name: r, break_glass: true",), "only break-glass roles reach it", id="break-glass"
        ),
    ],
)
def test_tcp_that_no_ordinary_role_gives_is_told(roles: tuple[str, ...], words: str) -> None:
    (line,) = of_part("backends[0]", *roles)
    assert line == (f"backends[0].tcp: {words}: add a role with the binding {{backend: ssh}}")


def test_tcp_that_a_role_gives_is_not_told() -> None:
    assert of_part("backends[0]", TCP) == []


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        pytest.param((TCP,), "nobody can connect to it", id="tcp of another one"),
        pytest.param(
            ("name: r, break_glass: true",), "only break-glass roles reach it", id="break-glass"
        ),
    ],
)
def test_http_that_no_ordinary_role_gives_is_told(roles: tuple[str, ...], words: str) -> None:
    (line,) = of_part("backends[1]", *roles)
    assert line == (
        f"backends[1].http: {words}: add a role with the binding {{backend: web, permission: p}}"
    )


def test_http_that_a_role_gives_or_everybody_has_is_not_told() -> None:
    given = "name: w, members: [{domain: example.com}], bindings: [{backend: web, permission: p}]"
    assert of_roles(TCP, given) == ()
    public = 'backends: [{name: s, public: true, http: [{path: /, upstream: "http://h"}]}]\n'
    assert told(BASE + public) == ()


def test_http_without_permissions_needs_one_first() -> None:
    bare = 'backends: [{name: s, http: [{path: /, upstream: "http://h"}]}]\n'
    assert told(BASE + bare) == (
        "backends[0].http: nobody can connect to it: give it a permission, and add a role with "
        "the binding {backend: s, permission: ...}",
    )


AGENT = "agents: [{name: pc, targets: [ssh, web]}]\n"


def of_targets(backends: str) -> list[str]:
    return [one for one in told(BASE + backends + AGENT) if one.startswith("agents")]


def test_a_target_that_no_backend_leads_to_is_told() -> None:
    (line,) = of_targets(SSH.replace('upstream: "h:22"', "agent: pc, target: ssh"))
    assert line == (
        "agents[0].targets[1]: no backend leads to web of agent pc: "
        "write {agent: pc, target: web} in its tcp or http"
    )
    assert len(of_targets(SSH)) == 2


def test_targets_that_backends_lead_to_are_not_told() -> None:
    through = SSH.replace('upstream: "h:22"', "agent: pc, target: ssh")
    assert of_targets(through.replace('upstream: "http://h"', "agent: pc, target: web")) == []


def test_nothing_is_told_of_an_ordinary_configuration() -> None:
    assert told(BASE) == ()
