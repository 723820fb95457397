"""What the code can say to people, collected from its source: error codes, titles, events.

Read from the syntax tree, so that a new one is found without anybody adding it to a list.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from heim_proxy.access.policy import DenyReason
from heim_proxy.agents.words import _DIALS
from heim_proxy.live import EndReason
from heim_wire.errors import FAILURES, Code
from tests.docs.pages import ROOT

__all__ = ["access_log_ends", "audit_events", "edge_codes", "log_events", "portal_titles"]

_PROXY = ROOT / "proxy/heim_proxy"
_RUNTIME = ROOT / "proxy/heim_runtime"


def _calls(folder: Path) -> Iterator[ast.Call]:
    for path in sorted(folder.rglob("*.py")):
        if "demo" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    yield node


def _called(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _text(node: ast.expr) -> str | None:
    """A string as people read it; what is filled in becomes an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "…"  # type: ignore[misc]
            for part in node.values
        )
    return None


def _argument(call: ast.Call, position: int) -> str | None:
    return _text(call.args[position]) if len(call.args) > position else None


def edge_codes() -> set[str]:
    """Every `code` of the edge's refusals."""
    codes = {
        code
        for call in _calls(_PROXY / "edge")
        if _called(call) == "Refusal" and (code := _argument(call, 1)) is not None
    }
    codes |= _agent_codes()
    return codes | {reason.value for reason in DenyReason} | {reason.value for reason in EndReason}


def _agent_codes() -> set[str]:
    """What requests through an agent are refused with."""
    named = {
        getattr(Code, call.args[0].attr)
        for call in _calls(_PROXY / "agents")
        if _called(call) == "AgentDialError" and isinstance(call.args[0], ast.Attribute)
        if hasattr(Code, call.args[0].attr)
    }
    return {FAILURES[code].slug for code in (*named, *_DIALS)}


def portal_titles() -> set[str]:
    """Every title of the sign-in pages' errors."""
    titles: set[str] = set()
    for path in sorted((_PROXY / "portal").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _called(node) == "PortalError":
                titles.add(_argument(node, 1) or "")
            elif isinstance(node, ast.Call) and _called(node) == "_start_over":
                titles.add(_argument(node, 2) or "")
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                names = [getattr(one, "id", "") for one in node.targets[0].elts]
                if "title" in names and isinstance(node.value, ast.Tuple):
                    titles.add(_text(node.value.elts[names.index("title")]) or "")
    return titles - {""}


def log_events() -> set[str]:
    """Every event name that is logged."""
    found: set[str] = set()
    for folder in (_PROXY, _RUNTIME):
        for call in _calls(folder):
            if _called(call) in ("debug", "info", "warning", "error", "exception", "_complain"):
                event = _argument(call, 0)
                if event is not None and "." in event and " " not in event:
                    found.add(event)
    return found


def audit_events() -> set[str]:
    """Every audit event."""
    found: set[str] = set()
    for call in _calls(_PROXY):
        if _called(call) in ("emit", "audit"):
            event = _argument(call, 0)
            if event is not None:
                found.add(event)
    return found


def access_log_ends() -> set[str]:
    """Every value of the access log's `end` that is no error code."""
    found: set[str] = set()
    for path in sorted((_PROXY / "edge").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and _called(node) in ("_cut", "_goodbye"):
                found.add(_argument(node, 0) or "")
            elif isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Attribute) and target.attr == "end_reason"
                for target in node.targets
            ):
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        found.add(part.value)
    return found - {""}
