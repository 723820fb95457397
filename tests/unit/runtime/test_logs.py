from __future__ import annotations

import enum
import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from heim_runtime import logs


class Colour(enum.Enum):
    RED = "red"


class Sealed:
    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "<sealed>"


class SealedText(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "<sealed>"


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr today")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Logging as `configure` leaves it, into a string; the former set-up comes back."""
    root = logging.getLogger()
    handlers, level, raising = tuple(root.handlers), root.level, logging.raiseExceptions
    stream = io.StringIO()
    logs.configure("debug", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_record_is_one_json_object_with_its_fields(out: io.StringIO) -> None:
    logging.getLogger("heim.test").info(
        "tunnel.opened", extra={"agent": "pi4", "stream": 7, "public": True, "none": None}
    )
    [line] = lines(out)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "heim.test",
        "event": "tunnel.opened",
        "agent": "pi4",
        "stream": 7,
        "public": True,
        "none": None,
    }


HOSTILE = {
    "line end": "a\nb",
    "carriage return": "a\rb",
    "crlf forgery": 'x\r\n{"level":"error","event":"root.login"}',
    "ansi": "\x1b[31mred\x1b[2J",
    "c1 csi": "\x9b2J",
    "nul": "a\0b",
    "line separator": "a\u2028b\u2029c\x85d",
    "right to left": "\u202eevil",
    "lone surrogate": "\ud800",
    "quotes": '","event":"forged',
    "backspace": "abc\b\b\b",
}


@pytest.mark.parametrize("style", ["json", "console"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_in_a_record_can_forge_a_line_or_move_a_terminal(text: str, style: str) -> None:
    formatter = logs.JsonFormatter() if style == "json" else logs.ConsoleFormatter()
    record = logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "x"})
    vars(record).update({"field": text, text: "as a name", "deep": {text: [text]}})
    shown = formatter.format(record)
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1
    if style == "json":
        line = json.loads(shown)
        assert line["event"] == text
        assert line["field"] == text
        assert line["level"] == "info"


def test_a_field_cannot_pass_for_one_of_ours(out: io.StringIO) -> None:
    logging.getLogger("x").info("real", extra={"event": "forged", "level": "error", "time": 0})
    [line] = lines(out)
    assert (line["event"], line["event_"]) == ("real", "forged")
    assert (line["level"], line["level_"]) == ("info", "error")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(Sealed("hunter2"), "<sealed>", id="object"),
        pytest.param(SealedText("hunter2"), "<sealed>", id="text"),
        pytest.param([Sealed("hunter2")], ["<sealed>"], id="in a list"),
        pytest.param({"k": SealedText("hunter2")}, {"k": "<sealed>"}, id="in a mapping"),
        pytest.param(Colour.RED, "red", id="enum"),
        pytest.param(float("nan"), "nan", id="nan"),
        pytest.param(float("inf"), "inf", id="infinity"),
        pytest.param(1.5, 1.5, id="float"),
        pytest.param(b"raw", "b'raw'", id="bytes"),
        pytest.param(Broken(), "<Broken without a repr>", id="broken repr"),
        pytest.param({1, 2}, [1, 2], id="set"),
    ],
)
def test_values_are_shown_as_what_they_are(out: io.StringIO, value: object, shown: object) -> None:
    logging.getLogger("x").info("e", extra={"value": value})
    assert lines(out)[0]["value"] == shown
    assert "hunter2" not in out.getvalue()


def test_long_fields_are_cut_and_say_so(out: io.StringIO) -> None:
    logging.getLogger("x").info("e", extra={"value": "a" * 100_000})
    value = lines(out)[0]["value"]
    assert len(value) < 5000
    assert value.endswith("... (100000 characters)")


def test_a_container_that_holds_itself_is_cut(out: io.StringIO) -> None:
    loop: list[object] = []
    loop.append(loop)
    logging.getLogger("x").info("e", extra={"value": loop})
    assert lines(out)[0]["event"] == "e"


def test_a_traceback_is_in_the_same_line(out: io.StringIO) -> None:
    try:
        raise ValueError("bad\nnews")
    except ValueError:
        logging.getLogger("x").exception("failed")
    [line] = lines(out)
    assert line["event"] == "failed"
    assert "ValueError: bad\nnews" in line["error"]


def test_a_wrong_format_string_loses_nothing(out: io.StringIO) -> None:
    logging.getLogger("x").info("%d apples", "many")
    assert lines(out)[0]["event"] == "%d apples ('many',)"


def test_the_level_is_respected(out: io.StringIO) -> None:
    logs.configure("warning", out)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("loud")
    assert [line["event"] for line in lines(out)] == ["loud"]


@pytest.mark.parametrize("level", ["", "verbose", "critical", "10", "INFO\n"])
def test_an_unknown_level_is_refused(out: io.StringIO, level: str) -> None:
    with pytest.raises(ValueError, match="log level"):
        logs.configure(level, out)


def test_an_unknown_style_is_refused(out: io.StringIO) -> None:
    with pytest.raises(ValueError, match="log style"):
        logs.configure("info", out, style="xml")


@pytest.mark.usefixtures("out")
def test_a_terminal_gets_lines_for_people() -> None:
    terminal = Terminal()
    logs.configure("info", terminal)
    logging.getLogger("x").info("config.applied", extra={"generation": 7, "path": "a b", "e": ""})
    [line] = terminal.getvalue().splitlines()
    assert re.fullmatch(
        r'\d\d:\d\d:\d\d INFO    config\.applied generation=7 path="a b" e=""', line
    )


@pytest.mark.usefixtures("out")
def test_a_terminal_gets_tracebacks_indented() -> None:
    terminal = Terminal()
    logs.configure("info", terminal)
    try:
        raise ValueError("bad\x1b[2J")
    except ValueError:
        logging.getLogger("x").exception("failed")
    first, *rest = terminal.getvalue().splitlines()
    assert first.endswith("failed")
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in terminal.getvalue()


def test_configuring_twice_does_not_write_twice(out: io.StringIO) -> None:
    logs.configure("info", out)
    logging.getLogger("x").info("once")
    assert len(lines(out)) == 1


def test_a_stream_that_fails_does_not_stop_the_program(
    out: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    out.close()
    logging.getLogger("x").error("lost")
    assert capsys.readouterr().err == ""
