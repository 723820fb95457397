"""What people call a backend, and the host that is meant."""

from __future__ import annotations

import time

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel import credentials
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Way
from heim_tunnel.naming import host_of
from tests.fakes.login_host import LoginHost


@pytest.fixture
def signed_in(host: LoginHost) -> LoginHost:
    login = Login.from_answer(
        host.grant(), login_host=host.name, now=time.time(), ca_file=str(host.ca_file)
    )
    with credentials.locked(host.name):
        credentials.save(login)
    host.backends = [
        {"name": "db", "kind": "tcp", "host": "db.localhost", "url": ""},
        {"name": "db", "kind": "http", "host": "db.localhost", "url": "https://db.localhost/"},
        {"name": "far", "kind": "tcp", "host": "far.localhost", "url": "https://far.localhost:99"},
        {"name": "near", "kind": "tcp", "host": "near.localhost", "url": "https://near.localhost"},
        {"name": "many", "kind": "tcp", "host": "*.many.localhost", "url": ""},
        {"name": "wiki", "kind": "http", "host": "w.localhost", "url": "https://w.localhost/"},
    ]
    return host


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("db", "db.localhost:PORT"),
        ("db:7", "db.localhost:7"),
        ("far", "far.localhost:99"),
        ("near", "near.localhost"),
    ],
)
def test_a_name_is_looked_up(called: str, expected: str, signed_in: LoginHost) -> None:
    assert host_of(called, Way()) == expected.replace("PORT", str(signed_in.port))


@pytest.mark.parametrize("called", ["db.x.test", "db.x.test:8443", "[::1]:8443", "10.0.0.1"])
def test_a_host_is_taken_as_typed_and_nobody_is_asked(called: str, home: object) -> None:
    assert host_of(called, Way()) == called


@pytest.mark.parametrize(
    ("called", "status", "text"),
    [
        ("nope", 68, "may reach no backend called nope; there is db, far"),
        ("wiki", 77, "wiki is for the browser: https://w.localhost/"),
        ("many", 2, "many is *.many.localhost: give one of its hosts, as in NAME.many.localhost"),
        ("\x1b[31m", 68, "may reach no backend called"),
    ],
)
def test_a_name_that_leads_nowhere_says_why(
    called: str, status: int, text: str, signed_in: LoginHost
) -> None:
    with pytest.raises(Complaint) as caught:
        host_of(called, Way())
    assert caught.value.status == status
    assert text in caught.value.text
    assert "\x1b" not in caught.value.text


def test_nobody_is_asked_to_sign_in_when_that_is_not_wanted(
    host: LoginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_LOGIN", host.name)
    with pytest.raises(Complaint, match="not signed in"):
        host_of("db", Way(), sign_in=False)
