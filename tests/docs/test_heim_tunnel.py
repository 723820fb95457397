"""The reference of `heim-tunnel`: the doctor's steps and the messages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from heim_tunnel.doctor import _STEPS
from tests.docs.pages import ROOT, page
from tests.docs.programs import TUNNEL


def test_every_step_of_the_doctor_is_explained() -> None:
    for name in (*(step[0] for step in _STEPS), "clock", "idle"):
        assert f"| `{name}` |" in TUNNEL.page.text


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
