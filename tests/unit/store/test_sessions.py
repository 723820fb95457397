"""The statements on one connection; what they mean is in tests/contracts/test_store.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from heim_proxy.store import sessions
from heim_proxy.store.schema import connect
from tests.contracts.test_store import ROW, SERVICE


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "state.db")) as made:
        yield made


def test_every_column_is_read_where_it_was_written(db: sqlite3.Connection) -> None:
    """Each value differs from the others, so that no two columns can be swapped."""
    row = replace(
        SERVICE, email="e", domain="d", groups=("g",), auth_time=1.0, created=2.0, expires=3.0,
        last_seen=4.0, sealed_tokens=b"t", ended=5.0, end_reason="r", label="l", secret_hash=b"h",
    )  # fmt: skip
    sessions.insert(db, row)
    assert sessions.select(db, "", {}) == [row]


def test_ending_says_who_ended(db: sqlite3.Connection) -> None:
    for sid in ("s1", "s2"):
        sessions.insert(db, replace(ROW, sid=sid))
    which = {"sid": "s1"}
    assert sessions.end(db, "sid = :sid", which, reason="logout", now=1.0) == ("s1",)
    assert sessions.end(db, "sid = :sid", which, reason="logout", now=1.0) == ()
    assert sessions.end(db, "true", {}, reason="logout", now=1.0) == ("s2",)
