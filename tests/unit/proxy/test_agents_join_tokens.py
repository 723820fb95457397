"""Join tokens: their form, what is kept of them, and what proves what."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from heim_proxy.agents.join_tokens import LIFETIME_S, MAX_LIFETIME_S, issue, parse, proves

NOW = 1_800_000_000.0
ROW, TOKEN = issue("desktop", now=NOW)
TEXT = TOKEN.reveal()


def test_a_token_is_recognised_by_scanners_and_people() -> None:
    assert re.fullmatch(r"heim_jt_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", TEXT)
    assert TEXT[8:24] == ROW.id
    assert TEXT not in repr(TOKEN)


def test_the_row_holds_a_hash_and_a_quarter_of_an_hour() -> None:
    assert (ROW.name, ROW.replace, ROW.used, ROW.sid) == ("desktop", False, None, "")
    assert (ROW.created, ROW.expires) == (NOW, NOW + LIFETIME_S)
    assert ROW.secret_hash == hashlib.sha256(TEXT[25:].encode()).digest()


@pytest.mark.parametrize(("asked", "given"), [(60.0, 60.0), (float("inf"), MAX_LIFETIME_S)])
def test_no_token_is_good_for_ever(asked: float, given: float) -> None:
    row, _ = issue("desktop", now=NOW, lifetime_s=asked, replace=True)
    assert (row.expires, row.replace) == (NOW + given, True)


def test_two_tokens_have_nothing_in_common() -> None:
    row, token = issue("desktop", now=NOW)
    assert row.id != ROW.id
    assert token.reveal()[25:] != TEXT[25:]


def test_a_token_proves_its_own_row_and_no_other() -> None:
    presented = parse(TEXT)
    assert presented is not None
    assert presented.id == ROW.id
    assert proves(presented, ROW)
    assert not proves(presented, replace(ROW, secret_hash=hashlib.sha256(b"x").digest()))


@pytest.mark.parametrize(
    "text",
    [
        "",
        TEXT[:-1],
        TEXT + "A",
        TEXT + "\n",
        TEXT.replace("heim_jt_", "heim_st_"),
        TEXT.replace("_", "-"),
        TEXT.upper(),
        "heim_jt_" + "é" * 16 + TEXT[24:],
        " " + TEXT,
    ],
    # Not the texts themselves: they are others in every process.
    ids=[
        "empty", "cut", "longer", "a line", "a service token", "dashes", "upper case",
        "not ASCII", "indented",
    ],
)  # fmt: skip
def test_what_is_not_exactly_a_token_is_none(text: str) -> None:
    assert parse(text) is None
