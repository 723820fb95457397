from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from heim_agent import cli, install
from heim_agent.install import at_home, hidden, program, unit
from heim_agent.places import SYSTEM_CONFIG, SYSTEM_STATE, Places
from heim_runtime.complaints import FAILED, OK, USAGE, UsageError
from tests.fakes.agent_streams import Signer, identity_of

SYSTEM = Places(config=f"{SYSTEM_CONFIG}/agent.toml", state=SYSTEM_STATE, seed=SYSTEM_CONFIG)


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


def test_the_service_has_nothing_but_its_key_and_its_state() -> None:
    text = unit("/opt/heim/bin/heim-agent", SYSTEM)
    assert values(text, "ExecStart") == [
        "/opt/heim/bin/heim-agent run --config /etc/heim-agent/agent.toml"
    ]
    assert values(text, "LoadCredential") == [
        "key.pem:/etc/heim-agent/key.pem",
        "certificate.pem:/etc/heim-agent/certificate.pem",
        "identity.json:/etc/heim-agent/identity.json",
    ]
    assert values(text, "StateDirectory") == ["heim-agent"]
    assert values(text, "Type") == ["notify"]
    for key, value in {
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectHome": "yes",
        "LimitCORE": "0",
        "WatchdogSec": "60",
        "Restart": "always",
    }.items():
        assert values(text, key) == [value]


def test_authorities_that_were_kept_are_handed_over(tmp_path: Path) -> None:
    (tmp_path / "authorities.pem").touch()
    text = unit("/a", Places(config="/c", state="/s", seed=str(tmp_path)))
    assert f"authorities.pem:{tmp_path}/authorities.pem" in values(text, "LoadCredential")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ("/opt/heim/bin/heim-agent", "/opt/heim/bin/heim-agent"),
        ("/opt/my heim/heim-agent", '"/opt/my heim/heim-agent"'),
        ("/opt/100%/$HOME", "/opt/100%%/$$HOME"),
        ('/opt/a"b\\c', '"/opt/a\\"b\\\\c"'),
    ],
)
def test_a_path_is_written_as_systemd_reads_it(path: str, written: str) -> None:
    assert values(unit(path, SYSTEM), "ExecStart")[0].startswith(f"{written} run ")


@pytest.mark.parametrize("seed", ["/a:b", "/a\nExecStart=/bin/sh"], ids=repr)
def test_a_path_that_systemd_would_read_otherwise_is_refused(seed: str) -> None:
    with pytest.raises(UsageError):
        unit("/a", Places(config="/c", state="/s", seed=seed))


def test_what_is_in_a_home_can_be_read() -> None:
    assert values(unit("/opt/heim-agent", SYSTEM, homely=["/home/me"]), "ProtectHome") == [
        "read-only"
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/home/me/venv", True),
        ("/root", True),
        ("/run/user/1000/agent.toml", True),
        ("/opt/heim", False),
        ("/etc/heim-agent/agent.toml", False),
        ("/homestead/heim", False),
    ],
)
def test_homes_are_what_systemd_protects(path: str, found: bool) -> None:
    assert at_home(path, "/usr/bin/env") == ([path] if found else [])


def test_a_link_into_a_home_leads_there(tmp_path: Path) -> None:
    link = tmp_path / "heim-agent"
    link.symlink_to("/home/nobody-there/venv/bin/heim-agent")
    assert at_home(str(link)) == [str(link)]


@pytest.mark.parametrize("way", ["--print", "--write"])
@pytest.mark.parametrize("prefix", ["prefix", "base_prefix"])
def test_a_python_in_a_home_is_warned_of_with_what_to_do(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    prefix: str,
) -> None:
    """Its program may be a link in /usr/local/bin, and its virtual environment in /opt."""
    written = tmp_path / "heim-agent.service"
    monkeypatch.setattr(install, "UNIT_FILE", str(written))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/home/me/python" if name == prefix else "/opt/python")
    identity_of(tmp_path, Signer())
    options = ["--state", str(tmp_path / "state"), "--config", str(tmp_path / "agent.toml")]
    assert cli.main(["install", way, *options]) == OK
    said = capfd.readouterr()
    text = said.out if way == "--print" else written.read_text()
    assert values(text, "ProtectHome") == ["read-only"]
    assert "\n# For /home/me/python: better have heim-agent in /opt, with" in text
    if way == "--write":
        told = "in a home directory: /home/me/python; the unit has ProtectHome=read-only"
        assert told in said.err
        assert "python3 -m venv /opt/heim" in said.err


