from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heim_agent import cli
from heim_agent.status import describe
from heim_runtime.complaints import FAILED, OK
from tests.fakes.agent_streams import Signer, identity_of

NOW = 1_800_000_000.0
CONNECTED: dict[str, Any] = {
    "agent": "desktop",
    "login_url": "https://auth.example.test",
    "pid": 4711,
    "started": NOW - 7300,
    "connected": True,
    "lanes": [
        {"lane": 0, "state": "connected", "since": NOW - 7200, "streams": 3,
         "targets": ["web", "ssh"]},
        {"lane": 1, "state": "waiting", "error": "the proxy is busy", "retry_at": NOW + 12},
    ],
    "certificate": {"expires": NOW + 50_000, "problem": "", "unsaved": ""},
    "clock_off_s": 0.4,
    "last_error": "",
}  # fmt: skip


def told(**changed: Any) -> str:
    return "\n".join(describe(CONNECTED | changed, NOW))


def test_a_connected_agent_says_since_when_and_until_when() -> None:
    text = told()
    assert text.startswith("agent desktop of https://auth.example.test\nconnected since ")
    assert "(2 hours ago) (1 of 2 lanes)" in text
    assert "streams: 3" in text
    assert "targets that the proxy knows of: ssh, web" in text
    assert "lane 1: the proxy is busy; trying again in 12 seconds" in text
    assert "(14 hours), renewed by itself" in text
    assert "process 4711" in text
    assert "clock" not in text


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"lanes": []}, "not connected"),
        (
            {"lanes": [{"lane": 0, "state": "waiting", "error": "revoked"}]},
            "lane 0: revoked; trying again",
        ),
        ({"clock_off_s": 600.0}, "this machine's clock is 10 minutes ahead of the proxy's"),
        ({"clock_off_s": -600.0}, "this machine's clock is 10 minutes behind the proxy's"),
        ({"last_error": "the line broke"}, "last error: the line broke"),
        (
            {"certificate": {"expires": NOW + 60, "problem": "busy", "unsaved": ""}},
            "the last renewal failed: busy",
        ),
        (
            {"certificate": {"expires": NOW + 60, "unsaved": "cannot save to /x: full"}},
            "cannot save to /x: full",
        ),
    ],
)
def test_what_is_wrong_has_a_line(changed: dict[str, Any], line: str) -> None:
    assert line in told(**changed).splitlines()


def test_names_that_differ_from_the_proxys_have_a_line() -> None:
    lane = CONNECTED["lanes"][0] | {"targets": ["shh", "web"], "targets_whole": True}
    text = told(lanes=[lane], serves=["ssh", "web"])
    assert "\nthe proxy asks for shh, agent.toml has ssh: " in text
    assert "asks for" not in told(lanes=[lane], serves=["shh", "web"])


@pytest.mark.parametrize(
    ("lane", "line"),
    [
        (
            {"error": "agent desktop was revoked", "code": "revoked"},
            "certificate: worth nothing any more, as this machine is not enrolled",
        ),
        ({"error": "busy", "code": "busy"}, "renewed once it is connected"),
    ],
    ids=["revoked", "away"],
)
def test_a_certificate_is_renewed_only_where_the_agent_is_let_in(
    lane: dict[str, str], line: str
) -> None:
    text = told(connected=False, lanes=[{"lane": 0, "state": "waiting", **lane}])
    assert line in text
    assert "by itself" not in text


def test_a_question_keeps_its_mark() -> None:
    lane = {"lane": 0, "state": "waiting", "error": "was a disk cloned?", "retry_at": NOW + 60}
    assert "lane 0: was a disk cloned? trying again in 1 minute" in told(lanes=[lane])


def test_a_certificate_that_ended_says_what_to_do() -> None:
    assert "run: heim-agent join" in told(certificate={"expires": NOW - 60})


@pytest.mark.parametrize(
    "damage",
    [
        {"lanes": 7},
        {"lanes": [7, None]},
        {"certificate": []},
        {"certificate": {"expires": float("inf")}},
        {"started": 1e300, "pid": "x", "agent": None},
    ],
    ids=str,
)
def test_a_file_of_another_version_is_shown_as_far_as_it_goes(damage: dict[str, Any]) -> None:
    assert told(**damage)


# -- the command ----------------------------------------------------------------------------------

HOLDER = """
import sys
from heim_agent.files import Lock
with Lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    identity_of(tmp_path, Signer())
    return tmp_path / "state"


@pytest.fixture
def running(state: Path) -> Iterator[Path]:
    """A state that another process works with."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(state)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield state
        holder.kill()


def status(state: Path, *more: str) -> int:
    return cli.main(["status", "--state", str(state), *more])


def test_connected_is_0(running: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (running / "status.json").write_text(json.dumps(CONNECTED))
    assert status(running) == OK
    first, second, *_ = capfd.readouterr().out.splitlines()
    assert first == "agent desktop of https://auth.example.test"
    assert second.startswith("  connected since ")


def test_running_and_not_connected_is_1(running: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (running / "status.json").write_text(json.dumps(CONNECTED | {"connected": False, "lanes": []}))
    assert status(running) == FAILED
    assert "  not connected\n" in capfd.readouterr().out


def test_what_a_dead_agent_left_is_not_believed(
    state: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """kill -9 leaves the file; its lock ended with it."""
    (state / "status.json").write_text(json.dumps(CONNECTED))
    (state / ".lock").write_text(f"{os.getpid()}\n")
    assert status(state) == FAILED
    assert capfd.readouterr().out == (
        "agent desktop of https://auth.example.test: not running; run: heim-agent run, or: "
        "systemctl start heim-agent\n"
    )


def test_a_machine_that_has_not_joined_is_told_how(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(tmp_path / "none") == FAILED
    said = capfd.readouterr().out
    assert said.startswith(f"not joined: there is no identity in {tmp_path}/none")
    assert said.endswith("; run: heim-agent join\n")


def test_programs_get_json(running: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (running / "status.json").write_text(json.dumps(CONNECTED))
    assert status(running, "--json") == OK
    assert json.loads(capfd.readouterr().out) == {"running": True, **CONNECTED}


def test_programs_get_json_of_nothing_too(state: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert status(state, "--json") == FAILED
    assert json.loads(capfd.readouterr().out) == {"running": False, "connected": False}


def test_a_damaged_file_is_said_to_be(running: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (running / "status.json").write_text("{")
    assert status(running) == FAILED
    assert "is damaged" in capfd.readouterr().err


def test_nothing_in_the_file_moves_the_cursor(
    running: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = CONNECTED | {"last_error": "\x1b[2J\nroot", "started": time.time()}
    (running / "status.json").write_text(json.dumps(found))
    status(running)
    assert "  last error: [2J root\n" in capfd.readouterr().out


def test_an_agent_that_cannot_write_its_status_is_said_to_run(
    running: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status(running) == FAILED
    assert capfd.readouterr().out.startswith(f"it runs, and has written no {running}/status.json")
    assert status(running, "--json") == FAILED
    assert json.loads(capfd.readouterr().out) == {"running": True, "connected": False}
