"""The way in and out of every command: statuses, one line on failure, signals, closed outputs."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from heim_runtime.complaints import Complaint
from heim_tunnel import cli
from heim_tunnel.dial import Way
from tests.unit.tunnel.conftest import Run

Command = Callable[[argparse.Namespace, Way], int]


def broken(*_: object) -> int:
    raise ValueError("x")


def complaining(*_: object) -> int:
    raise Complaint("no", 75, detail="because")


def interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def terminated(*_: object) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return 0


@pytest.mark.parametrize(
    ("command", "status", "err"),
    [
        (lambda *_: 0, 0, ""),
        (lambda *_: 1, 1, ""),
        (complaining, 75, "heim-tunnel: no\n"),
        (interrupted, 130, "heim-tunnel: stopped\n"),
        (terminated, 143, ""),
        (broken, 70, "heim-tunnel: this is a bug: ValueError: x; -v shows where, please report\n"),
    ],
    ids=["done", "failed", "complaint", "Ctrl-C", "SIGTERM", "bug"],
)
def test_how_a_command_ends(
    command: Command, status: int, err: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heim_tunnel.status.command", command)
    before = signal.getsignal(signal.SIGTERM)
    done = run("status")
    assert (done.status, done.out, done.err) == (status, "", err)
    assert signal.getsignal(signal.SIGTERM) is before


def test_verbose_says_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heim_tunnel.logout.command", complaining)
    assert run("logout", "-v").err == "heim-tunnel: no\nheim-tunnel: because\n"
    monkeypatch.setattr("heim_tunnel.logout.command", broken)
    with pytest.raises(ValueError, match="x"):
        cli.main(["logout", "-v"])


@pytest.mark.parametrize(
    "words",
    [
        [], ["nonsense"], ["status", "x"], ["login", "a", "b"], ["forward"], ["list", "--jso"],
        ["doctor", "--idle", "-1"], ["doctor", "--idle", "1e9"], ["list", "--connect-to", "a:b"],
        ["init", "--ssh-config", "--no-ssh-config", "a.test"], ["login", "a b"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_is_2(words: list[str], run: Run) -> None:
    done = run(*words)
    assert (done.status, done.out) == (2, "")
    assert done.err


@pytest.mark.parametrize(
    "words", [["status"], ["ssh-config", "--login-host", "a.test", "b.test"]], ids=" ".join
)
def test_a_closed_output_is_no_trace(words: list[str], home: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m heim_tunnel {" ".join(words)} >&-', sys.executable],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_trace(home: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", '{ "$0" -m heim_tunnel status; echo $? >&2; } | true', sys.executable],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
