"""The reference of `heim-tunnel` says what the program takes, heeds and exits with."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from heim_tunnel import complaints
from heim_tunnel.arguments import build_parser
from heim_tunnel.status import ENVIRONMENT
from heim_wire.errors import FAILURES
from tests.docs.generated import tunnel_commands
from tests.docs.pages import PAGES, ROOT, page
from tests.docs.test_commands import invocations

_PAGE = page("docs/reference/heim-tunnel.md")
_SHOWN = [
    (f"{one.name}:{fence.line}", arguments)
    for one in PAGES
    for fence in one.of("sh")
    for arguments in invocations(fence.text, "heim-tunnel")
]


def test_every_command_and_option_is_in_the_reference() -> None:
    for name, parser in tunnel_commands():
        assert f"`{name}`" in _PAGE.text
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag in ("-h", "--help", "--verbose") or f"`{flag}" in _PAGE.text, flag


@pytest.mark.parametrize(
    ("place", "arguments"), _SHOWN, ids=[f"{place} {' '.join(words)}" for place, words in _SHOWN]
)
def test_commands_that_are_shown_are_taken(place: str, arguments: list[str]) -> None:
    build_parser().parse_args(arguments)


def test_every_command_has_a_chapter_with_an_example() -> None:
    shown = {words[0] for place, words in _SHOWN if place.startswith(_PAGE.name)}
    for name, _ in tunnel_commands():
        assert f"\n## {name}\n" in _PAGE.text
        assert name.split()[1] in shown


def test_commands_in_running_text_exist() -> None:
    known = {name.split()[1] for name, _ in tunnel_commands()}
    named = {
        (one.name, word)
        for one in PAGES
        for word in re.findall(r"`heim-tunnel ([a-z-]+)", one.prose)
    }
    assert named
    assert sorted(pair for pair in named if pair[1] not in known) == []


@pytest.mark.parametrize("variable", [one for one in ENVIRONMENT if one.isupper()])
def test_every_setting_is_explained(variable: str) -> None:
    table = _PAGE.text[_PAGE.text.index("## Environment") : _PAGE.text.index("## Files")]
    assert f"`{variable}`" in table


def test_environment_twins_are_settings_that_status_shows() -> None:
    helps = [action.help or "" for _, parser in tunnel_commands() for action in parser._actions]
    twins = {found for text in helps for found in re.findall(r"HEIM_\w+", text)}
    assert twins
    assert twins <= set(ENVIRONMENT)


def test_every_exit_status_is_explained() -> None:
    statuses = {failure.exit_status for failure in FAILURES.values()}
    statuses |= {
        getattr(complaints, name)
        for name in ("OK", "FAILED", "USAGE", "NO_HOST", "UNAVAILABLE", "TRY_LATER", "PROTOCOL",
                     "AUTH", "SOFTWARE", "INTERRUPTED")
    }  # fmt: skip
    chapter = _PAGE.text[_PAGE.text.index("## Exit status") :]
    listed = {
        int(number)
        for row in re.findall(r"^\| ([\d, ]+) \|", chapter, re.MULTILINE)
        for number in row.split(",")
    }
    assert listed == statuses | {143}


def test_every_step_of_the_doctor_is_explained() -> None:
    from heim_tunnel.doctor import _STEPS

    for name in (*(step[0] for step in _STEPS), "clock", "idle"):
        assert f"| `{name}` |" in _PAGE.text


def _said() -> Iterator[str]:
    """Every piece of text in the sources of what heim-tunnel may print."""
    for where in (
        "tunnel-cli/heim_tunnel", "proxy/heim_proxy/tunnel", "proxy/heim_proxy/agents",
        "proxy/heim_wire", "proxy/heim_runtime",
    ):  # fmt: skip
        for path in (ROOT / where).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


def test_the_messages_that_are_explained_are_those_that_it_prints() -> None:
    text = page("docs/howto/troubleshooting.md").text
    table = text[text.index("## What heim-tunnel says") : text.index("## WebSockets do not")]
    messages = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(messages) > 20
    said = "\n".join(_said())
    pieces = {piece for message in messages for piece in re.split(r" ?…[:.,]? ?|[;:] ", message)}
    assert sorted(piece for piece in pieces if piece not in said) == []
