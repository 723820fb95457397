"""`logout`: the tokens go whatever happens, and what became of the session is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from heim_tunnel import credentials
from heim_tunnel.credentials import Login
from tests.fakes.login_host import Canned, LoginHost
from tests.unit.tunnel.conftest import Run


def store(host: LoginHost) -> Login:
    login = Login.from_answer(host.grant(), login_host=host.name, now=0, ca_file=str(host.ca_file))
    with credentials.locked(host.name):
        credentials.save(login)
    return login


def test_the_session_ends_and_the_tokens_go(host: LoginHost, run: Run) -> None:
    login = store(host)
    done = run("logout", host.name)
    assert done.status == 0
    assert done.err == f"heim-tunnel: {host.name}: signed out alice@example.com\n"
    assert host.revoked == [login.refresh_token]
    assert credentials.load(host.name) is None


@pytest.mark.parametrize("answer", [Canned(500), Canned(200, b"<html>", {}), Canned(302)], ids=[
    "500", "HTML is fine", "redirect"])  # fmt: skip
def test_a_session_that_may_live_on_is_told(answer: Canned, host: LoginHost, run: Run) -> None:
    store(host)
    host.script("/.heim/cli/revoke", answer)
    done = run("logout", host.name)
    assert credentials.load(host.name) is None
    if answer.status == 200:
        assert done.status == 0
    else:
        assert done.status == 1
        assert "the tokens are removed here, but the session was not ended" in done.err
        assert "it lasts until" in done.err


def test_a_login_host_that_is_away_does_not_keep_the_tokens_here(host: LoginHost, run: Run) -> None:
    store(host)
    host.close()
    done = run("logout", host.name)
    assert done.status == 1
    assert "was not ended" in done.err
    assert credentials.load(host.name) is None


def test_nobody_to_sign_out_is_no_failure(host: LoginHost, run: Run) -> None:
    done = run("logout")
    assert (done.status, done.err) == (0, "heim-tunnel: nobody is signed in on this machine\n")
    done = run("logout", host.name)
    assert (done.status, done.err) == (0, f"heim-tunnel: {host.name}: nobody is signed in\n")
    assert run("logout", "--all").status == 0


@pytest.mark.parametrize("damage", ["text", "of another host"])
def test_a_damaged_login_goes_too(damage: str, host: LoginHost, home: Path, run: Run) -> None:
    store(host)
    (path,) = (home / "heim" / "logins").glob("*.json")
    if damage == "text":
        path.write_text("{")
    else:
        path.write_text(path.read_text().replace(host.name, "other.test"))
    done = run("logout", "--all")
    assert done.status == 1
    assert "could not be read; its session may live on" in done.err
    assert not path.exists()


def test_a_login_that_others_could_read_is_ended_all_the_more(
    host: LoginHost, home: Path, run: Run
) -> None:
    login = store(host)
    (path,) = (home / "heim" / "logins").glob("*.json")
    path.chmod(0o644)
    done = run("logout", host.name)
    assert done.status == 0
    first, second = done.err.splitlines()
    assert first.endswith(f"others may read {path}: it is used once more, to sign out")
    assert second.endswith("signed out alice@example.com")
    assert host.revoked == [login.refresh_token]
    assert not path.exists()


def test_all_means_every_login_host(host: LoginHost, home: Path, run: Run) -> None:
    store(host)
    other = home / "heim" / "logins" / "other.test.json"
    other.write_text("{")
    done = run("logout", "--all")
    assert done.status == 1
    assert f"{host.name}: signed out" in done.err
    assert not other.exists()
    assert credentials.known() == []


def test_all_and_a_name_contradict_each_other(run: Run) -> None:
    assert run("logout", "--all", "auth.test").status == 2
