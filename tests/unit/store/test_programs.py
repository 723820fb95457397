"""The statements on one connection; what they mean is in tests/contracts/test_store.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from heim_proxy.store import programs
from heim_proxy.store.schema import connect
from tests.contracts.test_store import DEVICE, REFRESH


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "state.db")) as made:
        yield made


def test_hostile_text_is_data(db: sqlite3.Connection) -> None:
    nasty = "'; DROP TABLE devices; --\x01\u202e"
    row = replace(DEVICE, label=nasty, client=nasty, client_key=nasty, network=nasty)
    assert programs.add_device(db, row, limit=9, limit_per_client=9)
    assert not programs.add_device(
        db, replace(row, code=b"x", user_code=b"y"), limit=9, limit_per_client=1
    )
    assert not programs.add_device(
        db, replace(row, code=b"x", user_code=b"y"), limit=1, limit_per_client=9
    )
    assert programs.get_device(db, DEVICE.code) == row


def test_a_decision_is_a_boolean_again(db: sqlite3.Connection) -> None:
    programs.add_device(db, DEVICE, limit=9, limit_per_client=9)
    found = programs.find_device(db, DEVICE.user_code)
    assert found is not None
    assert found.decided is False
    assert programs.decide_device(db, DEVICE.user_code, sid="s1", now=1001.0)
    found = programs.take_device(db, DEVICE.code)
    assert found is not None
    assert found.decided is True


def test_clients_are_counted_with_an_index(db: sqlite3.Connection) -> None:
    plan = db.execute("EXPLAIN QUERY PLAN SELECT count(*) FROM devices WHERE client_key = 'x'")
    assert "devices_client_key" in str(plan.fetchall())


def test_refresh_tokens_without_a_session_are_dropped(db: sqlite3.Connection) -> None:
    programs.add_refresh(db, REFRESH)
    assert programs.purge(db, now=0.0) == 1
    assert programs.get_refresh(db, REFRESH.sid) is None
