"""Tables of docs/reference/kubernetes-kinds.md, made from the schemas of our kinds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from heim_controller.crds.definition import Kind
from heim_controller.crds.manifests import KINDS

__all__ = ["KIND_BLOCKS"]

Schema = Mapping[str, Any]
_SELECTOR = {"matchLabels", "matchExpressions"}


def _rows(schema: Schema, at: str) -> Iterator[str]:
    required = schema.get("required", ())
    for name, part in schema.get("properties", {}).items():
        path = f"{at}{name}"
        must = "required" if name in required else ""
        yield f"| `{path}` | {_type(part)} | {must} | {_cell(part['description'])} |"
        if _is_selector(part):
            continue
        if part.get("type") == "array":
            yield from _rows(part["items"], f"{path}[].")
        else:
            yield from _rows(part, f"{path}.")


def _type(part: Schema) -> str:
    if _is_selector(part):
        return "label selector"
    if part.get("x-kubernetes-int-or-string"):
        return "number or name"
    if "enum" in part:
        return " \\| ".join(f"`{word}`" for word in part["enum"])
    if part["type"] == "array":
        return f"list, at most {part['maxItems']}: {_type(part['items'])}"
    if part["type"] == "string":
        return f"text, at most {part['maxLength']}"
    return {"object": "section", "boolean": "true or false", "integer": "whole number"}[
        part["type"]
    ]


def _is_selector(part: Schema) -> bool:
    fields = part.get("properties", {}).keys()
    return bool(fields) and fields <= {*_SELECTOR, "namespaceSelector"} and bool(_SELECTOR & fields)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def _rules(schema: Schema, at: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        place = f"{at}{rule.get('fieldPath', '')}" or "spec"
        yield f"- `{place.lstrip('.')}`: {_cell(rule['message'])}"
    for name, part in schema.get("properties", {}).items():
        if not _is_selector(part):
            yield from _rules(part, f"{at}.{name}")
    if "items" in schema:
        yield from _rules(schema["items"], f"{at}[]")


def _kind(kind: Kind) -> str:
    names = f"`kubectl get {kind.resource}`, or `{kind.short}`"
    parts = [
        f"{kind.means} {names}.",
        "",
        "| below `spec` | what | | |",
        "| --- | --- | --- | --- |",
    ]
    parts += _rows(kind.spec, "")
    rules = list(_rules(kind.spec, "spec"))
    if rules:
        parts += ["", "Refused when applied:", "", *dict.fromkeys(rules)]
    shown = [f"`{name}`" for name in kind.status]
    parts += ["", f"Conditions: {', '.join(f'`{name}`' for name in kind.conditions)}." + (
        f" Also in the status: {', '.join(shown)}." if shown else "")]  # fmt: skip
    return "\n".join(parts)


KIND_BLOCKS: Mapping[str, Callable[[], str]] = {
    f"kind_{kind.resource.kind.lower()}": functools.partial(_kind, kind) for kind in KINDS
}
