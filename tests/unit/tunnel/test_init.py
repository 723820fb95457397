"""`init`: step by step, and without questions where nobody answers."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from heim_tunnel.init import wildcard_advice
from tests.fakes.certificates import make_pair
from tests.fakes.login_host import Canned, LoginHost, browser_script, login_host
from tests.unit.tunnel.conftest import Run

BACKENDS = [{"name": "web", "kind": "tcp", "host": "web.ssh.localhost", "url": ""}]


@pytest.fixture
def served(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoginHost]:
    """A login host on whose port the backend's name is served as well."""
    pair = make_pair("auth.localhost", "web.ssh.localhost")
    with login_host(home, pair=pair) as started:
        monkeypatch.setenv("HEIM_CA_FILE", str(started.ca_file))
        monkeypatch.setenv("BROWSER", str(browser_script(home, started.ca_file)))
        started.backends = list(BACKENDS)
        yield started


def test_from_nothing_to_a_working_ssh(served: LoginHost, home: Path, run: Run) -> None:
    done = run("init", "--ssh-config", served.name)
    assert done.status == 0, done.err
    assert "is a Heim login host, and its certificate is trusted" in done.err
    assert "signed in as alice@example.com" in done.err
    assert "Host *.ssh.localhost" in (home / ".ssh" / "config").read_text()
    assert "try: ssh web.ssh.localhost" in done.err
    assert done.out == ""


def test_who_is_signed_in_is_not_asked_again(served: LoginHost, home: Path, run: Run) -> None:
    for _ in range(2):
        assert run("init", "--no-ssh-config", served.name).status == 0
    assert len((home / "opened").read_text().splitlines()) == 1
    assert not (home / ".ssh").exists()


def test_without_a_terminal_nothing_is_written_or_asked(
    served: LoginHost, home: Path, run: Run
) -> None:
    done = run("init", served.name)
    assert done.status == 0
    assert "`heim-tunnel ssh-config --write` sets up ssh" in done.err
    assert not (home / ".ssh").exists()
    assert run("logout", "--all").status == 0
    assert run("init").status == 2


def test_a_certificate_that_misses_nested_names_is_told(
    host: LoginHost, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decision 28."""
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    host.backends = list(BACKENDS)
    done = run("init", host.name)
    assert done.status == 1
    assert "for another name" in done.err
    assert "needs a certificate for *.ssh.localhost" in done.err
    assert f"set HEIM_PROXY={host.name}" in done.err
    monkeypatch.setenv("HEIM_PROXY", host.name)
    assert run("init").status == 0


def test_every_domain_is_looked_at(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one in the alphabet is not the one that has no certificate."""
    pair = make_pair("auth.localhost", "a.localhost", "b.localhost", "web.ssh.localhost")
    with login_host(home, pair=pair) as host:
        monkeypatch.setenv("HEIM_CA_FILE", str(host.ca_file))
        monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
        names = (
            "a.localhost",
            "b.localhost",
            "web.ssh.localhost",
            "x.db.localhost",
            "z.nested.localhost",
        )
        host.backends = [
            {"name": n, "kind": "tcp", "host": n, "url": f"https://{n}:{host.port}"} for n in names
        ]
        host.backends.append({"name": "w", "kind": "tcp", "host": "*.wild.localhost", "url": ""})
        done = run("init", host.name)
    assert done.status == 1
    for domain in ("db", "nested", "wild"):
        assert f"needs a certificate for *.{domain}.localhost" in done.err
    for fine in ("ssh.localhost", "a.localhost"):
        assert f"certificate for *.{fine}" not in done.err
    shown = "auth.localhost, a.localhost, b.localhost, web.ssh.localhost"
    assert f"x.db.localhost is for another name ({shown})" in done.err


@pytest.mark.parametrize(
    ("hosts", "tried"),
    [
        (["db.localhost"], "heim-tunnel forward db"),
        (["db.localhost", "web.ssh.localhost"], "ssh web.ssh.localhost"),
        (["*.db.localhost"], "heim-tunnel forward NAME.db.localhost"),
        (["*.ssh.localhost"], "ssh NAME.ssh.localhost"),
    ],
    ids=["no ssh", "both", "anything", "a wildcard of ssh"],
)
def test_ssh_is_suggested_for_what_looks_like_it(
    hosts: list[str], tried: str, served: LoginHost, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_PROXY", served.name)
    served.backends = [
        {"name": host.partition(".")[0], "kind": "tcp", "host": host, "url": ""} for host in hosts
    ]
    assert run("init", "--ssh-config").err.endswith(f"heim-tunnel: try: {tried}\n")


def test_what_is_set_up_is_not_offered_again(served: LoginHost, run: Run) -> None:
    assert run("init", "--ssh-config", served.name).status == 0
    status, seen = answered([sys.executable, "-m", "heim_tunnel", "init", served.name], [])
    assert status == 0, seen
    assert "already sends *.ssh.localhost through Heim" in seen
    assert "write these lines" not in seen


def test_who_may_reach_nothing_yet_is_told(served: LoginHost, run: Run) -> None:
    served.backends = []
    done = run("init", served.name)
    assert done.status == 0
    assert "you may reach no tcp backend yet" in done.err


@pytest.mark.parametrize(
    ("answer", "status"), [(Canned(404), 76), (Canned(200, b"<html>"), 76), (Canned(503), 69)],
    ids=["404", "a web page", "503"],
)  # fmt: skip
def test_what_is_no_login_host_is_not_signed_in_to(
    answer: Canned, status: int, served: LoginHost, home: Path, run: Run
) -> None:
    served.script("/.heim/cli/backends", answer)
    assert run("init", served.name).status == status
    assert not (home / "opened").exists()


def test_an_untrusted_certificate_ends_it(
    served: LoginHost, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEIM_CA_FILE")
    done = run("init", served.name)
    assert done.status == 69
    assert "not trusted" in done.err
    assert done.err.count("\n") == 1


def answered(command: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command on a terminal and type an answer to each question."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen, rest = "", list(answers)
        while select.select([ours], [], [], 10)[0]:
            try:
                data = os.read(ours, 65536)
            except OSError:
                break
            seen += data.decode()
            if rest and rest[0][0] in seen:
                os.write(ours, rest.pop(0)[1].encode() + b"\n")
        status = process.wait(timeout=5)
    os.close(ours)
    return status, seen


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("", False), ("n", False)])
def test_a_person_at_a_terminal_is_asked(
    answer: str, written: bool, served: LoginHost, home: Path
) -> None:
    status, seen = answered(
        [sys.executable, "-m", "heim_tunnel", "init"],
        [("login host, such as", served.name), ("write these lines", answer)],
    )
    assert status == 0, seen
    assert "ProxyCommand" in seen
    assert (home / ".ssh" / "config").exists() is written


def test_the_advice_names_what_is_missing() -> None:
    text = wildcard_advice("web.ssh.x.example.com", "auth.x.example.com")
    assert "*.ssh.x.example.com" in text
    assert "HEIM_PROXY=auth.x.example.com" in text
