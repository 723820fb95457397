"""The table of reasons: what Events may carry, and that each is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heim_controller.translation import reasons
from heim_controller.translation.reasons import REASONS, Meaning, Severity

SOURCES = Path(reasons.__file__).parent


@pytest.mark.parametrize(("reason", "meaning"), REASONS.items(), ids=lambda v: str(v)[:40])
def test_a_reason_is_a_word_with_a_meaning_and_a_remedy(reason: str, meaning: Meaning) -> None:
    # Conditions take no other reasons (metav1.Condition).
    assert re.fullmatch(r"[A-Z][A-Za-z]{0,63}", reason)
    assert meaning.means.endswith(".")
    assert meaning.remedy.endswith(".")


def test_every_reason_is_said_somewhere() -> None:
    text = "".join(path.read_text() for path in SOURCES.glob("*.py") if path.name != "reasons.py")
    assert [reason for reason in REASONS if f'"{reason}"' not in text] == []


def test_what_points_nowhere_is_told_from_what_is_wrong_itself() -> None:
    assert REASONS["ServiceNotFound"].reference
    assert not REASONS["HostNotOwned"].reference
    assert REASONS["ReplacedByHeim"].severity is Severity.INFO
