"""As much of CEL (the Common Expression Language) as the rules of our kinds use.

An expression is parsed to nested tuples, `evaluate` computes it on plain objects, and `unknown`
finds the fields in it that a schema does not have, which `has()` would hide. What is not here does
not parse, so a rule that needs more is noticed. The real thing is in the API server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from heim_config.units import parse_duration

__all__ = ["CelError", "evaluate", "parse", "unknown"]

Node = tuple[Any, ...]

_TOKENS = re.compile(
    r"\s*(?:(?P<text>'[^'\\]*')|(?P<number>\d+)|(?P<word>[A-Za-z_]\w*)"
    r"|(?P<sign>&&|\|\||==|!=|<=|>=|[<>!.,()\[\]+]))"
)
_COMPARISONS = ("==", "!=", "<=", ">=", "<", ">", "in")
_MACROS = ("filter", "all", "exists", "map")


class CelError(Exception):
    """The expression is none, or has no value here."""


def parse(rule: str) -> Node:
    """The tree of an expression."""
    tokens: list[tuple[str, str]] = []
    at, rule = 0, rule.rstrip()
    while at < len(rule):
        found = _TOKENS.match(rule, at)
        if found is None:
            raise CelError(f"{rule[at:]!r} cannot be read")
        tokens.append((str(found.lastgroup), str(found[str(found.lastgroup)])))
        at = found.end()
    reader = _Reader(tokens)
    tree = reader.either()
    if reader.left:
        raise CelError(f"{reader.left} is left over")
    return tree


class _Reader:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.left = tokens

    def _next(self) -> tuple[str, str]:
        if not self.left:
            raise CelError("ends too early")
        return self.left.pop(0)

    def _takes(self, *words: str) -> str:
        if self.left and self.left[0][0] != "text" and self.left[0][1] in words:
            return self.left.pop(0)[1]
        return ""

    def _expect(self, word: str) -> None:
        if not self._takes(word):
            raise CelError(f"{word} is missing before {self.left[:3]}")

    def either(self) -> Node:
        tree = self._both()
        while self._takes("||"):
            tree = ("||", tree, self._both())
        return tree

    def _both(self) -> Node:
        tree = self._compared()
        while self._takes("&&"):
            tree = ("&&", tree, self._compared())
        return tree

    def _compared(self) -> Node:
        tree = self._sum()
        if sign := self._takes(*_COMPARISONS):
            tree = (sign, tree, self._sum())
        return tree

    def _sum(self) -> Node:
        tree = self._single()
        while self._takes("+"):
            tree = ("+", tree, self._single())
        return tree

    def _single(self) -> Node:
        if self._takes("!"):
            return ("!", self._single())
        tree = self._primary()
        while self._takes("."):
            kind, word = self._next()
            if kind != "word":
                raise CelError(f"{word} after a dot")
            tree = ("call", word, tree, *self._arguments()) if self._takes("(") else (
                "field", tree, word)  # fmt: skip
        return tree

    def _arguments(self, end: str = ")") -> Iterator[Node]:
        found: list[Node] = []
        while not self._takes(end):
            if found:
                self._expect(",")
            found.append(self.either())
        return iter(found)

    def _primary(self) -> Node:
        kind, word = self._next()
        match kind:
            case "text":
                return ("value", word[1:-1])
            case "number":
                return ("value", int(word))
            case "word" if word in ("true", "false"):
                return ("value", word == "true")
            case "word":
                if self._takes("("):
                    return ("call", word, None, *self._arguments())
                return ("name", word)
        if word == "(":
            tree = self.either()
            self._expect(")")
            return tree
        if word == "[":
            return ("list", *self._arguments("]"))
        raise CelError(f"{word} at the beginning of a value")


def evaluate(tree: Node, names: Mapping[str, Any]) -> Any:
    """The value of an expression; `names` are self, and oldSelf for rules about changes."""
    match tree:
        case ("value", value):
            return value
        case ("name", name):
            return names[name]
        case ("field", inner, name):
            found = evaluate(inner, names)
            if name not in found:
                raise CelError(f"no such key: {name}")
            return found[name]
        case ("list", *items):
            return [evaluate(item, names) for item in items]
        case ("!", inner):
            return not evaluate(inner, names)
        case ("&&", one, other):
            return evaluate(one, names) and evaluate(other, names)
        case ("||", one, other):
            return evaluate(one, names) or evaluate(other, names)
        case ("call", "has", None, ("field", inner, name)):
            return name in evaluate(inner, names)
        case ("call", word, inner, ("name", variable), body) if word in _MACROS:
            items = evaluate(inner, names)
            found = [evaluate(body, {**names, variable: item}) for item in items]
            return {
                "filter": lambda: [one for one, good in zip(items, found, strict=True) if good],
                "all": lambda: all(found),
                "exists": lambda: any(found),
                "map": lambda: found,
            }[word]()
        case ("call", word, inner, *rest):
            given = [evaluate(one, names) for one in ([] if inner is None else [inner]) + rest]
            return _FUNCTIONS[word](*given)
        case (sign, one, other):
            return _OPERATORS[sign](evaluate(one, names), evaluate(other, names))
    raise CelError(f"{tree} is not known")


_FUNCTIONS: Mapping[str, Any] = {
    "size": len,
    "sum": sum,
    "contains": lambda text, part: part in text,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    # Go's durations, which have no days, are a part of ours.
    "duration": lambda text: parse_duration(text),
}
_OPERATORS: Mapping[str, Any] = {
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<=": lambda one, other: one <= other,
    ">=": lambda one, other: one >= other,
    "<": lambda one, other: one < other,
    ">": lambda one, other: one > other,
    "in": lambda one, other: one in other,
    "+": lambda one, other: one + other,
}


def unknown(tree: Node, names: Mapping[str, Any]) -> list[str]:
    """Fields that the expression asks for and that the schemas in `names` do not have."""
    missing: list[str] = []

    def schema_of(node: Node, known: Mapping[str, Any]) -> Any:
        match node:
            case ("name", name):
                return known.get(name)
            case ("field", inner, name):
                found = schema_of(inner, known)
                if isinstance(found, Mapping) and name not in found.get("properties", {}):
                    missing.append(name)
                    return None
                return found["properties"][name] if isinstance(found, Mapping) else None
            case ("call", word, inner, ("name", variable), body) if word in _MACROS:
                found = schema_of(inner, known)
                items = found.get("items") if isinstance(found, Mapping) else None
                schema_of(body, {**known, variable: items})
            case (_, *rest):
                for one in rest:
                    if isinstance(one, tuple):
                        schema_of(one, known)
        return None

    schema_of(tree, names)
    return missing
