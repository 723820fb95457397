"""The reference of `heim-controller`: events and metrics."""

from __future__ import annotations

import ast
import re

from heim_controller.metrics import FAMILIES
from tests.docs.pages import ROOT, page
from tests.docs.programs import CONTROLLER

_SOURCES = ROOT / "controller/heim_controller"
_EVENTS = re.compile(r"(controller|kube)\.[a-z_]+")


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
    assert CONTROLLER.explained_events() == said


def test_every_metric_is_explained() -> None:
    text = page("docs/reference/metrics.md").text
    assert [one.name for one in FAMILIES if f"`{one.name}`" not in text] == []
