"""`heim-proxy agent`: what is printed once, what is kept, and what ends."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

import pytest

from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.enrolled import enrolment_of
from heim_proxy.agents.join_tokens import parse, proves
from heim_proxy.cli.agent import (
    create_token,
    list_agents,
    list_tokens,
    revoke_agents,
    revoke_token,
)
from heim_proxy.cli.state import list_sessions, revoke_sessions
from heim_proxy.store.base import JoinTokenRow, SessionRow
from tests.fakes.agent_certificates import new_key
from tests.fakes.heim import Heim
from tests.fakes.snapshots import app
from tests.unit.cli.test_state import Office

AGENTS = [
    {"name": "office", "targets": ["ssh"]},
    {"name": "pool", "targets": ["web"], "group": True},
]


@pytest.fixture
def office(tmp_path: Path) -> Office:
    made = Office(tmp_path)
    made.heim = Heim.prepare(tmp_path, backends=[app()], agents=AGENTS)
    made.stored(lambda store: store.last_revocation())
    return made


def create(
    office: Office, agent: str = "office", expires: str = "15m", *, replace: bool = False
) -> int:
    return office.run(create_token, agent=agent, expires=expires, replace=replace)


def tokens_of(office: Office) -> list[JoinTokenRow]:
    return list(office.stored(lambda store: store.list_join_tokens()))


def joined(office: Office, name: str = "office", at: float | None = None) -> SessionRow:
    key = AgentKey(new_key().public_key())
    row = enrolment_of(name, key, f"pc of {name}", time.time() if at is None else at)
    office.stored(lambda store: store.enrol(row, group=True, replace=False))
    return row


def table(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_the_token_is_all_there_is_on_stdout(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(office) == 0
    told = capsys.readouterr()
    assert re.fullmatch(r"heim_jt_[0-9a-f]{16}_[\w-]{43}\n", told.out)
    token = told.out.strip()
    presented = parse(token)
    (row,) = tokens_of(office)
    assert presented is not None
    assert proves(presented, row)
    assert (row.name, row.replace) == ("office", False)
    assert row.expires == pytest.approx(time.time() + 900, abs=60)
    assert "heim-agent join https://auth.example.test" in told.err
    assert "--token-file -" in told.err
    assert "good once, until " in told.err
    assert "agent.token_created" in told.err
    assert token[25:] not in told.err
    assert token[25:].encode() not in office.path.read_bytes()


@pytest.mark.parametrize(("expires", "seconds"), [("5m", 300), ("7d", 7 * 86400)])
def test_a_token_lasts_as_long_as_asked_for(office: Office, expires: str, seconds: float) -> None:
    assert create(office, expires=expires) == 0
    (row,) = tokens_of(office)
    assert row.expires == pytest.approx(time.time() + seconds, abs=60)


@pytest.mark.parametrize("expires", ["", "15", "soon", "-1m", "0s", "8d", "never"])
def test_a_time_that_is_none_is_wrong_usage(
    office: Office, capsys: pytest.CaptureFixture[str], expires: str
) -> None:
    assert create(office, expires=expires) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("heim-proxy: --expires: ")
    assert tokens_of(office) == []


@pytest.mark.parametrize("name", ["", "Office", "app", "a/b", "desktop"])
def test_an_agent_that_is_not_configured_gets_no_token(
    office: Office, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert create(office, name) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "there is: office, pool" in told.err
    assert tokens_of(office) == []


def test_a_group_is_not_replaced(office: Office, capsys: pytest.CaptureFixture[str]) -> None:
    assert create(office, "pool", replace=True) == 2
    assert "agent revoke --id ID" in capsys.readouterr().err
    assert tokens_of(office) == []


def test_that_the_name_is_taken_is_said_when_the_token_is_made(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("office", "pool"):
        joined(office, name)
    assert create(office) == 0
    assert "another machine is agent office already" in capsys.readouterr().err
    assert create(office, replace=True) == 0
    assert create(office, "pool") == 0
    assert "already" not in capsys.readouterr().err
    assert [row.replace for row in tokens_of(office)].count(True) == 1


def test_tokens_are_listed_without_anything_secret(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    create(office)
    create(office, replace=True)
    first = capsys.readouterr().out.split()[0]
    used = tokens_of(office)[0]
    assert office.run(list_tokens, all=False) == 0
    told = table(capsys)
    assert [row[1] for row in told] == ["office", "office"]
    assert {row[4] for row in told} == {"unused", "replaces"}
    assert first[25:] not in str(told)
    key = AgentKey(new_key().public_key())
    row = enrolment_of("office", key, "pc", time.time())
    office.stored(lambda store: store.enrol(row, group=False, replace=True, token=used.id))
    office.run(list_tokens, all=False)
    assert len(table(capsys)) == 1
    office.run(list_tokens, all=True)
    assert f"used: {row.sid}" in {line[4] for line in table(capsys)}


def test_a_token_that_expired_is_listed_only_when_asked_for(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    old = JoinTokenRow("0123", "office", b"h" * 32, created=1e9, expires=1e9 + 900)
    office.stored(lambda store: store.add_join_token(old))
    assert office.run(list_tokens, all=False) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "there are no join tokens\n")
    office.run(list_tokens, all=True)
    assert table(capsys) == [
        ["0123", "office", "2001-09-09T01:46:40Z", "2001-09-09T02:01:40Z", "expired"]
    ]


def test_a_token_is_revoked_once_and_not_when_it_was_used(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    create(office)
    (row,) = tokens_of(office)
    capsys.readouterr()
    assert office.run(revoke_token, id=row.id) == 0
    assert "agent.token_revoked" in capsys.readouterr().err
    assert office.run(revoke_token, id=row.id) == 1
    create(office)
    (row,) = tokens_of(office)
    made = enrolment_of("office", AgentKey(new_key().public_key()), "pc", time.time())
    office.stored(lambda store: store.enrol(made, group=False, replace=False, token=row.id))
    capsys.readouterr()
    assert office.run(revoke_token, id=row.id) == 1
    assert f"agent revoke --id {made.sid}" in capsys.readouterr().err


def test_agents_are_listed_by_name_those_that_nobody_joined_too(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    row = joined(office, at=1e9)
    assert office.run(list_agents, all=False) == 0
    shown = table(capsys)
    assert shown[0][:3] == [row.sid, "office", "pc of office"]
    assert re.fullmatch(r"[\w-]{43}", shown[0][3])
    assert shown[0][4:] == ["2001-09-09T01:46:40Z", "2001-09-09T01:46:40Z", "live"]
    assert shown[1] == ["-", "pool", "-", "-", "never", "never", "not joined"]
    assert len(shown) == 2


def test_an_agent_that_left_the_configuration_is_shown_as_such(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    joined(office, "gone")
    office.run(list_agents, all=False)
    assert [row[6] for row in table(capsys) if row[1] == "gone"] == ["not configured"]


def test_no_agents_at_all_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Office(tmp_path)
    made.stored(lambda store: store.last_revocation())
    assert made.run(list_agents, all=False) == 0
    assert capsys.readouterr().err == "there are no agents\n"


def test_a_name_is_revoked_or_one_machine_of_it(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = [joined(office, "pool") for _ in range(3)]
    other = joined(office)
    assert office.run(revoke_agents, id=machines[0].sid, agent=None) == 0
    told = capsys.readouterr()
    assert told.err.endswith("1 agent revoked\n")
    assert "agent.revoked" in told.err
    assert office.run(revoke_agents, id=None, agent="pool") == 0
    assert capsys.readouterr().err.endswith("2 agents revoked\n")
    assert office.run(revoke_agents, id=None, agent="pool") == 1
    live = office.stored(lambda store: store.list_sessions())
    assert [row.sid for row in live] == [other.sid]
    office.run(list_agents, all=True)
    assert [row[6] for row in table(capsys)].count("ended: revoked") == 3


def test_a_misspelt_agent_is_told_by_the_nearest_name(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    assert office.run(revoke_agents, id=None, agent="ofice") == 1
    assert "did you mean office?" in capsys.readouterr().err


def test_people_are_neither_listed_nor_ended(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    office.signed_in("a" * 24, "alice@example.test")
    office.run(list_agents, all=False)
    assert "alice" not in capsys.readouterr().out
    assert office.run(revoke_agents, id="a" * 24, agent=None) == 1


def test_session_list_and_revoke_know_agents_too(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    row = joined(office)
    office.run(list_sessions, user=None, all=False)
    (shown,) = table(capsys)
    assert (shown[1], shown[6], shown[7]) == ("office", "agent", "pc of office")
    assert office.run(revoke_sessions, id=row.sid, user=None, everybody=False) == 0
    (ended,) = office.stored(lambda store: store.list_sessions(include_ended=True))
    assert ended.ended is not None


@pytest.mark.parametrize(
    "command", [create_token, list_tokens, revoke_token, list_agents, revoke_agents]
)
def test_without_state_it_is_said_and_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Any
) -> None:
    made = Office(tmp_path)
    args = {"agent": "office", "expires": "15m", "all": False, "id": None, "replace": False}
    assert command(argparse.Namespace(config=str(made.heim.config_file), **args)) == 1
    assert "there is no state yet" in capsys.readouterr().err
    assert not made.path.exists()
