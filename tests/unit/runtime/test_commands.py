from __future__ import annotations

import argparse

import pytest

from heim_runtime.commands import add_command, lazy, run_command
from heim_runtime.complaints import Complaint

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


class Several(Complaint):
    @property
    def lines(self) -> tuple[str, ...]:
        return ("one", "two")


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (Complaint("no", 75, detail="because"), 75, ["no"]),
        (Several("one; two", 2), 2, ["one", "two"]),
        (KeyboardInterrupt(), 130, ["stopped"]),
        (ValueError("x"), 70, ["this is a bug: ValueError: x; -v shows where, please report"]),
    ],
    ids=["complaint", "several lines", "Ctrl-C", "a bug"],
)
def test_what_ends_a_command_early_is_said(
    raised: BaseException, status: int, said: list[str]
) -> None:
    def command() -> int:
        raise raised

    told: list[str] = []
    assert run_command(command, told.append, verbose=False, switch="-v") == status
    assert told == said


def test_verbose_says_more() -> None:
    def complaining() -> int:
        raise Complaint("no", 75, detail="because")

    def broken() -> int:
        raise ValueError("x")

    told: list[str] = []
    assert run_command(complaining, told.append, verbose=True, switch="-v") == 75
    assert told == ["no", "because"]
    with pytest.raises(ValueError, match="x"):
        run_command(broken, told.append, verbose=True, switch="-v")


def test_a_command_that_is_done_says_nothing() -> None:
    told: list[str] = []
    assert run_command(lambda: 1, told.append, verbose=True, switch="-v") == 1
    assert told == []
