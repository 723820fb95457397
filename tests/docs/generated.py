"""The parts of handwritten pages that are made from code, between `begin` and `end` comments.

`python -m tests.docs.generated` writes them again; a test fails while one is stale.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping

from heim_agent.config import TOP_FIELDS
from heim_agent.targets import FIELDS
from heim_controller.metrics import FAMILIES as CONTROLLER_FAMILIES
from heim_proxy.access.patterns import compile_pattern
from heim_proxy.identity.dialects import DIALECTS
from heim_proxy.identity.families import FAMILIES as IDENTITY_FAMILIES
from heim_proxy.observe.metrics import FAMILIES as METRIC_FAMILIES
from tests.docs.chart import CHART_BLOCKS
from tests.docs.kinds import KIND_BLOCKS
from tests.docs.kubernetes import KUBERNETES_BLOCKS
from tests.docs.pages import HANDWRITTEN
from tests.docs.programs import AGENT, CONTROLLER, PROXY, TUNNEL, Program
from tests.docs.wire import WIRE_BLOCKS

__all__ = ["BLOCKS", "rewritten"]

_BLOCK = re.compile(
    r"(<!-- begin generated: (\w+) -->\n).*?(<!-- end generated: \2 -->)", re.DOTALL
)
_ENVIRONMENT = re.compile(r" \[((?:HEIM_\w+)?)(?:; )?(?:default: )?([^\]]*)\]$")

Action = argparse.Action


def _command_table(program: Program) -> str:
    rows = ["| command | argument | environment | default | |", "| --- | --- | --- | --- | --- |"]
    for name, parser in program.commands():
        shown = f"`{name}`"
        for action in parser._actions:
            if action.dest == "help":
                continue
            rows.append(f"| {shown} | {_argument_cells(action)} |")
            shown = ""
        if shown:
            rows.append(f"| {shown} |  |  |  |  |")
    return "\n".join(rows)


def _argument_cells(action: Action) -> str:
    text = action.help or ""
    found = _ENVIRONMENT.search(text)
    variable, default = (found[1], found[2]) if found else ("", "")
    meaning = text[: found.start()] if found else text
    argument = action.option_strings[0] if action.option_strings else ""
    values = "|".join(action.choices) if action.choices else action.metavar or ""
    if action.nargs != 0 and values:
        argument = f"{argument} {values}".strip()
    if not meaning and action.choices:
        meaning = "one of them"
    cells = (
        f"`{argument}`" + (" (required)" if action.required and action.option_strings else ""),
        f"`{variable}`" if variable else "",
        f"`{default}`" if default else "",
        meaning,
    )
    return " | ".join(cell.replace("|", "\\|") for cell in cells)


def _agent_toml_table() -> str:
    rows = ["| key | default | |", "| --- | --- | --- |"]
    below = ((f"targets.NAME.{one.name}", one) for one in FIELDS)
    for name, field in (*((one.name, one) for one in TOP_FIELDS), *below):
        default = f"`{field.default}`" if field.default else ""
        rows.append(f"| `{name}` | {default} | {field.meaning} |")
    return "\n".join(rows)


def _metric_table() -> str:
    rows = ["| metric | type | labels | |", "| --- | --- | --- | --- |"]
    for family in METRIC_FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.name}` | {family.kind.value} | {labels} | {family.help} |")
    return "\n".join(rows)


def _controller_metric_table() -> str:
    rows = ["| metric | type | labels | |", "| --- | --- | --- | --- |"]
    for family in CONTROLLER_FAMILIES:
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{family.name}` | {family.kind} | {labels} | {family.help} |")
    return "\n".join(rows)


def _family_table() -> str:
    rows = ["| product | everything that begins with | names |", "| --- | --- | --- |"]
    for product, family in IDENTITY_FAMILIES.items():
        prefixes = ", ".join(f"`{one}`" for one in family.prefixes)
        names = ", ".join(f"`{one}`" for one in family.names)
        rows.append(f"| {product} | {prefixes} | {names} |")
    return "\n".join(rows)


def _dialect_table() -> str:
    rows = ["| `identity_headers` | sends |", "| --- | --- |"]
    for dialect, headers in DIALECTS.items():
        rows.append(f"| `{dialect}` | {', '.join(f'`{name}`' for name, _ in headers)} |")
    return "\n".join(rows)


_PATHS = ("/", "/admin", "/admin/", "/admin/x", "/adminx", "/users/7/profile", "/users/profile")
_PATTERNS = ("/", "=/", "/admin", "=/admin", "/admin/", "/users/*/profile", "/users/*", "/*")


def _pattern_table() -> str:
    rows = [
        "| | " + " | ".join(f"`{path}`" for path in _PATHS) + " |",
        "| --- |" + " --- |" * len(_PATHS),
    ]
    for text in _PATTERNS:
        pattern = compile_pattern(text.encode())
        marks = ("yes" if pattern.matches(path.encode()) else "" for path in _PATHS)
        rows.append(f"| `{text}` | " + " | ".join(marks) + " |")
    return "\n".join(rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "agent_commands": lambda: _command_table(AGENT),
    "agent_toml": _agent_toml_table,
    "commands": lambda: _command_table(PROXY),
    "controller_commands": lambda: _command_table(CONTROLLER),
    "controller_metrics": _controller_metric_table,
    "dialects": _dialect_table,
    "families": _family_table,
    "metrics": _metric_table,
    "patterns": _pattern_table,
    "tunnel_commands": lambda: _command_table(TUNNEL),
    **CHART_BLOCKS,
    **KIND_BLOCKS,
    **KUBERNETES_BLOCKS,
    **WIRE_BLOCKS,
}


def rewritten(text: str) -> str:
    """A page's text with its generated parts as they should be."""
    return _BLOCK.sub(lambda block: f"{block[1]}{BLOCKS[block[2]]()}\n{block[3]}", text)


def main() -> int:
    """Write what is stale; returns an exit status."""
    for page in HANDWRITTEN:
        fresh = rewritten(page.text)
        if fresh != page.text:
            page.path.write_text(fresh, encoding="utf-8")
            print(page.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
