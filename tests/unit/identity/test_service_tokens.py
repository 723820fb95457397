"""Service tokens: their form, what is kept of them, and what proves what."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import pytest

from heim_proxy.access.subject import SubjectKind
from heim_proxy.identity.resident import Session
from heim_proxy.identity.service_tokens import bound, issue, parse, proves
from heim_proxy.store.base import SessionKind
from tests.fakes.sessions import NOW

ROW, TOKEN = issue("backup", now=NOW, expires=NOW + 90 * 86400)
TEXT = TOKEN.reveal()


def session(**change: object) -> Session:
    return Session(replace(ROW, **change), lifetime=3600.0)  # type: ignore[arg-type]


def test_a_token_is_recognised_by_scanners_and_people() -> None:
    assert re.fullmatch(r"heim_st_[A-Za-z0-9_-]{24}_[A-Za-z0-9_-]{43}", TEXT)
    assert TEXT[8:32] == ROW.sid


def test_the_row_is_the_accounts_and_holds_a_hash() -> None:
    assert (ROW.kind, ROW.issuer, ROW.subject) == (SessionKind.SERVICE, "heim", "backup")
    assert (ROW.email, ROW.groups, ROW.expires) == (None, (), NOW + 90 * 86400)
    assert ROW.secret_hash == hashlib.sha256(TEXT[33:].encode()).digest()


def test_two_tokens_have_nothing_in_common() -> None:
    row, token = issue("backup", now=NOW, expires=NOW + 1)
    assert row.sid != ROW.sid
    assert token.reveal()[33:] != TEXT[33:]


def test_a_token_proves_its_own_session_and_no_other() -> None:
    presented = parse(TEXT)
    assert presented is not None
    assert presented.sid == ROW.sid
    assert proves(presented, session())
    assert not proves(presented, session(secret_hash=hashlib.sha256(b"x").digest()))


@pytest.mark.parametrize(
    "change",
    [{"kind": SessionKind.BROWSER}, {"kind": SessionKind.CLI}, {"secret_hash": b""}],
    ids=["browser", "cli", "no hash"],
)
def test_only_sessions_of_programs_can_be_proven(change: dict[str, object]) -> None:
    presented = parse(TEXT)
    assert presented is not None
    assert not proves(presented, session(**change))


def test_its_session_is_a_service_accounts() -> None:
    subject = session().subject
    assert subject.kind is SubjectKind.SERVICE_ACCOUNT
    assert (subject.issuer, subject.subject, subject.name) == ("heim", "backup", "backup")
    assert (subject.email, subject.domain, subject.groups) == (None, None, frozenset())


@pytest.mark.parametrize(
    "text",
    ["", "heim_st_", TEXT[:-1], f"{TEXT}A", f" {TEXT}", f"{TEXT}\n", TEXT.upper(),
     TEXT.replace("heim_st_", "heim_rt_"), TEXT[:-1] + "é", TEXT[:32] + "." + TEXT[33:],
     TEXT * 100, f"{TEXT}@example.test", f"{TEXT}@"],
    ids=range(13),
)  # fmt: skip
def test_only_the_exact_form_is_read(text: str) -> None:
    assert parse(text) is None


def test_nothing_shows_a_token() -> None:
    for thing in (ROW, TOKEN, parse(TEXT), session()):
        assert TEXT[33:] not in f"{thing!r} {thing}"
        assert ROW.secret_hash.hex() not in repr(thing)
        assert repr(ROW.secret_hash) not in repr(thing)


def test_a_programs_file_says_where_the_token_may_go() -> None:
    made = bound(TOKEN, ("example.test", "*.other.test"))
    assert made.reveal() == f"{TEXT}@example.test,*.other.test"
    assert TEXT not in repr(made)
