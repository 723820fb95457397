"""The references say what programs take, heed and exit with; commands that are shown are taken."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import PAGES
from tests.docs.programs import PROGRAMS, PROXY, Program, invocations

SHOWN = [
    pytest.param(program, arguments, id=f"{place} {program.name} {' '.join(arguments)}")
    for program in PROGRAMS
    for place, arguments in (*program.shown(), *program.examples())
    if arguments not in (["--help"], ["--version"])
]
SETTINGS = [
    pytest.param(program, variable, id=f"{program.name} {variable}")
    for program in PROGRAMS
    for variable in program.environment
    if variable.isupper()
]
each = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)


@each
def test_every_command_and_option_is_in_the_reference(program: Program) -> None:
    text = program.page.text
    for name, parser in program.commands():
        assert f"`{name}`" in text
        for action in parser._actions:
            flags = action.option_strings
            assert action.dest == "help" or not flags or f"`{flags[0]}" in text, f"{name} {flags}"


@pytest.mark.parametrize(("program", "arguments"), SHOWN)
def test_commands_that_are_shown_are_taken(program: Program, arguments: list[str]) -> None:
    program.parser().parse_args(arguments)


def test_a_wrong_command_would_be_noticed() -> None:
    line = "sudo .venv/bin/heim-proxy session lst --config x | cat"
    (arguments,) = invocations(line, "heim-proxy")
    assert arguments == ["session", "lst", "--config", "x"]
    with pytest.raises(SystemExit):
        PROXY.parser().parse_args(arguments)


@each
def test_every_command_has_a_chapter_and_an_example_there(program: Program) -> None:
    shown = [
        " ".join((program.name, *arguments))
        for place, arguments in program.shown()
        if place.startswith(program.reference)
    ]
    for name, _ in program.commands():
        assert f"\n## {' '.join(name.split()[:2])}\n" in program.page.text
        assert any(one.startswith(name) for one in shown), name


@each
def test_every_command_has_an_example_in_its_help(program: Program) -> None:
    shown = {name.split()[1] for name, text in program.epilogs() if program.name in text}
    assert sorted({name.split()[1] for name, _ in program.commands()} - shown) == []


@each
def test_commands_in_running_text_exist(program: Program) -> None:
    known = {name.split()[1] for name, _ in program.commands()}
    named = {
        (one.name, word)
        for one in PAGES
        for word in re.findall(rf"`{program.name} ([a-z-]+)", one.prose)
    }
    assert named
    assert sorted(pair for pair in named if pair[1] not in known) == []


@pytest.mark.parametrize(("program", "variable"), SETTINGS)
def test_every_setting_is_explained(program: Program, variable: str) -> None:
    assert f"`{variable}`" in program.chapter("Environment")


@each
def test_environment_twins_are_explained_and_settings(program: Program) -> None:
    twins = program.twins()
    assert twins
    assert twins <= set(program.environment or twins)
    assert sorted(one for one in twins if f"`{one}`" not in program.page.text) == []


@each
def test_every_exit_status_is_explained_and_no_other(program: Program) -> None:
    rows = re.findall(r"^\| (\d[\d, ]*) \|", program.chapter("Exit status"), re.MULTILINE)
    assert {int(number) for row in rows for number in row.split(",")} == program.statuses
