"""Building blocks of structural schemas (apiextensions.k8s.io/v1), each with its limits.

Everything that people can write is bounded: every text has a longest length, every list and
mapping a largest size. The API server needs that to know what a CEL rule may cost, and we need it
so that no single object is larger than what a translation can afford. What the configuration model
says of the same thing (pattern, explanation) is taken from there, see `configured`.

There are no defaults: Argo CD reports an object as changed when the API server fills one in below a
list. What is absent means the same as in the configuration, and the code says so once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel

from heim_config.fields import MAX_TEXT_CHARS

__all__ = [
    "DURATION_CHARS",
    "HOST",
    "LABEL",
    "LABEL_CHARS",
    "NAME_CHARS",
    "SELECTOR",
    "Rule",
    "Schema",
    "configured",
    "flag",
    "listing",
    "reference",
    "section",
    "selector",
    "text",
    "whole",
    "words",
]

Schema = dict[str, Any]
Reason = Literal[
    "FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"
]

LABEL_CHARS: Final = 63
NAME_CHARS: Final = 253
# 3650d is the longest that means anything; fractions of hours take a few more.
DURATION_CHARS: Final = 24

LABEL: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
HOST: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$"
_LABEL_KEY: Final = (
    r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
)
_LABEL_VALUE: Final = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
# A prefix of 253, a slash and a name of 63 characters.
_LABEL_KEY_CHARS: Final = 317
_SELECTOR_SIZE: Final = 32
_NOT_IN: Final = "NotIn"  # codespell:ignore


class Rule(dict[str, str]):
    """One CEL rule: what must hold, and what is said when it does not."""

    def __init__(
        self,
        rule: str,
        message: str,
        *,
        reason: Reason = "FieldValueInvalid",
        field: str = "",
    ) -> None:
        """Put a rule together.

        Args:
            rule: The expression, in the words of Kubernetes 1.28; `self` is where it stands.
            message: One line for whoever wrote the object: what to write instead.
            reason: What kind of mistake it is.
            field: The path of the field that is wrong, below `self`.
        """
        super().__init__(rule=rule, message=message, reason=reason)
        if field:
            self["fieldPath"] = field


def _ruled(made: Schema, rules: Iterable[Rule]) -> Schema:
    given = [dict(rule) for rule in rules]
    if given:
        made["x-kubernetes-validations"] = given
    return made


def text(
    means: str, *, most: int, least: int = 0, pattern: str = "", rules: Iterable[Rule] = ()
) -> Schema:
    """Text of `least` to `most` characters; a pattern is one of RE2, anchored at both ends."""
    made: Schema = {"type": "string", "description": means, "maxLength": most}
    if least:
        made["minLength"] = least
    if pattern:
        made["pattern"] = pattern
    return _ruled(made, rules)


def words(means: str, *known: str) -> Schema:
    """One of a few words."""
    longest = max(map(len, known))
    return {"type": "string", "description": means, "enum": list(known), "maxLength": longest}


def flag(means: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": means}


def whole(means: str, *, least: int = 0, most: int | None = None) -> Schema:
    """A whole number."""
    made: Schema = {"type": "integer", "description": means, "minimum": least, "format": "int64"}
    return made if most is None else {**made, "maximum": most}


def listing(
    means: str,
    items: Mapping[str, Any],
    *,
    most: int,
    least: int = 0,
    keys: tuple[str, ...] = (),
    unique: bool = False,
    rules: Iterable[Rule] = (),
) -> Schema:
    """A list of `least` to `most` items.

    Args:
        means: What it is for.
        items: What each one is.
        most: How many there may be.
        least: How many there must be.
        keys: The fields that tell items apart: two that agree in them are refused, and owners of
            different items do not fight (server-side apply).
        unique: The same for items that are text.
        rules: About the list.
    """
    made: Schema = {"type": "array", "description": means, "items": dict(items), "maxItems": most}
    if least:
        made["minItems"] = least
    if keys:
        made["x-kubernetes-list-type"] = "map"
        made["x-kubernetes-list-map-keys"] = list(keys)
    else:
        made["x-kubernetes-list-type"] = "set" if unique else "atomic"
    return _ruled(made, rules)


def section(
    means: str,
    fields: Mapping[str, Schema],
    *,
    required: Iterable[str] = (),
    rules: Iterable[Rule] = (),
) -> Schema:
    """A group of fields; others are pruned, or refused by `kubectl apply`."""
    made: Schema = {"type": "object", "description": means, "properties": dict(fields)}
    needed = list(required)
    if needed:
        made["required"] = needed
    return _ruled(made, rules)


def configured(model: type[BaseModel], name: str, *, means: str = "", most: int = 0) -> Schema:
    """A text or flag that means the same as a field of the configuration model.

    Args:
        model: The section of the configuration.
        name: Its field.
        means: What to say after the configuration's own words.
        most: The longest text, if the model's own limit (1024 characters) is too much.

    Raises:
        ValueError: The field is of a kind that has no one counterpart here.
    """
    found = model.model_json_schema(by_alias=True)["properties"][name]
    found = next((one for one in found.get("anyOf", ()) if one["type"] != "null"), found)
    description = " ".join(f"{model.model_fields[name].description or ''} {means}".split())
    if found["type"] == "boolean":
        return flag(description)
    if found["type"] != "string":
        raise ValueError(f"{model.__name__}.{name} is of type {found['type']}")
    kind = found.get("x-kind", "")
    longest = most or {"name": LABEL_CHARS, "duration": DURATION_CHARS, "host": NAME_CHARS,
                       "domain": NAME_CHARS}.get(kind, MAX_TEXT_CHARS)  # fmt: skip
    pattern = HOST if kind in ("host", "domain") else found.get("pattern", "")
    # Go's regular expressions know (?:…), but plain groups are what people read.
    return text(description, most=longest, least=1, pattern=pattern.replace("(?:", "("))


def reference(means: str) -> Schema:
    """``NAME`` or ``NAMESPACE/NAME`` of one of our own objects."""
    name = LABEL.removeprefix("^").removesuffix("$")
    return text(means, most=2 * LABEL_CHARS + 1, least=1, pattern=f"^({name}/)?{name}$")


def selector(means: str) -> Schema:
    """A label selector as everywhere in Kubernetes; an empty one selects everything."""
    return section(means, SELECTOR)


_EXPRESSION: Final = section(
    "A requirement: an operator on a label's value.",
    {
        "key": text("The label.", most=_LABEL_KEY_CHARS, least=1, pattern=_LABEL_KEY),
        "operator": words("How values are compared.", "In", _NOT_IN, "Exists", "DoesNotExist"),
        "values": listing(
            f"The values, for In and {_NOT_IN}.",
            text("A value.", most=LABEL_CHARS, pattern=_LABEL_VALUE),
            most=_SELECTOR_SIZE,
        ),
    },
    required=("key", "operator"),
    rules=[
        Rule(
            f"(self.operator in ['In', '{_NOT_IN}']) "
            "== (has(self.values) && size(self.values) > 0)",
            f"In and {_NOT_IN} need values, Exists and DoesNotExist have none",
            field=".values",
        )
    ],
)

SELECTOR: Final[Mapping[str, Schema]] = {
    "matchLabels": {
        "type": "object",
        "description": "Labels with the values that they must have.",
        "additionalProperties": {
            "type": "string",
            "maxLength": LABEL_CHARS,
            "pattern": _LABEL_VALUE,
        },
        "maxProperties": _SELECTOR_SIZE,
    },
    "matchExpressions": listing("Further requirements.", _EXPRESSION, most=_SELECTOR_SIZE),
}
