"""The table of docs/reference/chart.md, made from the comments of the chart's values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from tests.docs.pages import ROOT

__all__ = ["CHART_BLOCKS", "explained"]

VALUES = ROOT / "charts" / "heim" / "values.yaml"
_KEY = re.compile(r"( *)([A-Za-z]+):")


def explained() -> Iterator[tuple[str, str]]:
    """Each value's path and what the comment above it says, in the file's order."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in VALUES.read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            comment = [text.removeprefix("# -- ")]
        elif text.startswith("#") and comment:
            comment.append(text.removeprefix("#").strip())
        elif match := _KEY.match(line):
            depth = len(match[1])
            path = [(inner, name) for inner, name in path if inner < depth]
            path.append((depth, match[2]))
            if comment:
                yield ".".join(name for _, name in path), " ".join(comment)
            comment = []


def _values() -> str:
    defaults = yaml.safe_load(VALUES.read_text())
    rows = ["| value | default | |", "| --- | --- | --- |"]
    for path, text in explained():
        value: Any = defaults
        for name in path.split("."):
            value = value[name]
        shown = "" if value in ("", {}, [], None) else f"`{json.dumps(value)}`"
        if isinstance(value, dict) and value and not _is_leaf(path):
            shown = ""
        text = text.replace("<", "&lt;")
        rows.append(f"| `{path}` | {shown} | {text} |".replace("|  |", "| |"))
    return "\n".join(rows)


def _is_leaf(path: str) -> bool:
    return not any(other.startswith(f"{path}.") for other, _ in explained())


CHART_BLOCKS: Mapping[str, Callable[[], str]] = {"chart_values": _values}
