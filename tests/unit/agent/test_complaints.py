from __future__ import annotations

import os

import pytest

from heim_agent.complaints import clean, say, with_hint
from heim_runtime.complaints import USAGE, Complaint, UsageError


def test_a_usage_error_is_a_complaint_with_its_status() -> None:
    error = UsageError("what is that?")
    assert isinstance(error, Complaint)
    assert (error.text, error.status) == ("what is that?", USAGE)


def test_what_is_said_is_one_line_whatever_is_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    say("one\ntwo\x1b[31m\u202ethree")
    assert capfd.readouterr().err == "heim-agent: one two [31m three\n"


def test_long_texts_are_cut() -> None:
    assert len(clean("x" * 10_000)) == 600
    assert clean("x" * 100, 7) == "x" * 7


@pytest.mark.parametrize(
    ("text", "hint", "line"),
    [
        ("It broke.", "mend it", "It broke; mend it"),
        ("was a disk cloned?", "join again", "was a disk cloned? join again"),
        ("It broke.", "", "It broke."),
    ],
)
def test_what_to_do_follows_what_happened(text: str, hint: str, line: str) -> None:
    assert with_hint(text, hint) == line


def test_a_closed_standard_error_is_no_reason_to_stop() -> None:
    kept = os.dup(2)
    os.close(2)
    try:
        say("nobody hears this")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
