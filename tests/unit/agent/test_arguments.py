from __future__ import annotations

import argparse

import pytest

from heim_agent.arguments import build_parser


def commands() -> dict[str, argparse.ArgumentParser]:
    (group,) = (
        one for one in build_parser()._actions if isinstance(one, argparse._SubParsersAction)
    )
    return dict(group.choices)


def test_there_are_six_commands() -> None:
    assert list(commands()) == ["join", "run", "status", "targets", "install", "version"]


@pytest.mark.parametrize("name", list(commands()))
def test_every_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        build_parser().parse_args([name, "--help"])
    assert caught.value.code == 0
    assert f"heim-agent {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "words", "name"),
    [
        ("HEIM_CA_FILE", ["join", "u"], "ca_file"),
        ("HEIM_LOG_LEVEL", ["run"], "log_level"),
    ],
)
def test_the_environment_speaks_where_the_command_line_is_silent(
    monkeypatch: pytest.MonkeyPatch, variable: str, words: list[str], name: str
) -> None:
    monkeypatch.setenv(variable, "debug")
    assert getattr(build_parser().parse_args(words), name) == "debug"
    monkeypatch.setenv(variable, "")
    assert getattr(build_parser().parse_args(words), name) in (None, "info")


def test_no_option_takes_a_secret() -> None:
    for parser in commands().values():
        for action in parser._actions:
            assert not {"--token", "--key", "--password", "--secret"} & set(action.option_strings)


def test_words_are_not_guessed() -> None:
    for words in (["joi", "u"], ["join", "u", "--nam", "x"], ["targets", "che"]):
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args(words)
        assert caught.value.code == 2
