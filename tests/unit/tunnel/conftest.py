"""A machine of their own for the commands: a home, no settings, and a login host to talk to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from heim_tunnel import cli
from tests.fakes.login_host import LoginHost, login_host

# What of the machine that runs the tests would change what heim-tunnel does.
_LEAKS = ("heim_", "_proxy", "ssl_cert", "ssh_", "display", "browser", "xdg_config")


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory, and an environment without settings."""
    for name in list(os.environ):
        if any(leak in name.lower() for leak in _LEAKS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HEIM_TUNNEL_HOME", str(tmp_path / "heim"))
    return tmp_path


@pytest.fixture
def host(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoginHost]:
    """A login host whose certificate is trusted."""
    with login_host(home) as started:
        monkeypatch.setenv("HEIM_CA_FILE", str(started.ca_file))
        yield started


@pytest.fixture
def run(home: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*words: str) -> Outcome:
        capfd.readouterr()
        try:
            status = cli.main(words)
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return run
