"""`heim-proxy token`: what is printed once, what is kept, and what ends."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.cli.state import list_sessions, revoke_sessions
from heim_proxy.cli.token import create_token, list_tokens, revoke_tokens
from heim_proxy.identity.service_tokens import parse
from heim_proxy.store.base import SessionKind, SessionRow
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app
from tests.unit.cli.test_state import Office

DAY = 86400.0


@pytest.fixture
def office(tmp_path: Path) -> Office:
    made = Office(tmp_path)
    made.heim = Heim.prepare(
        tmp_path, backends=[app()], service_accounts=[{"name": "backup"}, {"name": "ci"}]
    )
    made.stored(lambda store: store.last_revocation())
    return made


def create(office: Office, account: str = "backup", expires: str = "90d") -> int:
    return office.run(create_token, account=account, expires=expires)


def rows_of(office: Office) -> list[SessionRow]:
    found = office.stored(lambda store: store.list_sessions(include_ended=True))
    return list(found)


def test_the_token_is_all_there_is_on_stdout(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(office) == 0
    told = capsys.readouterr()
    assert re.fullmatch(r"heim_st_[\w-]{24}_[\w-]{43}@example\.test\n", told.out)
    token = told.out.partition("@")[0]
    (row,) = rows_of(office)
    presented = parse(token)
    assert presented is not None
    assert presented.sid == row.sid
    assert (row.kind, row.subject, row.label) == (SessionKind.SERVICE, "backup", "")
    assert row.expires == pytest.approx(time.time() + 90 * DAY, abs=60)
    assert "token.created" in told.err
    assert row.sid in told.err
    assert token[33:] not in told.err
    assert token[33:].encode() not in office.path.read_bytes()


@pytest.mark.parametrize(
    ("expires", "seconds"), [("12h", DAY / 2), ("365d", 365 * DAY), ("never", float("inf"))]
)
def test_a_token_lasts_as_long_as_asked_for(office: Office, expires: str, seconds: float) -> None:
    assert create(office, expires=expires) == 0
    (row,) = rows_of(office)
    assert row.expires == pytest.approx(time.time() + seconds, abs=60)


@pytest.mark.parametrize("expires", ["", "90", "soon", "-1d", "0s", "4000d", "Never", "1e9d"])
def test_a_time_that_is_none_is_wrong_usage(
    office: Office, capsys: pytest.CaptureFixture[str], expires: str
) -> None:
    assert create(office, expires=expires) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("heim-proxy: --expires: ")
    assert rows_of(office) == []


@pytest.mark.parametrize("account", ["alice@example.test", "", "Backup", "app"])
def test_an_account_that_is_not_configured_gets_no_token(
    office: Office, capsys: pytest.CaptureFixture[str], account: str
) -> None:
    assert create(office, account=account) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "there is: backup, ci" in told.err
    assert rows_of(office) == []


def table(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_tokens_are_listed_without_anything_secret(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    create(office, "backup", "never")
    create(office, "ci", "1h")
    token = capsys.readouterr().out.partition("@")[0]
    assert office.run(list_tokens, all=False) == 0
    shown = table(capsys)
    assert [row[1] for row in shown] == ["ci", "backup"]
    created = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(created, shown[1][2])
    assert shown[1][3:] == ["never", "never", "live"]
    assert re.fullmatch(created, shown[0][4])
    assert token[33:] not in str(shown)


def test_people_are_not_among_the_tokens(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.signed_in("a" * 24, "alice@example.test")
    assert office.run(list_tokens, all=False) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "there are no tokens\n")
    assert office.run(revoke_tokens, id="a" * 24, account=None) == 1
    assert all(row.ended is None for row in rows_of(office))


def test_use_expiry_and_an_account_that_left_are_shown(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(sid: str, account: str, **times: float) -> SessionRow:
        facts: dict[str, Any] = {"created": 1e9, "last_seen": 1e9, "expires": 4e9, **times}
        return SessionRow(
            sid=sid * 24, issuer="heim", subject=account, email=None, domain=None, groups=(),
            provider="heim", auth_time=1e9, kind=SessionKind.SERVICE, **facts,
        )  # fmt: skip

    made = [
        row("a", "backup", last_seen=1e9 + 60),
        row("b", "backup", expires=1.1e9),
        row("c", "gone"),
    ]
    for one in made:
        office.stored(lambda store, one=one: store.create_session(one))  # type: ignore[misc]
    office.run(list_tokens, all=False)
    assert [(line[3], line[5]) for line in table(capsys)] == [
        ("2001-09-09T01:47:40Z", "live"),
        ("never", "expired"),
        ("never", "account not configured"),
    ]


def test_one_token_or_all_of_an_account_end(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    for account in ("backup", "backup", "backup", "ci"):
        create(office, account)
    sids = [row.sid for row in rows_of(office) if row.subject == "backup"]
    capsys.readouterr()
    assert office.run(revoke_tokens, id=sids[0], account=None) == 0
    told = capsys.readouterr()
    assert told.err.endswith("1 token revoked\n")
    assert "token.revoked" in told.err
    assert office.run(revoke_tokens, id=None, account="backup") == 0
    assert capsys.readouterr().err.endswith("2 tokens revoked\n")
    assert office.run(revoke_tokens, id=None, account="backup") == 1
    assert [row.subject for row in rows_of(office) if row.ended is None] == ["ci"]
    office.run(list_tokens, all=True)
    assert [row[5] for row in table(capsys)].count("ended: revoked") == 3


def test_session_list_and_revoke_know_tokens_too(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    create(office)
    (row,) = rows_of(office)
    capsys.readouterr()
    office.run(list_sessions, user=None, all=False)
    assert table(capsys)[0][1] == "backup"
    assert office.run(revoke_sessions, id=row.sid, user=None, everybody=False) == 0
    assert rows_of(office)[0].ended is not None


@pytest.mark.parametrize("command", [create_token, list_tokens, revoke_tokens])
def test_without_state_it_is_said_and_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Any
) -> None:
    made = Office(tmp_path)
    args = {"account": "backup", "expires": "90d", "all": False, "id": None}
    assert command(argparse.Namespace(config=str(made.heim.config_file), **args)) == 1
    assert "there is no state yet" in capsys.readouterr().err
    assert not made.path.exists()
