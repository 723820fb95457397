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


def test_service_accounts_are_told_until_they_can_sign_in() -> None:
    (line,) = told(BASE + "service_accounts: [{name: ci}]\n")
    assert line.startswith("service_accounts:")


def test_nothing_is_told_of_an_ordinary_configuration() -> None:
    assert told(BASE) == ()
