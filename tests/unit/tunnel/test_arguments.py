"""The commands and options that there are, and that help is instant and useful."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import pytest

from heim_tunnel.arguments import build_parser
from tests.unit.tunnel.conftest import Run


def commands() -> dict[str, argparse.ArgumentParser]:
    (group,) = (
        one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)
    )
    return dict(group.choices)


def test_every_command_of_the_issue_is_there() -> None:
    assert set(commands()) == {
        "proxy", "login", "logout", "init", "status", "list", "forward", "ssh-config", "doctor",
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_shows_an_example_and_explains_each_argument(name: str) -> None:
    parser = commands()[name]
    assert "heim-tunnel" in (parser.epilog or "")
    for action in parser._actions:
        assert action.help, action


@pytest.mark.parametrize("name", sorted(commands()))
def test_options_that_reach_a_host_are_everywhere_the_same(name: str) -> None:
    if name != "status":
        options = set(commands()[name]._option_string_actions)
        assert {"--ca-file", "--connect-to", "-v", "--verbose"} <= options


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["list"], "ca_file", "/ca.pem"),
        (["list"], "token_file", "/token"),
        (["list", "--ca-file", "/other"], "ca_file", "/other"),
        (["forward", "db", "--token-file", "/other"], "token_file", "/other"),
    ],
)
def test_an_option_beats_its_environment_variable(
    words: list[str], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEIM_CA_FILE", "/ca.pem")
    monkeypatch.setenv("HEIM_TOKEN_FILE", "/token")
    assert getattr(build_parser().parse_args(words), name) == value


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["doctor", "--help"]], ids=" ".join)
def test_help_is_for_standard_output(words: list[str], run: Run) -> None:
    done = run(*words)
    assert (done.status, done.err) == (0, "")
    assert "heim-tunnel" in done.out


def test_help_imports_nothing_of_what_it_describes() -> None:
    code = (
        "import sys, contextlib\n"
        "from heim_tunnel.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['--help'])\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    loaded = set(told.stderr.split())
    assert "heim_tunnel.arguments" in loaded
    for heavy in ("asyncio", "http.client", "websockets", "heim_tunnel.doctor", "urllib.request"):
        assert heavy not in loaded
