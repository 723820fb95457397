from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from heim_proxy.cli.main import build_parser, main
from heim_runtime.version import version

COMMANDS = [
    *("run", "check", "init", "keygen", "explain", "session", "subject", "token", "agent", "demo")
]
WORDS = [
    ["run"],
    ["check"],
    ["init"],
    ["keygen", "session"],
    ["keygen", "assertion"],
    ["keygen", "ca"],
    ["explain", "--as", "a@b.c", "GET", "https://a.b/"],
    ["session", "list"],
    ["session", "revoke", "--everybody"],
    ["subject", "list"],
    ["subject", "unpin", "a@b.c"],
    ["token", "create", "backup"],
    ["token", "list"],
    ["token", "revoke", "--account", "backup"],
    ["agent", "list"],
    ["agent", "revoke", "office"],
    ["agent", "revoke", "--id", "x"],
    ["agent", "token", "create", "office"],
    ["agent", "token", "list"],
    ["agent", "token", "revoke", "x"],
    ["demo"],
]


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def exits(argv: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    told = capsys.readouterr()
    assert isinstance(caught.value.code, int)
    return caught.value.code, told.out, told.err


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_command_leads_to_a_function_that_exists(words: list[str]) -> None:
    args = build_parser().parse_args(words)
    assert callable(args.run)
    closure = args.run.__closure__
    module, name = sorted(
        (cell.cell_contents for cell in closure), key=lambda text: not text.startswith("heim_proxy")
    )
    assert callable(getattr(__import__(module, fromlist=[name]), name))


def test_every_command_has_help_and_every_flag_too() -> None:
    for parser in parsers(build_parser()):
        for action in parser._actions:
            if not isinstance(action, argparse._SubParsersAction) and action.dest not in (
                "kind", "email",
            ):  # fmt: skip
                assert action.help, (parser.prog, action.dest)


def test_help_lists_the_commands_and_an_example_to_paste(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = exits(["--help"], capsys)
    assert (code, err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^    {command} ", out, re.MULTILINE)
    examples = [line for line in out.splitlines() if line.startswith("  heim-proxy ")]
    assert len(examples) >= 5
    for line in examples:
        words = re.sub(r"(?: >| {2}).*", "", line.strip()).split()[1:]
        build_parser().parse_args(words)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(["--version"], capsys) == (0, f"heim-proxy {version()}\n", "")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["serve"],
        ["keygen", "rsa"],
        ["check", "--conf", "heim.yaml"],
        ["run", "--log-level", "loud"],
        ["explain", "GET", "https://a.b/"],
        ["session"],
        ["session", "revoke"],
        ["session", "revoke", "abc", "--everybody"],
        ["agent"],
        ["agent", "token"],
        ["agent", "revoke"],
        ["agent", "revoke", "office", "--id", "x"],
        ["demo", "--port", "0"],
        ["demo", "--port", "65536"],
        ["demo", "--port", "x"],
        ["demo", "--port", "٨٤٤٣"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2_and_on_stderr(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = exits(argv, capsys)
    assert (code, out) == (2, "")
    assert err.startswith("usage: heim-proxy")


@pytest.mark.parametrize(
    ("variable", "words", "name", "value"),
    [
        ("HEIM_CONFIG", ["check"], "config", "/etc/heim.yaml"),
        ("HEIM_DOMAIN", ["init"], "domain", "y.example.com"),
        ("HEIM_ACCESS_LOG", ["run"], "access_log", "/var/log/heim"),
        ("HEIM_LOG_LEVEL", ["run"], "log_level", "debug"),
        ("HEIM_DEMO_PORT", ["demo"], "port", 9443),
        ("HEIM_DEMO_DIR", ["demo"], "dir", "/tmp/demo"),
    ],
)
def test_flags_have_a_twin_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, words: list[str], name: str, value: object
) -> None:
    monkeypatch.setenv(variable, str(value))
    assert getattr(build_parser().parse_args(words), name) == value


def test_a_flag_beats_its_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIM_CONFIG", "one.yaml")
    assert build_parser().parse_args(["check", "--config", "two.yaml"]).config == "two.yaml"


def test_the_exit_status_is_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "session"]) == 0
    assert main(["check", "--config", "/nowhere/heim.yaml"]) == 2
    assert "/nowhere/heim.yaml" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`heim-proxy … | head -0`: status 1 and not a word on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        found = subprocess.run(
            [sys.executable, "-c", "from heim_proxy.cli import main; raise SystemExit(main())",
             "keygen", "assertion"],
            stdout=writer, stderr=subprocess.PIPE, timeout=20, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert found.stderr == b""
    assert found.returncode in (0, 1)
