"""Opening a browser from a program whose terminal may belong to ssh."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from heim_tunnel.browser import has_display, is_attended, open_address


@pytest.mark.parametrize(
    ("environ", "platform", "seen"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ""}, "linux", False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1 2 3 4"}, "linux", False),
        ({"DISPLAY": ":0", "SSH_TTY": "/dev/pts/1"}, "linux", False),
        ({"BROWSER": "x", "SSH_CONNECTION": "1 2 3 4"}, "linux", True),
        ({}, "darwin", True),
        ({"SSH_CONNECTION": "1 2 3 4"}, "darwin", False),
    ],
    ids=str,
)
def test_who_would_see_a_browser(environ: dict[str, str], platform: str, seen: bool) -> None:
    assert has_display(environ, platform) is seen


@pytest.mark.parametrize(
    ("environ", "terminal", "attended"),
    [
        ({}, "/nowhere/tty", False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "1 2 3 4"}, "/nowhere/tty", False),
        ({"DISPLAY": ":0"}, "/nowhere/tty", True),
        ({"BROWSER": "x"}, "/nowhere/tty", True),
        ({}, "/dev/null", True),
    ],
    ids=["nothing", "a forwarded display", "a display", "a browser", "a terminal"],
)
def test_whether_somebody_can_sign_in(
    environ: dict[str, str], terminal: str, attended: bool
) -> None:
    assert is_attended(environ, terminal=terminal) is attended


def script(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "browser"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def eventually(path: Path) -> str:
    pause = threading.Event()
    for _ in range(400):
        if path.exists() and path.read_text():
            return path.read_text()
        pause.wait(0.01)
    raise AssertionError(f"{path} did not appear")


def test_the_address_arrives_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", str(script(tmp_path, f'echo "$1" > {tmp_path}/seen')))
    url = "https://auth.x.example.com/a?b=c&d=$(id)&e='%20"
    assert open_address(url)
    assert eventually(tmp_path / "seen") == f"{url}\n"


def test_a_browser_that_stays_and_talks_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    text = f"echo noise; echo noise >&2; echo $$ > {tmp_path}/pid; exec sleep 30"
    monkeypatch.setenv("BROWSER", str(script(tmp_path, text)))
    began = time.monotonic()
    assert open_address("https://x.test/")
    assert time.monotonic() - began < 2
    browser = int(eventually(tmp_path / "pid"))
    assert os.getsid(browser) != os.getsid(0)
    os.kill(browser, 15)
    assert capfd.readouterr() == ("", "")


def test_no_opener_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert open_address("https://x.test/") is False
