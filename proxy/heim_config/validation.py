"""Plain data to a `Config`, or to everything that is wrong with it.

A validator stops at the first mistake of a value, and a model with a mistake in it never comes into
being, so that nothing could be said about how its parts fit together. We therefore take the broken
parts out, again and again until a model is left, and let the checks of `crosscheck` judge that one
too. What they say about something that a part was taken out of is not reported: it may be the
taking out that they saw.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from heim_config.fields import Section
from heim_config.model import Config
from heim_config.problems import Finding, Loc, nearest, show
from heim_config.removed import absent

__all__ = ["Outcome", "keys_of", "scope", "validate"]

# Each round takes out what the last one found broken, at worst one level further up.
MAX_ROUNDS: Final = 16
# Stands in for a broken domain while the rest is checked (RFC 2606: it never exists).
STAND_IN_DOMAIN: Final = "heim.invalid"


@dataclass(slots=True)
class Outcome:
    """What came of validation.

    `config` is the model, complete only when there are no findings, or None when nothing usable was
    left. `origin` leads from places in it to places in the data; `damaged` holds the scopes that
    something was taken out of.
    """

    config: Config | None = None
    findings: list[Finding] = field(default_factory=list)
    origin: dict[Loc, Loc] = field(default_factory=dict)
    damaged: set[Loc] = field(default_factory=set)

    def original(self, loc: Loc) -> Loc:
        """The place in the data of the place `loc` in the model."""
        for length in range(len(loc), 0, -1):
            found = self.origin.get(loc[:length])
            if found is not None:
                return (*found, *loc[length:])
        return loc


def validate(
    data: dict[str, Any], base: Path, *, ready: Mapping[str, Any] | None = None
) -> Outcome:
    """Make a `Config` of `data`, whose relative paths start at `base`.

    Args:
        data: Plain data.
        base: A directory.
        ready: What stands in for the values of some keys: the same, partly made into models by an
            earlier call with the same `base`.
    """
    outcome = Outcome()
    dropped: set[Loc] = set()
    for round_number in range(MAX_ROUNDS):
        outcome.origin = {}
        # Nothing is out of place as long as nothing was taken out; walking through 5000 backends
        # would take longer than validating them.
        pruned = (
            _prune(data, (), (), dropped, outcome.origin) if dropped else {**data, **(ready or {})}
        )
        if ("domain",) in dropped or (round_number and "domain" not in pruned):
            pruned["domain"] = STAND_IN_DOMAIN
        try:
            # By alias only: `from_` is how code spells `from`, not a second key.
            outcome.config = Config.model_validate(
                pruned, context={"base": base}, by_alias=True, by_name=False
            )
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            if round_number == 0:
                outcome.findings.extend(_findings(details, data))
            for detail in details:
                place = _to_drop(detail, data, dropped, outcome)
                dropped.add(place)
                if detail["type"] != "extra_forbidden":
                    outcome.damaged.add(scope(place))
        else:
            break
    return outcome


def scope(loc: Loc) -> Loc:
    """The part of the configuration that is judged as one: a backend, a member, a section.

    Members, bindings and permissions are judged each by itself, so that one mistake among them
    does not silence what is to be said about the others.
    """
    if loc[:1] == ("roles",) or loc[2:3] == ("permissions",):
        last = max((i for i, part in enumerate(loc) if isinstance(part, int)), default=0)
        return loc[: last + 1]
    return loc[:2] if len(loc) > 1 and isinstance(loc[1], int) else loc[:1]


def keys_of(section: type[Section]) -> tuple[str, ...]:
    """The keys of a section as they are written."""
    return tuple(info.alias or name for name, info in section.model_fields.items())


def _prune(value: Any, old: Loc, new: Loc, dropped: set[Loc], origin: dict[Loc, Loc]) -> Any:
    origin[new] = old
    if isinstance(value, dict):
        return {
            key: _prune(item, (*old, key), (*new, key), dropped, origin)
            for key, item in value.items()
            if (*old, key) not in dropped
        }
    if isinstance(value, list):
        kept = [(i, item) for i, item in enumerate(value) if (*old, i) not in dropped]
        return [
            _prune(item, (*old, i), (*new, position), dropped, origin)
            for position, (i, item) in enumerate(kept)
        ]
    return value


def _to_drop(detail: ErrorDetails, data: Any, dropped: set[Loc], outcome: Outcome) -> Loc:
    """The smallest part of `data` whose absence ends the mistake, as far as one can know."""
    place = outcome.original(_place(detail))
    if detail["type"] == "missing":
        place = place[:-1]
    while len(place) > 1 and (place in dropped or not _exists(data, place)):
        place = place[:-1]
    return place or ("domain",)


def _exists(data: Any, loc: Loc) -> bool:
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def _place(detail: ErrorDetails) -> Loc:
    at = detail.get("ctx", {}).get("at", ()) if detail["type"] == "heim" else ()
    return (*detail["loc"], *at)


def _findings(details: Iterable[ErrorDetails], data: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    explained: set[Loc] = set()
    missing: list[Finding] = []
    for detail in details:
        place = _place(detail)
        if detail["type"] == "extra_forbidden":
            finding, meant = _unknown_key(place)
            found.append(finding)
            if meant:
                explained.add((*place[:-1], meant))
        elif detail["type"] == "missing":
            missing.append(Finding(place, "is missing"))
        else:
            message, hint = _explain(detail, data)
            found.append(Finding(place, message, hint))
    # A misspelt `upstream` explains why `upstream` is missing: one mistake, told once.
    found.extend(finding for finding in missing if finding.loc not in explained)
    return found


def _unknown_key(loc: Loc) -> tuple[Finding, str | None]:
    key = str(loc[-1])
    known = absent(loc)
    if known is not None:
        return Finding(loc, known.message, known.hint), known.instead_of
    section = _section_at(loc[:-1])
    keys = keys_of(section) if section is not None else ()
    guess = nearest(key, keys)
    hint = guess or (f"the keys here are {', '.join(keys)}" if 0 < len(keys) <= 16 else None)
    meant = guess.removeprefix("did you mean ").removesuffix("?") if guess else None
    return Finding(loc, "unknown key", hint), meant


def _section_at(loc: Loc) -> type[Section] | None:
    """The section whose keys stand at `loc`."""
    section: type[Section] | None = Config
    for part in loc:
        if isinstance(part, int):
            continue
        if section is None:
            return None
        by_key = {info.alias or name: info for name, info in section.model_fields.items()}
        info = by_key.get(part)
        section = _section_in(info.annotation) if info is not None else None
    return section


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if get_origin(annotation) in (Annotated, tuple, Union, types.UnionType):
        for argument in get_args(annotation):
            found = _section_in(argument)
            if found is not None:
                return found
    return None


def _explain(detail: ErrorDetails, data: Any) -> tuple[str, str | None]:
    """A pydantic error in our words."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    value = _value_at(data, detail["loc"])
    match detail["type"]:
        case "heim":
            return str(context["message"]), context.get("hint")
        case "string_type":
            return _not_text(value)
        case "bool_type":
            return f"must be true or false, not {_kind(value)}", None
        case "int_type":
            hint = "remove the quotes" if isinstance(value, str) and value.isdigit() else None
            return f"must be a whole number, not {_kind(value)}", hint
        case "greater_than_equal" | "less_than_equal":
            limit = context.get("ge", context.get("le"))
            word = "least" if "ge" in context else "most"
            return f"{show(value)} must be at {word} {limit}", None
        case "tuple_type" | "frozen_set_type":
            hint = "write [] for none" if value is None else "begin each item with a dash"
            return f"must be a list, not {_kind(value)}", hint
        case "model_type" | "model_attributes_type":
            return f"must be a mapping of keys to values, not {_kind(value)}", None
        case "too_short":
            return "must not be empty", None
        case "literal_error":
            return _not_among(value, str(context["expected"]))
        case _:
            return detail["msg"], None


def _not_text(value: Any) -> tuple[str, str | None]:
    if isinstance(value, (bool, int, float)):
        shown = str(value).lower()
        return f"must be text, and {shown} is {_kind(value)}", f'put it in quotes: "{shown}"'
    return f"must be text, not {_kind(value)}", None


def _not_among(value: Any, expected: str) -> tuple[str, str | None]:
    words = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
    shown = (
        f"{show(value)} is not one of {', '.join(words)}" if words[1:] else f"must be {words[0]}"
    )
    return shown, nearest(value, words) if isinstance(value, str) else None


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "a mapping"


def _value_at(data: Any, loc: Loc) -> Any:
    for part in loc:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data
