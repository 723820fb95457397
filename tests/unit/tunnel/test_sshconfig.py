"""`ssh-config`: which hosts, which command, and whether ssh would use it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from heim_runtime.complaints import UsageError
from heim_tunnel import sshconfig
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.loginhost import Backend
from tests.fakes.login_host import LoginHost, browser_script
from tests.unit.tunnel.conftest import Run

LOGIN = "auth.x.example.com"


def tcp(host: str) -> Backend:
    return Backend(host.partition(".")[0], "tcp", host, "")


def http(host: str) -> Backend:
    return Backend(host.partition(".")[0], "http", host, f"https://{host}/")


@pytest.mark.parametrize(
    ("backends", "hosts"),
    [
        ([], []),
        ([http("wiki.x.example.com")], []),
        ([tcp("a.ssh.x.example.com"), tcp("b.ssh.x.example.com")], ["*.ssh.x.example.com"]),
        ([tcp("a.x.example.com"), tcp("b.x.example.com")], ["a.x.example.com", "b.x.example.com"]),
        ([tcp("a.ssh.x.example.com"), http("w.ssh.x.example.com")], ["a.ssh.x.example.com"]),
        (
            [tcp("a.ssh.x.example.com"), tcp("db.x.example.com")],
            ["*.ssh.x.example.com", "db.x.example.com"],
        ),
        ([tcp("desktop")], ["desktop"]),
        ([tcp("db.corp.test"), tcp("corp.test")], ["corp.test", "db.corp.test"]),
        ([tcp("*"), tcp("*.test"), tcp("a.*"), tcp("!a.test"), tcp("a?.test")], []),
        ([tcp("*.corp.test")], ["*.corp.test"]),
        ([tcp("*.corp.test"), tcp("a.corp.test")], ["*.corp.test"]),
    ],
    ids=["none", "no tcp", "a name for tcp alone", "beside the login host", "shared", "both",
         "one label", "another domain", "the world", "a wildcard of theirs",
         "a wildcard and what is below it"],
)  # fmt: skip
def test_wildcards_take_in_only_what_is_heims(backends: list[Backend], hosts: list[str]) -> None:
    assert sshconfig.patterns(backends, LOGIN) == hosts


@pytest.fixture
def started_as(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "heim-tunnel"
    program.parent.mkdir()
    program.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "ssh-config"])
    return program


@pytest.mark.parametrize(
    ("login_host", "way", "tail"),
    [
        (LOGIN, Way(), "proxy %h"),
        (f"{LOGIN}:8443", Way(), "proxy %h:8443"),
        (LOGIN, Way(connect_to=Endpoint("127.0.0.1", 8443)),
         "proxy --connect-to 127.0.0.1:8443 %h"),
        (LOGIN, Way(ca_file="/etc/a b.pem"), "proxy --ca-file '/etc/a b.pem' %h"),
        (LOGIN, Way(ca_file="/etc/100%.pem"), "proxy --ca-file /etc/100%%.pem %h"),
    ],
    ids=["plain", "port", "detour", "blank in a path", "percent in a path"],
)  # fmt: skip
def test_the_command_carries_what_was_needed(
    login_host: str, way: Way, tail: str, home: Path, started_as: Path
) -> None:
    assert sshconfig.proxy_command(login_host, way) == f"{started_as} {tail}"


def test_a_detour_of_this_terminal_is_written_down(
    home: Path, started_as: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_PROXY", "auth.x.example.com:8443")
    command = sshconfig.proxy_command("auth.x.example.com:8443", Way())
    assert command == f"env HEIM_PROXY=auth.x.example.com:8443 {started_as} proxy %h"


def test_a_program_found_by_name_is_written_with_its_path(
    started_as: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(started_as.parent))
    monkeypatch.setattr(sys, "argv", ["heim-tunnel"])
    assert sshconfig.program() == [str(started_as)]


def test_a_link_to_the_program_is_kept(
    started_as: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pipx links into an environment that an upgrade may move."""
    link = tmp_path / "heim-tunnel"
    link.symlink_to(started_as)
    monkeypatch.setattr(sys, "argv", [str(link)])
    assert sshconfig.program() == [str(link)]


def test_a_module_finds_the_program_beside_its_python(
    started_as: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/heim_tunnel/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(started_as.with_name("python")))
    assert sshconfig.program() == [str(started_as)]


def test_without_a_program_the_module_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/x/heim_tunnel/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert sshconfig.program() == [str(tmp_path / "python"), "-m", "heim_tunnel"]


@pytest.mark.parametrize("pattern", ["", "a b", "-x", "a\nProxyCommand evil", 'a"', "a#b", "a\\b"])
def test_a_pattern_cannot_smuggle_a_line(pattern: str) -> None:
    with pytest.raises(UsageError, match="no pattern of hosts"):
        sshconfig.block([pattern], "x")


