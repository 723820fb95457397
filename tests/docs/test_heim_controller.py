"""The reference of `heim-controller` says what the program takes, heeds, logs and exits with."""

from __future__ import annotations

import ast
import re

import pytest

from heim_controller.arguments import ENVIRONMENT, build_parser
from heim_controller.metrics import FAMILIES
from heim_runtime import complaints
from tests.docs.generated import controller_commands
from tests.docs.pages import PAGES, ROOT, page
from tests.docs.test_commands import invocations

_PAGE = page("docs/reference/heim-controller.md")
_SHOWN = [
    (f"{one.name}:{fence.line}", arguments)
    for one in PAGES
    for fence in one.of("sh")
    for arguments in invocations(fence.text, "heim-controller")
]
_SOURCES = ROOT / "controller/heim_controller"
_EVENTS = re.compile(r"(controller|kube)\.[a-z_]+")


def _part(title: str) -> str:
    """A chapter of the page."""
    return _PAGE.text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_command_and_option_is_in_the_reference() -> None:
    for name, parser in controller_commands():
        assert f"`{name}`" in _PAGE.text
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag in ("-h", "--help") or f"`{flag}" in _PAGE.text, flag


@pytest.mark.parametrize(
    ("place", "arguments"), _SHOWN, ids=[f"{place} {' '.join(words)}" for place, words in _SHOWN]
)
def test_commands_that_are_shown_are_taken(place: str, arguments: list[str]) -> None:
    build_parser().parse_args(arguments)


def test_every_command_has_a_chapter_with_an_example() -> None:
    shown = {words[0] for place, words in _SHOWN if place.startswith(_PAGE.name)}
    for name, _ in controller_commands():
        assert f"\n## {name}\n" in _PAGE.text
        assert name.split()[1] in shown


def test_commands_in_running_text_exist() -> None:
    known = {name.split()[1] for name, _ in controller_commands()}
    named = {
        (one.name, word)
        for one in PAGES
        for word in re.findall(r"`heim-controller ([a-z-]+)", one.prose)
    }
    assert named
    assert sorted(pair for pair in named if pair[1] not in known) == []


@pytest.mark.parametrize("variable", ENVIRONMENT)
def test_every_setting_is_explained(variable: str) -> None:
    assert f"`{variable}`" in _part("Environment")


def test_every_exit_status_is_explained() -> None:
    statuses = {complaints.OK, complaints.FAILED, complaints.SOFTWARE, complaints.INTERRUPTED}
    statuses |= {complaints.USAGE, complaints.UNAVAILABLE}
    rows = re.findall(r"^\| (\d+) \|", _part("Exit status"), re.MULTILINE)
    assert {int(number) for number in rows} == statuses


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    calls = [
        call
        for path in _SOURCES.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("debug", "info", "warning", "error", "exception", "log", "_log")
    ]
    said = {
        one.value
        for call in calls
        for one in call.args[:2]
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
        if _EVENTS.fullmatch(one.value)
    }
    rows = re.findall(r"^\| (`[^|]+`) \| [a-z, ]+ \|", _part("Log"), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert explained == said


def test_every_metric_is_explained() -> None:
    text = page("docs/reference/metrics.md").text
    assert [one.name for one in FAMILIES if f"`{one.name}`" not in text] == []
