"""`status`: facts without secrets, and without asking anybody."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from heim_tunnel import credentials, status
from heim_tunnel.credentials import Login
from tests.unit.tunnel.conftest import Run


def store(
    *,
    left: float = 7 * 86400,
    access: float = 600,
    name: str = "auth.test",
    ca_file: str = "/ca.pem",
) -> Login:
    now = time.time()
    login = Login(
        login_url=f"https://{name}",
        user="alice@example.com",
        domains=["x.test"],
        access_token="secret-access",
        access_expires=now + access,
        refresh_token="secret-refresh",
        session_expires=now + left,
        ca_file=ca_file,
    )
    with credentials.locked(name):
        credentials.save(login)
    return login


def test_what_never_goes_through_a_web_proxy_is_told(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "loopback" not in run("status").out
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    assert "localhost, 127.0.0.0/8 and ::1 never go through a web proxy" in run("status").out


def test_it_says_who_and_until_when(home: Path, run: Run) -> None:
    store()
    done = run("status")
    assert done.status == 0
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert lines[0] == "auth.test"
    assert "signed in as alice@example.com" in lines
    assert any(line.endswith("(7 days left)") for line in lines)
    assert "access token good for 10 minutes, then renewed" in lines
    assert "tokens may go to auth.test, x.test" in lines
    assert "authorities /ca.pem" in lines
    assert "secret" not in done.out + done.err


@pytest.mark.parametrize(
    ("left", "access", "exit_status", "text"),
    [
        (3600, -5, 0, "renewed when needed"),
        (-5, -5, 1, "run: heim-tunnel login"),
        (30, 30, 0, "less than a minute"),
    ],
)
def test_what_has_ended_is_told(
    left: float, access: float, exit_status: int, text: str, home: Path, run: Run
) -> None:
    store(left=left, access=access)
    done = run("status")
    assert done.status == exit_status
    assert text in done.out


def test_nobody_is_signed_in(home: Path, run: Run) -> None:
    done = run("status")
    assert done.status == 1
    assert "nobody is signed in; run: heim-tunnel login" in done.out


def test_a_service_token_is_enough(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIM_TOKEN_FILE", "/run/token")
    done = run("status")
    assert done.status == 0
    assert "a service token is used" in done.out


def test_settings_in_effect_are_shown_without_passwords(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://alice:hunter2@proxy.test:3128/")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("HEIM_PROXY", "auth.test")
    done = run("status")
    assert "http://***@proxy.test:3128" in done.out
    assert "hunter2" not in done.out
    for name in ("NO_PROXY", "HEIM_PROXY"):
        assert name in done.out


def test_a_damaged_login_hides_nothing_else(home: Path, run: Run) -> None:
    store(name="good.test")
    (home / "heim" / "logins" / "bad.test.json").write_text("{")
    (home / "heim" / "logins" / "bad.test.json").chmod(0o600)
    done = run("status")
    assert done.status == 0
    assert "good.test" in done.out
    assert "is damaged" in done.err


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://u:p@proxy:3128/x", "http://***@proxy:3128"),
        ("u:p@proxy:3128", "***@proxy:3128"),
        ("http://u:p@ss@proxy", "http://***@proxy"),
        ("http://u:p@[bad", "(not an address)"),
        ("http://u:p/a?s#s@proxy:3128", "http://***@proxy:3128"),
        ("u:p/a://ss@proxy:3128", "***@proxy:3128"),
        ("http://u:p@proxy/x@y", "http://***@y"),
    ],
)
def test_passwords_are_masked(value: str, shown: str) -> None:
    assert status.masked(value) == shown
