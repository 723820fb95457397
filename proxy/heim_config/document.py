"""YAML text to plain data, with the line of every value, and nothing that surprises.

We read the parser's events instead of letting YAML construct objects: every value keeps its line,
depth and size are bounded before anything is built, and no tag can name a type. What YAML 1.1 and
1.2 read differently (``no``, ``0600``, ``2024-01-01``) is refused instead of guessed: the same
file passes through other people's tools, and ``name: no`` must not mean ``false`` to one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml import events as ev
from yaml.resolver import Resolver

from heim_config.problems import Finding, Loc, show

__all__ = ["MAX_BYTES", "Document", "parse"]

# Larger than any configuration we know by far (5000 backends are 2 MiB); a bound because a reload
# reads what others may write.
MAX_BYTES: Final = 8 * 1024 * 1024
# Counted after aliases are expanded: nine lines of nested aliases are a billion values.
MAX_VALUES: Final = 500_000
# The model is 7 deep. The bound keeps a megabyte of "[" from exhausting the stack.
MAX_DEPTH: Final = 24

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
# What YAML 1.2 (5.1) and libyaml refuse anyway; found by us, because libyaml names no line.
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_TAG: Final = "tag:yaml.org,2002:"

Plain = None | bool | int | float | str | list[Any] | dict[str, Any]


@dataclass(slots=True)
class Document:
    """Plain data with its lines and what was wrong with the text.

    `lines` has, for each place, the line (from 1) of its key or of its list item.
    """

    data: Plain = None
    lines: dict[Loc, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    line: int
    value: bool | int | float | str | list[_Node] | list[_Entry] | None = None
    is_map: bool = False
    complaint: tuple[str, str | None] | None = None


@dataclass(slots=True)
class _Entry:
    key: str
    line: int
    node: _Node
    complaint: tuple[str, str | None] | None = None


class _UnreadableError(Exception):
    """The text cannot be read any further."""

    def __init__(self, line: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.finding = Finding((), message, hint, line)


def parse(text: str) -> Document:
    """Read one YAML document. Never raises: whatever is wrong is among the findings.

    When the text is not YAML at all, `data` is None and one finding says where reading stopped.
    """
    document = Document()
    text = text.removeprefix("\ufeff")
    bad = _CONTROL.search(text)
    if bad:
        line = text.count("\n", 0, bad.start()) + 1
        code = f"U+{ord(bad.group()):04X}"
        document.findings.append(Finding((), f"has the control character {code}", None, line))
        return document
    try:
        root = _Reader(text).document()
        document.data = _Expander(document).expand(root, ())
    except _UnreadableError as fatal:
        document.data = None
        document.findings.append(fatal.finding)
    return document


class _Reader:
    """Builds nodes from the parser's events; `_UnreadableError` on what cannot be read."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        # Untyped in the stubs; resolves a plain scalar to YAML 1.1's tag, which others will see.
        self._resolver: Any = Resolver()
        self._anchors: dict[str, _Node] = {}

    def document(self) -> _Node:
        """The one document's root."""
        event = self._next(ev.StreamStartEvent, ev.DocumentStartEvent)
        if isinstance(event, ev.StreamEndEvent):
            raise _UnreadableError(
                1, "is empty", "`heim-proxy init` writes a commented configuration"
            )
        root = self._node(event, 0)
        event = self._next(ev.DocumentEndEvent)
        if not isinstance(event, ev.StreamEndEvent):
            raise _UnreadableError(
                _line(event), "has a second document; one file holds one configuration"
            )
        return root

    def _next(self, *skip: type[Any]) -> Any:
        try:
            event = next(self._events)
            while isinstance(event, skip):
                event = next(self._events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise _UnreadableError(
                mark.line + 1 if mark else 1, f"is not valid YAML: {_reason(error)}", _advice(error)
            ) from error
        except yaml.YAMLError as error:
            raise _UnreadableError(1, f"is not valid YAML: {show(str(error))}") from error
        return event

    def _node(self, event: Any, depth: int) -> _Node:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise _UnreadableError(line, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(event, ev.AliasEvent):
            found = self._anchors.get(str(event.anchor))
            if found is None:
                raise _UnreadableError(line, f"uses the anchor {show(event.anchor)} before its end")
            return found
        if isinstance(event, ev.ScalarEvent):
            node = self._scalar(event, line)
        elif isinstance(event, ev.SequenceStartEvent):
            node = self._list(line, depth)
        else:
            node = self._map(line, depth)
        if event.tag is not None and event.tag != "!":
            node.complaint = (f"has the YAML tag {show(event.tag)}", "remove the tag")
        if event.anchor is not None:
            # Registered only when complete, so that an anchor cannot contain itself.
            self._anchors[event.anchor] = node
        return node

    def _list(self, line: int, depth: int) -> _Node:
        items: list[_Node] = []
        event = self._next()
        while not isinstance(event, ev.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
            event = self._next()
        return _Node(line, items)

    def _map(self, line: int, depth: int) -> _Node:
        entries: list[_Entry] = []
        event = self._next()
        while not isinstance(event, ev.MappingEndEvent):
            if not isinstance(event, ev.ScalarEvent):
                raise _UnreadableError(_line(event), "has a key that is not a word")
            key, key_line = event.value, _line(event)
            entry = _Entry(key, key_line, self._node(self._next(), depth + 1))
            if key == "<<" and event.implicit[0]:
                entry.complaint = ("merge keys are not supported", "repeat the keys")
            entries.append(entry)
            event = self._next()
        return _Node(line, entries, is_map=True)

    def _scalar(self, event: Any, line: int) -> _Node:
        text = str(event.value)
        if not event.implicit[0]:
            return _Node(line, text)
        tag = str(self._resolver.resolve(yaml.ScalarNode, text, (True, False))).removeprefix(_TAG)
        if tag == "null":
            return _Node(line, None)
        if tag == "bool" and text.lower() in ("true", "false"):
            return _Node(line, text.lower() == "true")
        if tag == "int" and _INT.fullmatch(text):
            return _Node(line, int(text))
        if tag == "float" and _FLOAT.fullmatch(text):
            return _Node(line, float(text))
        if tag == "str":
            return _Node(line, text)
        hint = 'write true or false, or put it in quotes: "{}"' if tag == "bool" else None
        return _Node(
            line,
            text,
            complaint=(
                f"{show(text)} without quotes is {_KINDS.get(tag, 'not text')} to some YAML "
                "readers and text to others",
                (hint or 'put it in quotes: "{}"').format(text),
            ),
        )


class _Expander:
    """Makes plain data of nodes, following aliases, and notes lines and complaints by place."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._values = 0

    def expand(self, node: _Node, loc: Loc) -> Plain:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _UnreadableError(
                node.line, f"has more than {MAX_VALUES} values once aliases are expanded"
            )
        if len(loc) > MAX_DEPTH:
            raise _UnreadableError(node.line, f"is nested more than {MAX_DEPTH} deep")
        self._document.lines.setdefault(loc, node.line)
        if node.complaint:
            self._complain(loc, node.complaint)
        if not isinstance(node.value, list):
            return node.value
        if node.is_map:
            return self._map([e for e in node.value if isinstance(e, _Entry)], loc)
        items = [item for item in node.value if isinstance(item, _Node)]
        return [self.expand(item, (*loc, position)) for position, item in enumerate(items)]

    def _map(self, entries: list[_Entry], loc: Loc) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for entry in entries:
            place = (*loc, entry.key)
            if entry.complaint:
                self._document.findings.append(Finding(place, *entry.complaint, line=entry.line))
                continue
            if entry.key in result:
                message = f"is given twice (first on line {self._document.lines[place]})"
                self._document.findings.append(Finding(place, message, line=entry.line))
                continue
            self._document.lines[place] = entry.line
            result[entry.key] = self.expand(entry.node, place)
        return result

    def _complain(self, loc: Loc, complaint: tuple[str, str | None]) -> None:
        self._document.findings.append(Finding(loc, *complaint))


_KINDS: Final = {
    "bool": "a boolean",
    "int": "a number",
    "float": "a number",
    "timestamp": "a date",
}


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _reason(error: yaml.MarkedYAMLError) -> str:
    return " ".join(part for part in (error.context, error.problem) if part)


def _advice(error: yaml.MarkedYAMLError) -> str | None:
    if "cannot start any token" in (error.problem or ""):
        return "indent with spaces, never tabs, and quote text that starts with a special character"
    if "mapping values are not allowed" in (error.problem or ""):
        return "quote text that contains a colon and a space"
    return None
