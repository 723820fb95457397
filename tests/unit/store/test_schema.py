"""The file's versions; what it does to damaged and foreign files is in test_sqlite."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from heim_proxy.store import programs, schema
from heim_proxy.store.base import DeviceRow, SessionKind, SessionRow, StoreUnavailable
from heim_proxy.store.schema import SCHEMA_VERSION, connect
from heim_proxy.store.sqlite import SqliteStore


def shape(db: sqlite3.Connection) -> set[tuple[str, str]]:
    return set(db.execute("SELECT type, name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'"))


def version(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def test_a_new_file_has_the_newest_version_and_says_whose_it_is(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "new" / "state.db")) as db:
        assert version(db) == SCHEMA_VERSION
        assert db.execute("PRAGMA application_id").fetchone()[0].to_bytes(4, "big") == b"HEIM"
        assert {"sessions"} <= {name for _, name in shape(db)}


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(connect(path)) as db:
        before = shape(db)
    with closing(connect(path)) as db:
        assert (shape(db), version(db)) == (before, SCHEMA_VERSION)


@pytest.mark.parametrize("start", range(1, SCHEMA_VERSION + 1))
def test_a_file_of_every_earlier_version_becomes_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int
) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:start])
        earlier.setattr(schema, "SCHEMA_VERSION", start)
        with closing(connect(path)) as db:
            assert version(db) == start
    with closing(connect(path)) as db, closing(connect(tmp_path / "new.db")) as fresh:
        assert version(db) == SCHEMA_VERSION
        assert shape(db) == shape(fresh)


def test_sessions_of_version_1_are_browsers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:1])
        earlier.setattr(schema, "SCHEMA_VERSION", 1)
        with closing(connect(path)) as db:
            db.execute(
                "INSERT INTO sessions VALUES ('s1', 'i', '1', 'a@b.c', NULL, '[\"dev\"]', 'idp', "
                "1.0, 1.0, 9.0, 2.0, x'00ff', NULL, '')"
            )

    async def read() -> SessionRow | None:
        store = SqliteStore(path)
        await store.open()
        try:
            return await store.get_session("s1")
        finally:
            await store.close()

    found = asyncio.run(read())
    assert found == SessionRow(
        sid="s1", issuer="i", subject="1", email="a@b.c", domain=None, groups=("dev",),
        provider="idp", auth_time=1.0, created=1.0, expires=9.0, last_seen=2.0,
        sealed_tokens=b"\x00\xff", kind=SessionKind.BROWSER, label="", secret_hash=b"",
    )  # fmt: skip


def test_devices_that_waited_in_version_2_count_by_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:2])
        earlier.setattr(schema, "SCHEMA_VERSION", 2)
        with closing(connect(path)) as db:
            db.execute("INSERT INTO devices VALUES (x'0c', x'0d', 'x', '192.0.2.7', 1, 9, 0, '')")
    with closing(connect(path)) as db:
        assert programs.get_device(db, b"\x0c") == DeviceRow(
            code=b"\x0c", user_code=b"\x0d", label="x", client="192.0.2.7",
            client_key="192.0.2.7", network="192.0.2.7", created=1.0, expires=9.0,
        )  # fmt: skip


def test_devices_that_waited_in_version_3_are_command_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "_MIGRATIONS", schema._MIGRATIONS[:3])
        earlier.setattr(schema, "SCHEMA_VERSION", 3)
        with closing(connect(path)) as db:
            values = "(x'0c', x'0d', 'x', 'c', 1, 9, 0, '', 'k', 'n')"
            db.execute(f"INSERT INTO devices VALUES {values}")
    with closing(connect(path)) as db:
        found = programs.get_device(db, b"\x0c")
    assert found is not None
    assert (found.client_key, found.network, found.agent, found.key) == ("k", "n", "", b"")


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    with closing(connect(path)) as db:
        before = shape(db)
    with monkeypatch.context() as later:
        broken = "CREATE TABLE half (a TEXT); CREATE TABLE nonsense"
        later.setattr(schema, "_MIGRATIONS", (*schema._MIGRATIONS, broken))
        later.setattr(schema, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        with pytest.raises(sqlite3.Error):
            connect(path)
    with closing(connect(path)) as db:
        assert (shape(db), version(db)) == (before, SCHEMA_VERSION)


def test_a_version_from_the_future_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with closing(connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreUnavailable, match="newer Heim"):
        connect(path)