@pytest.mark.parametrize("pattern", ["*", "*.*", "**", "?*", "!*"])
def test_a_pattern_for_the_whole_world_is_refused(pattern: str, home: Path, run: Run) -> None:
    done = run("ssh-config", "--login-host", LOGIN, pattern)
    assert (done.status, done.out) == (2, "")
    assert f"{pattern!r} would send every ssh through Heim" in done.err


def test_nobody_to_ask_is_told_what_to_do(home: Path, run: Run) -> None:
    for words in (["ssh-config"], ["list"], ["forward", "db"]):
        done = run(*words)
        assert (done.status, done.err) == (
            77, "heim-tunnel: nobody is signed in; run: heim-tunnel login LOGIN_HOST\n"
        )  # fmt: skip
    done = run("list", "--token-file", "/token")
    assert done.status == 2
    assert "set HEIM_LOGIN" in done.err


def test_a_path_that_cannot_stand_in_a_line_is_refused() -> None:
    with pytest.raises(UsageError):
        sshconfig.block(["a"], "x\nProxyCommand evil")


@pytest.fixture
def signed_in(host: LoginHost, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> LoginHost:
    monkeypatch.setenv("BROWSER", str(browser_script(home, host.ca_file)))
    host.backends = [
        {"name": "web", "kind": "tcp", "host": "web.ssh.x.localhost", "url": ""},
        {"name": "wiki", "kind": "http", "host": "wiki.localhost", "url": ""},
    ]
    assert run("login", host.name).status == 0
    return host


def test_the_lines_are_printed_ready_to_copy(
    signed_in: LoginHost, started_as: Path, run: Run
) -> None:
    done = run("ssh-config")
    assert done.status == 0
    assert done.out == (
        f"Host *.ssh.x.localhost\n    ProxyCommand {started_as} proxy "
        f"--ca-file {signed_in.ca_file} %h:{signed_in.port}\n"
    )


def test_authorities_of_the_login_are_written_for_when_nobody_is_signed_in(
    signed_in: LoginHost, started_as: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEIM_CA_FILE")
    assert f" --ca-file {signed_in.ca_file} " in run("ssh-config").out
    # Not a file that is gone: the login has a copy.
    signed_in.ca_file.unlink()
    done = run("ssh-config")
    assert done.status == 0, done.err
    assert "--ca-file" not in done.out


def test_patterns_that_are_typed_need_no_network(home: Path, started_as: Path, run: Run) -> None:
    done = run("ssh-config", "--login-host", LOGIN, "*.a.test", "!b.a.test")
    assert done.status == 0
    assert done.out.startswith("Host *.a.test !b.a.test\n")


def test_nothing_to_set_up_says_what_to_do(signed_in: LoginHost, run: Run) -> None:
    signed_in.backends = []
    done = run("ssh-config")
    assert done.status == 68
    assert "heim-tunnel ssh-config '*.ssh.x.example.com'" in done.err


def test_writing_is_done_once_and_told(
    signed_in: LoginHost, home: Path, started_as: Path, run: Run
) -> None:
    config = home / ".ssh" / "config"
    first, second = run("ssh-config", "--write"), run("ssh-config", "--write")
    assert (first.status, second.status) == (0, 0)
    assert "now sends *.ssh.x.localhost through Heim" in first.err
    assert "already sends" in second.err
    assert config.read_text().count("ProxyCommand") == 1
    assert first.out == ""


def test_another_file_may_be_written(signed_in: LoginHost, home: Path, run: Run) -> None:
    assert run("ssh-config", "--write", "--file", str(home / "config")).status == 0
    assert (home / "config").exists()
    assert run("ssh-config", "--write", "--file", str(home / "x" / "config")).status == 1
    assert not (home / ".ssh").exists()


@pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH")
def test_a_setting_that_wins_is_told(signed_in: LoginHost, home: Path, run: Run) -> None:
    config = home / ".ssh" / "config"
    config.parent.mkdir()
    config.write_text("Host *\n    ProxyCommand nc %h %p\n")
    done = run("ssh-config", "--write")
    assert done.status == 1
    assert "for any.ssh.x.localhost ssh uses `nc %h %p` as its ProxyCommand" in done.err


def test_a_config_that_cannot_be_written_is_one_line(
    signed_in: LoginHost, home: Path, run: Run
) -> None:
    (home / ".ssh").write_text("a file")
    done = run("ssh-config", "--write")
    assert done.status == 1
    assert "cannot write" in done.err
    assert "without --write the lines are printed" in done.err
    assert done.err.count("\n") == 1
