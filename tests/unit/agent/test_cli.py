from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from heim_agent import cli
from heim_agent.files import LOCK
from heim_runtime.complaints import FAILED, INTERRUPTED, OK, SOFTWARE, USAGE
from heim_runtime.version import version
from tests.unit.test_layout import loaded

IN_PROCESS = """
import contextlib, io
from heim_agent.cli import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["version"], ["join", "--help"], ["status", "--state", "/nowhere"]],
    ids=" ".join,
)
def test_help_version_and_status_load_nothing_heavy(words: list[str]) -> None:
    found = loaded(IN_PROCESS, *words)
    assert "heim_agent.cli" in found
    for heavy in ("cryptography", "jwt", "asyncio", "ssl", "uvloop", "http", "logging"):
        assert heavy not in found, f"{heavy} was imported for {words}"


@pytest.mark.parametrize("words", [["--version"], ["version"]], ids=" ".join)
def test_the_version_is_told(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == OK
    assert capfd.readouterr().out == f"heim-agent {version()}\n"


def test_without_a_command_it_helps(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == USAGE
    assert "usage: heim-agent" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), INTERRUPTED, "heim-agent: stopped\n"),
        (
            ValueError("x"),
            SOFTWARE,
            "heim-agent: this is a bug: ValueError: x; HEIM_LOG_LEVEL=debug shows where, please "
            "report\n",
        ),
    ],
    ids=["Ctrl-C", "a bug"],
)
def test_every_end_has_its_line_and_status(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    raised: BaseException,
    status: int,
    said: str,
) -> None:
    def command(*_: object) -> int:
        raise raised

    monkeypatch.setattr("heim_agent.status.command", command)
    assert cli.main(["status"]) == status
    assert capfd.readouterr().err == said


def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m heim_agent install 2>{tmp_path}/err | head -c 1; "
         "exit ${PIPESTATUS[0]}"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode in (OK, FAILED)
    assert (tmp_path / "err").read_text() == ""


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGTERM, 143, b""),
        (signal.SIGINT, INTERRUPTED, b"heim-agent: stopped\n"),
    ],
    ids=["SIGTERM", "Ctrl-C"],
)
def test_a_signal_ends_a_command_cleanly(
    tmp_path: Path, number: signal.Signals, status: int, said: bytes
) -> None:
    """In the middle of `join`, which waits for an answer."""
    token = tmp_path / "token"
    token.write_text("heim_jt_abcdefgh_secret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [
            "join", f"http://127.0.0.1:{listener.getsockname()[1]}",
            "--token-file", str(token), "--state", str(tmp_path / "state"),
        ]  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-m", "heim_agent", *words], stderr=subprocess.PIPE
        ) as process:
            listener.settimeout(10)
            sock, _ = listener.accept()
            with sock:
                assert sock.recv(1)
                process.send_signal(number)
                _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (status, said)
    # Its key is kept for the next attempt: the proxy may have enrolled it by then.
    assert set(os.listdir(tmp_path / "state")) == {LOCK, "joining.pem"}


@pytest.mark.parametrize("before", [[], ["--token"], ["--token-file"]], ids=str)
def test_a_token_on_the_command_line_is_refused_and_not_repeated(
    before: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    token = f"heim_jt_{'0' * 16}_{'canary' * 6}"
    assert cli.main(["join", "https://auth.example.test", *before, token]) == USAGE
    said = capfd.readouterr().err
    assert "--token-file -" in said
    assert "canary" not in said
