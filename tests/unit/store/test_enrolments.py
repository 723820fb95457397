"""The statements on one connection; what they mean is in the contract suite of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from heim_proxy.store import enrolments
from heim_proxy.store.base import Enrolment
from heim_proxy.store.schema import connect
from tests.contracts.test_store_of_agents import ROW, TOKEN


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "state.db")) as made:
        yield made


def test_a_flag_is_a_boolean_again(db: sqlite3.Connection) -> None:
    for token_id, replaces in (("j1", True), ("j2", False)):
        enrolments.add_join_token(db, replace(TOKEN, id=token_id, replace=replaces))
        found = enrolments.get_join_token(db, token_id)
        assert found is not None
        assert found.replace is replaces


def test_hostile_text_is_data(db: sqlite3.Connection) -> None:
    nasty = "'; DROP TABLE join_tokens; --\x01\u202e"
    enrolments.add_join_token(db, replace(TOKEN, id=nasty, name=nasty))
    row = replace(ROW, subject=nasty, label=nasty)
    done = enrolments.enrol(db, row, group=False, replace=False, token=nasty)
    assert done == Enrolment(row)
    assert enrolments.of(db, nasty) == [row]


def test_the_enrolments_of_a_name_are_found_with_an_index(db: sqlite3.Connection) -> None:
    """Ten thousand agents that come back at once ask ten thousand times."""
    plan = db.execute(
        f"EXPLAIN QUERY PLAN SELECT sid FROM sessions WHERE {enrolments._LIVE} "
        "AND ended IS NULL ORDER BY created DESC, sid",
        {"issuer": "heim", "name": "desktop"},
    )
    assert "sessions_person" in str(plan.fetchall())
