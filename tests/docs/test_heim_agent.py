"""The reference of `heim-agent` says what the program takes, heeds, logs and exits with."""

from __future__ import annotations

import ast
import re

import pytest

from heim_agent import complaints
from heim_agent.arguments import ENVIRONMENT, build_parser
from heim_agent.config import parse
from heim_runtime.complaints import NO_HOST
from tests.docs.generated import agent_commands
from tests.docs.pages import PAGES, ROOT, page
from tests.docs.test_commands import invocations

_PAGE = page("docs/reference/heim-agent.md")
_SHOWN = [
    (f"{one.name}:{fence.line}", arguments)
    for one in PAGES
    for fence in one.of("sh")
    for arguments in invocations(fence.text, "heim-agent")
]
_FILES = [
    (f"{one.name}:{fence.line}", fence.text)
    for one in PAGES
    for fence in one.of("toml")
    if "[targets." in fence.text
]
_EVENTS = re.compile(
    r"(agent|certificate|identity|lane|link|machine|settings|status|stream)\.[a-z_]+"
)
_FILE_NAMES = {"certificate.pem", "identity.json", "status.json"}


def _part(title: str) -> str:
    """A chapter of the page."""
    return _PAGE.text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_command_and_option_is_in_the_reference() -> None:
    for name, parser in agent_commands():
        assert f"`{name}`" in _PAGE.text
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag in ("-h", "--help") or f"`{flag}" in _PAGE.text, flag


@pytest.mark.parametrize(
    ("place", "arguments"), _SHOWN, ids=[f"{place} {' '.join(words)}" for place, words in _SHOWN]
)
def test_commands_that_are_shown_are_taken(place: str, arguments: list[str]) -> None:
    build_parser().parse_args(arguments)


@pytest.mark.parametrize(("place", "text"), _FILES, ids=[place for place, _ in _FILES])
def test_files_that_are_shown_are_taken(place: str, text: str) -> None:
    assert parse(text.encode(), place).targets


def test_there_are_files_to_look_at() -> None:
    assert {place.rpartition(":")[0] for place, _ in _FILES} >= {
        "docs/reference/heim-agent.md", "docs/howto/agents.md",
    }  # fmt: skip


def test_every_command_has_a_chapter_with_an_example() -> None:
    shown = {words[0] for place, words in _SHOWN if place.startswith(_PAGE.name)}
    for name, _ in agent_commands():
        assert f"\n## {name}\n" in _PAGE.text
        assert name.split()[1] in shown


def test_commands_in_running_text_exist() -> None:
    known = {name.split()[1] for name, _ in agent_commands()}
    named = {
        (one.name, word)
        for one in PAGES
        for word in re.findall(r"`heim-agent ([a-z-]+)", one.prose)
    }
    assert named
    assert sorted(pair for pair in named if pair[1] not in known) == []


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_every_setting_is_explained(variable: str) -> None:
    assert f"`{variable}`" in _part("Environment")


def test_environment_twins_are_settings() -> None:
    helps = [action.help or "" for _, parser in agent_commands() for action in parser._actions]
    twins = {found for text in helps for found in re.findall(r"HEIM_\w+", text)}
    assert twins
    assert twins <= set(ENVIRONMENT)


def test_every_exit_status_is_explained() -> None:
    statuses = {
        getattr(complaints, name)
        for name in ("OK", "FAILED", "USAGE", "UNAVAILABLE", "TRY_LATER", "PROTOCOL", "AUTH",
                     "SOFTWARE", "INTERRUPTED")
    }  # fmt: skip
    listed = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+) \|", _part("Exit status"), re.MULTILINE)
        for number in row.split(",")
    }
    assert listed == statuses | {NO_HOST, 143}


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    said = {
        node.value
        for path in (ROOT / "agent/heim_agent").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _EVENTS.fullmatch(node.value)
    } - _FILE_NAMES
    rows = re.findall(r"^\| (`[^|]+`) \| [a-z, ]+ \|", _part("Log"), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert explained == said
