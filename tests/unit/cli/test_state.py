from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from heim_proxy.cli.state import list_sessions, list_subjects, revoke_sessions, unpin_subject
from heim_proxy.store.base import SessionRow
from heim_proxy.store.sqlite import SqliteStore
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app

T = TypeVar("T")


class Office:
    """A configuration with state, and the operator's commands on it."""

    def __init__(self, directory: Path) -> None:
        self.heim = Heim.prepare(directory, backends=[app()])
        self.path = directory / "state" / "state.db"

    def stored(self, work: Callable[[SqliteStore], Awaitable[T]]) -> T:
        async def run() -> T:
            store = SqliteStore(self.path)
            await store.open()
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def signed_in(self, sid: str, email: str | None, *, created: float = 1_700_000_000.0) -> None:
        row = SessionRow(
            sid=sid, issuer="https://idp.test", subject=f"sub-{sid}", provider="test",
            email=email, domain=None, groups=(), auth_time=created, created=created,
            expires=4_000_000_000.0, last_seen=created + 60, sealed_tokens=b"",
        )  # fmt: skip
        self.stored(lambda store: store.create_session(row))

    def run(self, command: Callable[[argparse.Namespace], int], **args: Any) -> int:
        return command(argparse.Namespace(config=str(self.heim.config_file), **args))


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


SID = ["a" * 24, "b" * 24, "c" * 24]


def rows(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_sessions_are_listed_newest_first(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.signed_in(SID[0], "alice@example.test")
    office.signed_in(SID[1], None, created=1_700_000_100.0)
    assert office.run(list_sessions, user=None, all=False) == 0
    assert rows(capsys) == [
        [SID[1], f"sub-{SID[1]}", "test", "2023-11-14T22:15:00Z", "2023-11-14T22:16:00Z", "live",
         "browser", "-"],
        [SID[0], "alice@example.test", "test", "2023-11-14T22:13:20Z", "2023-11-14T22:14:20Z",
         "live", "browser", "-"],
    ]  # fmt: skip


def test_ended_ones_are_listed_when_asked_for(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.signed_in(SID[0], "alice@example.test")
    office.signed_in(SID[1], "bob@example.test")
    assert office.run(revoke_sessions, id=SID[0], user=None, everybody=False) == 0
    assert capsys.readouterr().err == "1 session revoked\n"
    office.run(list_sessions, user=None, all=False)
    assert [row[0] for row in rows(capsys)] == [SID[1]]
    office.run(list_sessions, user=None, all=True)
    assert {row[0]: row[5] for row in rows(capsys)} == {SID[0]: "ended: revoked", SID[1]: "live"}


def test_one_persons_sessions_are_listed_and_revoked(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    for sid, email in zip(SID, ["alice@example.test"] * 2 + ["bob@example.test"], strict=True):
        office.signed_in(sid, email)
    office.run(list_sessions, user="alice@example.test", all=False)
    assert {row[0] for row in rows(capsys)} == {SID[0], SID[1]}
    assert office.run(revoke_sessions, id=None, user="alice@example.test", everybody=False) == 0
    assert capsys.readouterr().err == "2 sessions revoked\n"
    office.run(list_sessions, user=None, all=False)
    assert [row[0] for row in rows(capsys)] == [SID[2]]


def test_everybody_is_signed_out(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    for sid in SID:
        office.signed_in(sid, "alice@example.test")
    assert office.run(revoke_sessions, id=None, user=None, everybody=True) == 0
    assert capsys.readouterr().err == "3 sessions revoked\n"
    assert office.run(list_sessions, user=None, all=False) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "nobody is signed in\n")


@pytest.mark.parametrize(
    "which", [{"id": "z" * 24, "user": None}, {"id": None, "user": "nobody@example.test"}]
)
def test_revoking_nothing_is_1(
    office: Office, capsys: pytest.CaptureFixture[str], which: dict[str, str | None]
) -> None:
    office.signed_in(SID[0], "alice@example.test")
    assert office.run(revoke_sessions, **which, everybody=False) == 1
    assert capsys.readouterr().err == "0 sessions revoked\n"


def test_accounts_behind_addresses_are_listed_and_let_go(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.stored(
        lambda store: store.pin(
            "alice@example.test", issuer="https://idp.test", subject="1", now=1_700_000_000.0
        )
    )
    assert office.run(list_subjects) == 0
    assert rows(capsys) == [["alice@example.test", "https://idp.test", "1", "2023-11-14T22:13:20Z"]]
    assert office.run(unpin_subject, email="Alice@Example.test") == 0
    assert office.run(list_subjects) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith("\nno address is pinned to an account\n")
    assert office.run(unpin_subject, email="alice@example.test") == 1
    assert "not pinned" in capsys.readouterr().err


@pytest.mark.parametrize("command", [list_sessions, revoke_sessions, list_subjects, unpin_subject])
def test_without_state_it_is_said_and_none_is_made(
    office: Office,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[argparse.Namespace], int],
) -> None:
    args = {"id": "x", "user": None, "all": False, "everybody": False, "email": "a@b.c"}
    assert office.run(command, **args) == 1
    assert "there is no state yet" in capsys.readouterr().err
    assert not office.path.exists()


def test_a_state_that_is_none_is_said(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    office.path.parent.mkdir()
    office.path.write_bytes(b"not a database" * 100)
    assert office.run(list_sessions, user=None, all=False) == 1
    assert capsys.readouterr().err.startswith("heim-proxy: ")


def test_a_configuration_that_cannot_be_used_is_2(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.heim.config_file.write_text("version: 2\n")
    assert office.run(list_sessions, user=None, all=False) == 2
    assert "mistake" in capsys.readouterr().err
