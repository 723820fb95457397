"""Judges objects of our kinds as an API server would: schema, sizes, list types, CEL rules.

And judges the schemas: what `apiextensions.k8s.io/v1` demands of a structural schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heim_controller.crds.manifests import KINDS
from tests.fakes.cel import evaluate, parse

__all__ = ["complaints", "complaints_of_change", "parts", "schema_of", "structural_mistakes"]

Schema = Mapping[str, Any]

_TYPES: Mapping[str, Any] = {"string": str, "object": dict, "array": list, "boolean": bool}


def schema_of(kind: str) -> Schema:
    """The schema of a kind of ours."""
    [found] = [one for one in KINDS if one.resource.kind == kind]
    return found.schema


def complaints(manifest: Mapping[str, Any]) -> list[str]:
    """What an API server says of a new object; unknown fields count, as kubectl has it."""
    body = {key: manifest[key] for key in manifest if key not in ("apiVersion", "kind")}
    body["metadata"] = {"name": manifest["metadata"]["name"]}
    kind = manifest["kind"]
    assert manifest.get("apiVersion", "heim.dev/v1alpha1") == "heim.dev/v1alpha1"
    return list(_judge(body, schema_of(kind), kind))


def complaints_of_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What an API server says about a change."""
    kind = after["kind"]
    return list(_judge(after["spec"], schema_of(kind)["properties"]["spec"], "", before["spec"]))


def _judge(value: Any, schema: Schema, at: str, before: Any = None) -> Iterator[str]:
    wrong = list(_judge_shape(value, schema, at, before))
    yield from wrong
    # Rules are asked about what has the right shape.
    for rule in () if wrong else schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and before is None:
            continue
        if not evaluate(parse(rule["rule"]), {"self": value, "oldSelf": before}):
            yield f"{at}{rule.get('fieldPath', '')}: {rule['message']}"


def _judge_shape(value: Any, schema: Schema, at: str, before: Any) -> Iterator[str]:
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, (int, str)) and not isinstance(value, bool)
    elif schema["type"] == "integer":
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, _TYPES[schema["type"]])
    if not fits:
        yield f"{at}: is not {schema.get('type', 'a number or text')}"
        return
    if isinstance(value, str):
        yield from _judge_text(value, schema, at)
    elif isinstance(value, dict):
        yield from _judge_fields(value, schema, at, before)
    elif isinstance(value, list):
        yield from _judge_list(value, schema, at)
    elif not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{at}: {value} is out of range"


def _judge_text(value: str, schema: Schema, at: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{at}: is too short or too long"
    # $ of RE2 is the very end.
    if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        yield f"{at}: {value!r} does not match"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not supported"


def _judge_fields(value: Any, schema: Schema, at: str, before: Any) -> Iterator[str]:
    known = schema.get("properties", {})
    for key in schema.get("required", ()):
        if key not in value:
            yield f"{at}.{key}: is required"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{at}: has too many keys"
    for key, inner in value.items():
        if key in known:
            older = before.get(key) if isinstance(before, dict) else None
            yield from _judge(inner, known[key], f"{at}.{key}", older)
        elif "additionalProperties" in schema:
            yield from _judge(inner, schema["additionalProperties"], f"{at}.{key}")
        elif known:
            yield f"{at}.{key}: is not known"


def _judge_list(value: list[Any], schema: Schema, at: str) -> Iterator[str]:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        yield f"{at}: has too few or too many items"
    for position, one in enumerate(value):
        yield from _judge(one, schema["items"], f"{at}[{position}]")
    keys = schema.get("x-kubernetes-list-map-keys")
    same = [tuple(one.get(key) for key in keys) for one in value] if keys else value
    if schema.get("x-kubernetes-list-type") in ("set", "map"):
        for position, one in enumerate(same):
            if one in same[:position]:
                yield f"{at}[{position}]: is there twice"


def parts(schema: Schema, at: str = "") -> Iterator[tuple[str, Schema]]:
    """Every part of a schema with its path; `[]` for items, `{}` for values."""
    yield at, schema
    for key, inner in schema.get("properties", {}).items():
        yield from parts(inner, f"{at}.{key}" if at else key)
    if "items" in schema:
        yield from parts(schema["items"], f"{at}[]")
    if "additionalProperties" in schema:
        yield from parts(schema["additionalProperties"], f"{at}{{}}")


_LOGIC = ("allOf", "anyOf", "oneOf", "not")


def structural_mistakes(schema: Schema) -> Iterator[str]:
    """Where a schema is not structural, or has no limit, or has a default."""
    for at, part in parts(schema):
        free = part.get("x-kubernetes-int-or-string")
        if ("type" in part) == bool(free):
            yield f"{at}: needs a type, or to be int or string"
        if "properties" in part and "additionalProperties" in part:
            yield f"{at}: properties and additionalProperties"
        if "default" in part or part.get("uniqueItems"):
            yield f"{at}: default or uniqueItems"
        if any(word in part for word in _LOGIC) and not free:
            yield f"{at}: {_LOGIC} are not used here"
        if part.get("type") == "string" and "maxLength" not in part:
            yield f"{at}: no maxLength"
        if part.get("type") == "array":
            yield from _list_mistakes(at, part)
        if "additionalProperties" in part and "maxProperties" not in part:
            yield f"{at}: no maxProperties"
        if at.startswith("metadata") and at not in ("metadata", "metadata.name"):
            yield f"{at}: of metadata only the name can be restricted"
        if not at.startswith("metadata") and not at.endswith("{}") and not part.get("description"):
            yield f"{at}: is not explained"
        unknown = set(part.get("required", ())) - part.get("properties", {}).keys()
        if unknown:
            yield f"{at}: requires {unknown}, which are not there"


def _list_mistakes(at: str, part: Schema) -> Iterator[str]:
    if "maxItems" not in part or "items" not in part:
        yield f"{at}: no maxItems or no items"
    kind, items = part.get("x-kubernetes-list-type"), part.get("items", {})
    if kind not in ("atomic", "set", "map"):
        yield f"{at}: no list type"
    if kind == "set" and items.get("type") != "string":
        yield f"{at}: a set of what is not text"
    keys = part.get("x-kubernetes-list-map-keys", [])
    if (kind == "map") != bool(keys) or set(keys) - set(items.get("required", ())):
        yield f"{at}: keys of a map that are not required"
