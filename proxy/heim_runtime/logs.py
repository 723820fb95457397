"""One log format for all programs: an event name and fields, one JSON object a line.

Call sites say what happened and pass facts beside it::

    log.info("config.applied", extra={"generation": 7})

Nothing that arrives from the network can end a line, start a new one or move a terminal's cursor:
JSON escapes every control character (and, as we write ASCII only, the Unicode line separators and
direction marks); the console format escapes the same set. Values that are neither numbers, text
nor plain containers are shown by their ``repr``, which our secret types redact.
"""

from __future__ import annotations

import enum
import json
import logging
import math
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

__all__ = ["ConsoleFormatter", "JsonFormatter", "configure"]

# A field is for reading; a hostile header of 64 KiB in every line would fill the disk instead.
MAX_FIELD_CHARS: Final = 4096
# Tracebacks are ours and worth more.
MAX_TRACEBACK_CHARS: Final = 32768
# Deeper containers are shown by repr: json would recurse, and nobody reads that far.
MAX_DEPTH: Final = 4

# What every LogRecord has by itself; anything else came through `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS: Final = frozenset(("time", "level", "logger", "event", "error"))

# Made once: json.dumps makes an encoder for every line that is not written as it likes.
_encode: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode


class JsonFormatter(logging.Formatter):
    """A record as one line of ASCII JSON: time, level, logger, event, fields, error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without the line end. Never raises on what the record holds."""
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _event(record),
        }
        for name, value in _fields(record).items():
            short = type(value) is str and len(value) <= MAX_FIELD_CHARS
            line[name] = value if short else _plain(value)
        if record.exc_info or record.stack_info:
            line["error"] = _error(self, record)
        return _encode(line)


class ConsoleFormatter(logging.Formatter):
    """A record for a person at a terminal: ``12:04:07 INFO  config.applied generation=7``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line for the event, and indented lines for a traceback. Never raises."""
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        parts = [time, f"{record.levelname:<7}", _escape(_event(record))]
        for name, value in _fields(record).items():
            shown = _plain(value)
            text = shown if isinstance(shown, str) else json.dumps(shown)
            quoted = json.dumps(text) if not text or set(text) & set(' "=') else text
            parts.append(f"{_escape(name)}={_escape(quoted)}")
        line = " ".join(parts)
        for row in _error(self, record).splitlines():
            line += f"\n    {_escape(row)}"
        return line


def configure(
    level: str = "info", stream: TextIO | None = None, *, style: str | None = None
) -> None:
    """Send every logger's records of `level` and above to `stream`, replacing earlier handlers.

    Args:
        level: debug, info, warning or error.
        stream: Where lines go; standard error unless given.
        style: "json" or "console"; unless given, console on a terminal and JSON elsewhere.

    Raises:
        ValueError: When `level` or `style` is none of those words.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None or level.lower() not in ("debug", "info", "warning", "error"):
        raise ValueError(f"log level {level!r} is not one of debug, info, warning, error")
    if style not in (None, "json", "console"):
        raise ValueError(f"log style {style!r} is not one of json, console")
    target = stream if stream is not None else sys.stderr
    if style is None:
        style = "console" if target.isatty() else "json"
    handler = logging.StreamHandler(target)
    handler.setFormatter(ConsoleFormatter() if style == "console" else JsonFormatter())
    root = logging.getLogger()
    for old in tuple(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    # A full disk or a closed pipe must not turn each lost line into a printed traceback.
    logging.raiseExceptions = False
    # Where in the code, which thread and which process: no line shows it, and finding out is a
    # third of what a line costs (Python's logging how-to, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _event(record: logging.LogRecord) -> str:
    try:
        return _bounded(record.getMessage())
    except Exception:  # noqa: BLE001 - a wrong format string of a library must not lose its record
        return _bounded(f"{record.msg!s} {record.args!r}")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in vars(record).items():
        if name not in _STANDARD:
            # A field may not pass for one of ours: the event name is what alerts match on.
            found[f"{name}_" if name in _OURS else name] = value
    return found


def _error(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    text = formatter.formatException(record.exc_info) if record.exc_info else ""
    if record.stack_info:
        text = f"{text}\n{record.stack_info}".lstrip("\n")
    return _bounded(text, MAX_TRACEBACK_CHARS)


def _plain(value: object, depth: int = 0) -> object:
    """`value` as JSON can hold it; by repr when it is none of JSON's own types."""
    # Exact types: a subclass (a sealed str, say) tells by its repr how it wants to be seen.
    if type(value) is str:
        return _bounded(value)
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if type(value) is str:
        return _bounded(value)
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {_bounded(str(key)): _plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(item, depth + 1) for item in value]
    try:
        return _bounded(repr(value))
    except Exception:  # noqa: BLE001 - a broken repr must not lose the record
        return f"<{type(value).__name__} without a repr>"


def _bounded(text: str, limit: int = MAX_FIELD_CHARS) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _escape(text: str) -> str:
    """`text` without anything a terminal acts on: controls, line ends, direction marks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
