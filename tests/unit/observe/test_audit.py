from __future__ import annotations

import enum
import io
import json
import logging
from collections.abc import Iterator

import pytest

from heim_proxy.observe.audit import AUDIT_LOGGER, Audit
from heim_runtime.logs import JsonFormatter


class Reason(enum.Enum):
    NO_ROLE = "no_role"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger(AUDIT_LOGGER)
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_an_event_is_one_json_object_with_its_facts(written: io.StringIO) -> None:
    Audit().emit("request.denied", user="alice", reason=Reason.NO_ROLE, groups=("a", "b"), n=None)
    line = json.loads(written.getvalue())
    assert (line["logger"], line["event"]) == ("heim.audit", "request.denied")
    assert (line["user"], line["reason"], line["n"]) == ("alice", "no_role", None)
    assert line["groups"] == ["a", "b"]


def test_a_quiet_program_still_keeps_its_record(written: io.StringIO) -> None:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        Audit().emit("session.created")
    finally:
        root.setLevel(level)
    assert json.loads(written.getvalue())["event"] == "session.created"


@pytest.mark.parametrize("name", ["name", "message", "args", "module", "msg", "created"])
def test_no_spelling_of_a_field_loses_an_event(name: str, written: io.StringIO) -> None:
    Audit().emit("role.changed", **{name: "value"})
    assert json.loads(written.getvalue())[f"{name}_"] == "value"


def test_a_user_name_cannot_forge_a_line(written: io.StringIO) -> None:
    """security.md R2."""
    Audit().emit("login.failed", user='eve\r\n{"event":"login.ok"}\x1b[2J')
    assert written.getvalue().count("\n") == 1
    assert "\x1b" not in written.getvalue()
    assert json.loads(written.getvalue())["user"].startswith("eve\r\n")
