from __future__ import annotations

import argparse

import pytest

from heim_runtime.commands import add_command, lazy

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


def test_a_summary_says_enough_of_a_small_command(capsys: pytest.CaptureFixture[str]) -> None:
    made = argparse.ArgumentParser(prog="heim-test")
    add_command(made.add_subparsers(), "list", "who is signed in")
    with pytest.raises(SystemExit):
        made.parse_args(["list", "--help"])
    said = capsys.readouterr().out
    assert "\nWho is signed in.\n" in said
    assert "examples" not in said


def test_a_command_is_imported_when_it_runs() -> None:
    with pytest.raises(ModuleNotFoundError):
        lazy("heim_runtime.nothing_of_that_name")()
    assert lazy("operator", "add")(2, 3) == 5
