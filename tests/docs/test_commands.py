"""Every `heim-proxy …` that the documentation shows is one that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import PurePath

import pytest

from heim_proxy.cli.main import build_parser
from tests.docs.generated import commands
from tests.docs.pages import PAGES, page

_SEPARATORS = frozenset("|&;()<>$")


def invocations(text: str, program: str = "heim-proxy") -> Iterator[list[str]]:
    """The arguments of every command of a program in shell text."""
    for line in text.replace("\\\n", " ").split("\n"):
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        command: list[str] = []
        for word in (*words, ";"):
            if set(word) <= _SEPARATORS:
                yield from _arguments(command, program)
                command = []
            else:
                command.append(word)


def _arguments(command: list[str], program: str) -> Iterator[list[str]]:
    if command[:2] == ["sudo", "-u"]:
        command = command[3:]
    elif command[:1] == ["sudo"]:
        command = command[1:]
    while command and re.match(r"\w+=", command[0]):
        command = command[1:]
    if command and PurePath(command[0]).name == program:
        yield command[1:]


def _shown() -> Iterator[tuple[str, list[str]]]:
    for one in PAGES:
        for fence in one.of("sh"):
            for arguments in invocations(fence.text):
                yield f"{one.name}:{fence.line}", arguments
        for fence in one.of("ini"):
            for start in re.findall(r"^ExecStart=(.*)$", fence.text, re.MULTILINE):
                yield f"{one.name}:{fence.line}", next(invocations(start))


_SHOWN = list(_shown())


@pytest.mark.parametrize(
    ("place", "arguments"), _SHOWN, ids=[f"{place} {' '.join(words)}" for place, words in _SHOWN]
)
def test_shown_commands_are_taken(place: str, arguments: list[str]) -> None:
    if arguments in (["--help"], ["--version"]):
        return
    build_parser().parse_args(arguments)


def test_a_wrong_command_would_be_noticed() -> None:
    (arguments,) = invocations("sudo .venv/bin/heim-proxy session lst --config x | cat")
    assert arguments == ["session", "lst", "--config", "x"]
    with pytest.raises(SystemExit):
        build_parser().parse_args(arguments)


def test_commands_in_running_text_exist() -> None:
    known = {name.split()[1] for name, _ in commands()}
    named = {
        (one.name, word) for one in PAGES for word in re.findall(r"`heim-proxy ([a-z]+)", one.prose)
    }
    assert named
    assert sorted(pair for pair in named if pair[1] not in known) == []


def test_every_command_has_an_example() -> None:
    examples = page("docs/reference/cli.md")
    shown = [" ".join(args) for fence in examples.of("sh") for args in invocations(fence.text)]
    missing = [
        name
        for name, _ in commands()
        if not any(one.startswith(name.removeprefix("heim-proxy ")) for one in shown)
    ]
    assert missing == []