def test_a_python_of_the_system_is_not_warned_of(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/heim/bin/heim-agent"])
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, "/opt/python")
    assert cli.main(["install"]) == OK
    said = capfd.readouterr()
    assert values(said.out, "ProtectHome") == ["yes"]
    assert "/opt/heim)" not in said.out


def test_the_program_is_the_one_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "heim-agent"
    assert program(str(path)) == str(path)
    assert program("/x/heim_agent/__main__.py").endswith("/bin/heim-agent")
    assert program("no-such-program-anywhere").endswith("/bin/heim-agent")


def test_it_prints_what_root_would_get(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["install"]) == OK
    text = capfd.readouterr().out
    assert text.startswith("# Written by heim-agent install.")
    assert "LoadCredential=key.pem:/etc/heim-agent/key.pem" in text


def test_writing_takes_root_and_an_identity(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "UNIT_FILE", str(tmp_path / "heim-agent.service"))
    options = ["--state", str(tmp_path / "state"), "--config", str(tmp_path / "agent.toml")]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["install", "--write", *options]) == USAGE
    assert "takes root; run: sudo " in capfd.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(install, "UNIT_FILE", str(tmp_path / "heim-agent.service"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert cli.main(["install", "--write", *options]) == FAILED
    assert "has not joined" in capfd.readouterr().err
    assert not (tmp_path / "heim-agent.service").exists()


def test_what_is_written_is_what_is_printed_and_the_next_commands_are_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "heim-agent.service"
    monkeypatch.setattr(install, "UNIT_FILE", str(written))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    identity_of(tmp_path, Signer())
    options = ["--state", str(tmp_path / "state"), "--config", str(tmp_path / "agent.toml")]
    assert cli.main(["install", "--print", *options]) == OK
    printed = capfd.readouterr().out
    assert cli.main(["install", "--write", *options]) == OK
    said = capfd.readouterr()
    assert written.read_text() == printed
    assert said.out == ""
    assert f"next: write what to serve into {tmp_path}/agent.toml" in said.err
    assert "then: systemctl daemon-reload && systemctl enable --now heim-agent" in said.err


def test_a_machine_without_systemd_is_said_to_be_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "UNIT_FILE", str(tmp_path / "nowhere" / "heim-agent.service"))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    identity_of(tmp_path, Signer())
    assert cli.main(["install", "--write", "--state", str(tmp_path / "state")]) == FAILED
    assert "is this a systemd machine?" in capfd.readouterr().err


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
class TestWithSystemd:
    """The real one reads it."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        started = shutil.which("true")
        assert started is not None
        path = tmp_path / "heim-agent.service"
        path.write_text(unit(started, SYSTEM))
        return path

    def test_it_finds_nothing_wrong(self, path: Path) -> None:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_it_finds_little_exposure(self, path: Path) -> None:
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        found = re.search(r"exposure level for heim-agent\.service: ([0-9.]+) (\w+)", done.stdout)
        if found is None:
            pytest.skip(f"this systemd-analyze cannot judge a file: {done.stderr.strip()}")
        # 0 to 10. What is left is the network, which is what it is for.
        assert float(found[1]) <= 2.0
        assert found[2] == "OK"


def test_what_the_service_may_not_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "etc" / "agent.toml"
    config.parent.mkdir()
    config.touch(0o600)
    # As if the test's directory were anywhere but below /tmp, and open down to here.
    monkeypatch.setattr("os.path.realpath", lambda path: path)
    inside = str(config).replace("/tmp/", "/proc/self/root/tmp/", 1)
    (found,) = hidden(inside)
    assert found == f"the service's user cannot read {inside}; run: chmod o+r {inside}"


def test_what_is_in_tmp_is_not_there_for_the_service() -> None:
    (found,) = hidden("/tmp/venv/bin/heim-agent")
    assert found.startswith("the service has a /tmp of its own, without /tmp/venv/bin/heim-agent")


@pytest.mark.parametrize("path", ["/usr/bin/env", "/not/there"])
def test_what_everybody_may_read_is_not_mentioned(path: str) -> None:
    assert list(hidden(path)) == []
