"""The reference of `heim-agent`: files and events."""

from __future__ import annotations

import ast
import re

import pytest

from heim_agent.config import parse
from tests.docs.pages import PAGES, ROOT
from tests.docs.programs import AGENT

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


@pytest.mark.parametrize(("place", "text"), _FILES, ids=[place for place, _ in _FILES])
def test_files_that_are_shown_are_taken(place: str, text: str) -> None:
    assert parse(text.encode(), place).targets


def test_there_are_files_to_look_at() -> None:
    assert {place.rpartition(":")[0] for place, _ in _FILES} >= {
        "docs/reference/heim-agent.md", "docs/howto/agents.md",
    }  # fmt: skip


def test_every_event_of_the_log_is_explained_and_no_other() -> None:
    said = {
        node.value
        for path in (ROOT / "agent/heim_agent").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _EVENTS.fullmatch(node.value)
    } - _FILE_NAMES
    assert AGENT.explained_events() == said
