from __future__ import annotations

import argparse

import pytest

from heim_runtime.commands import add_command

DESCRIPTION = "Say hello to somebody, in words that are many enough to need a second line of it."


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="heim-test")
    commands = made.add_subparsers(dest="command")
    hello = add_command(commands, "hello", "say hello", DESCRIPTION, "heim-test hello --to you")
    hello.add_argument("--to")
    return made


def test_help_fills_the_description_and_keeps_the_examples(
    parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["hello", "--help"])
    said = capsys.readouterr().out
    assert "need a second line of\nit." in said
    assert "examples:\n  heim-test hello --to you\n" in said


def test_options_are_not_guessed_from_their_beginning(parser: argparse.ArgumentParser) -> None:
    assert parser.parse_args(["hello", "--to", "you"]).to == "you"
    with pytest.raises(SystemExit):
        parser.parse_args(["hello", "--t", "you"])
