"""What `run` refuses to begin with; how it runs is in tests/integration/test_agent_program.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from heim_agent.config import SAMPLE
from heim_agent.files import Lock
from heim_runtime.complaints import FAILED, USAGE
from tests.fakes.agent_streams import Signer, identity_of


def run(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable, "-m", "heim_agent", "run",
            "--config", str(directory / "agent.toml"), "--state", str(directory / "state"), *more,
        ],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


@pytest.fixture
def joined(tmp_path: Path) -> Path:
    identity_of(tmp_path, Signer())
    (tmp_path / "agent.toml").write_text(SAMPLE)
    return tmp_path


def test_without_targets_it_says_what_to_write(joined: Path) -> None:
    (joined / "agent.toml").unlink()
    done = run(joined)
    assert done.returncode == USAGE
    assert done.stderr == (
        f"heim-agent: there is no {joined}/agent.toml; write what to serve into it, such as "
        '[targets.ssh] and below it address = "127.0.0.1:22"\n'
    )


def test_every_mistake_of_agent_toml_has_a_line(joined: Path) -> None:
    (joined / "agent.toml").write_text("lanes = 9\n[targets.ssh]\naddr = 7\n")
    done = run(joined)
    assert done.returncode == USAGE
    assert [line.partition(": ")[2] for line in done.stderr.splitlines()] == [
        f"{joined}/agent.toml, line 1: lanes: must be a number from 1 to 4",
        f"{joined}/agent.toml, line 3: targets.ssh.addr: there is no such key; did you mean "
        "address?",
        f"{joined}/agent.toml, line 2: targets.ssh: has no address, as in: "
        'address = "127.0.0.1:22"',
    ]


def test_without_an_identity_it_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(SAMPLE)
    done = run(tmp_path)
    assert done.returncode == FAILED
    assert done.stderr == (
        f"heim-agent: this machine has not joined: there is no {tmp_path}/state/key.pem; run: "
        "heim-agent join https://LOGIN_HOST\n"
    )


def test_a_key_that_others_may_read_is_not_used(joined: Path) -> None:
    (joined / "state" / "key.pem").chmod(0o644)
    done = run(joined)
    assert done.returncode == FAILED
    assert f"others may read {joined}/state/key.pem (mode 644)" in done.stderr
    assert f"chmod 600 {joined}/state/key.pem" in done.stderr


def test_a_key_that_is_a_link_is_not_used(joined: Path) -> None:
    key = joined / "state" / "key.pem"
    key.rename(joined / "elsewhere.pem")
    key.symlink_to(joined / "elsewhere.pem")
    done = run(joined)
    assert done.returncode == FAILED
    assert "is a symbolic link" in done.stderr


def test_a_second_one_on_the_same_state_is_refused(joined: Path) -> None:
    with Lock(str(joined / "state")):
        done = run(joined)
    assert done.returncode == FAILED
    assert "another heim-agent (process " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("more", [["--connect-to", "x"], ["--log-level", "loud"]], ids=" ".join)
def test_options_that_cannot_be_used_are_usage_errors(joined: Path, more: list[str]) -> None:
    assert run(joined, *more).returncode == USAGE


def test_a_log_level_of_the_environment_is_looked_at(
    joined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_LOG_LEVEL", "loud")
    done = run(joined)
    assert done.returncode == USAGE
    assert done.stderr.startswith("heim-agent: HEIM_LOG_LEVEL: log level 'loud' is not one of")
