"""`list`: a table for people, JSON for programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from heim_tunnel.listing import columns
from tests.fakes.login_host import Canned, LoginHost, browser_script
from tests.unit.tunnel.conftest import Run

BACKENDS = [
    {"name": "web", "kind": "tcp", "host": "web.ssh.localhost", "url": ""},
    {"name": "wiki", "kind": "http", "host": "wiki.localhost", "url": "https://wiki.localhost/"},
]


@pytest.fixture
def signed_in(host: LoginHost, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> LoginHost:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    host.backends = list(BACKENDS)
    assert run("login", host.name).status == 0
    return host


def test_people_get_an_aligned_table(signed_in: LoginHost, run: Run) -> None:
    """With the port of the proxy where that is another than 443."""
    far = {"name": "far", "kind": "tcp", "host": "far.localhost", "url": "https://far.localhost"}
    signed_in.backends.append(far)
    done = run("list")
    assert done.status == 0
    assert done.out == (
        f"NAME  KIND  HOST                     TRY\n"
        f"far   tcp   far.localhost            heim-tunnel forward far\n"
        f"web   tcp   web.ssh.localhost:{signed_in.port:<5}  heim-tunnel forward web\n"
        f"wiki  http  wiki.localhost           https://wiki.localhost/\n"
    )
    assert done.err == ""


def test_programs_get_json(signed_in: LoginHost, run: Run) -> None:
    done = run("list", "--json")
    assert done.status == 0
    assert json.loads(done.out) == {
        "login_host": signed_in.name,
        "user": "alice@example.com",
        "backends": BACKENDS,
    }


def test_nothing_to_reach_is_explained(signed_in: LoginHost, run: Run) -> None:
    signed_in.backends = []
    done = run("list")
    assert (done.status, done.out) == (0, "")
    assert "alice@example.com may reach nothing yet" in done.err


def test_who_is_not_signed_in_is_asked_to(
    host: LoginHost, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    host.backends = list(BACKENDS)
    done = run("list", host.name)
    assert done.status == 0
    assert "not signed in; signing in at" in done.err
    assert done.out.startswith("NAME")


def test_a_session_that_was_revoked_is_signed_in_again_once(
    signed_in: LoginHost, home: Path, run: Run
) -> None:
    signed_in.tokens.clear()
    done = run("list")
    assert done.status == 0
    assert "the session has ended; signing in at" in done.err
    assert len((home / "opened").read_text().splitlines()) == 2
    # A login host that takes none at all is no reason to ask for ever.
    refusals = Canned(401, {"code": "unauthenticated"}), Canned(401, {"code": "unauthenticated"})
    signed_in.script("/.heim/cli/backends", *refusals)
    done = run("list")
    assert done.status == 77
    assert "does not take the token any more; run: heim-tunnel login" in done.err


def test_a_session_that_was_revoked_is_told_where_nobody_is(
    signed_in: LoginHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in.tokens.clear()
    monkeypatch.delenv("BROWSER")
    done = subprocess.run(
        [sys.executable, "-m", "heim_tunnel", "list"],
        capture_output=True, start_new_session=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 77
    assert f"the session has ended; run: heim-tunnel login {signed_in.name}" in done.stderr


def test_authorities_that_cannot_be_read_are_wrong_usage(host: LoginHost, run: Run) -> None:
    done = run("list", "--token-file", "/nonexist", "--ca-file", "/nonexist", host.name)
    assert done.status == 2
    done = run("login", "--ca-file", "/nonexist", host.name)
    assert (done.status, done.err) == (
        2, "heim-tunnel: cannot read the CA file /nonexist: No such file or directory\n"
    )  # fmt: skip


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_service_token_opens_no_browser(
    way: str, host: LoginHost, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    token = home / "token"
    token.write_text("heim_st_1_secret@localhost\n")
    token.chmod(0o600)
    host.tokens["service"] = "heim_st_1_secret"
    words = ["list", host.name]
    if way == "option":
        words += ["--token-file", str(token)]
    else:
        monkeypatch.setenv("HEIM_TOKEN_FILE", str(token))
    assert run(*words).status == 0
    assert host.asked[-1].bearer == "heim_st_1_secret"
    host.tokens.clear()
    done = run(*words)
    assert done.status == 77
    assert f"the service token in {token} is not taken" in done.err
    assert "heim-proxy token create" in done.err
    assert "secret" not in done.err
    assert "heim-tunnel login" not in done.err
    assert not (home / "opened").exists()


def test_a_login_host_that_a_service_token_is_not_for_is_not_asked(
    host: LoginHost, home: Path, run: Run
) -> None:
    token = home / "token"
    token.write_text("heim_st_1_secret@x.example.com")
    token.chmod(0o600)
    done = run("list", host.name, "--token-file", str(token))
    assert done.status == 77
    assert "is not for auth.localhost (only for x.example.com); nothing was sent" in done.err
    assert host.asked == []


def test_a_wildcard_shows_where_a_name_goes(signed_in: LoginHost, run: Run) -> None:
    signed_in.backends = [{"name": "many", "kind": "tcp", "host": "*.many.localhost", "url": ""}]
    assert "heim-tunnel forward NAME.many.localhost\n" in run("list").out


def test_columns_are_as_wide_as_they_must_be() -> None:
    assert columns([("a", "b"), ("long", ""), ("", "x")]) == "a     b\nlong\n      x\n"
