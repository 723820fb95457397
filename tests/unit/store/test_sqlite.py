"""What is SQLite's own: the file, the thread, other processes, and disks that fail."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from heim_proxy.store.base import StoreUnavailable
from heim_proxy.store.schema import SCHEMA_VERSION
from heim_proxy.store.sqlite import MAX_WAITING, SqliteStore
from tests.contracts.test_store import CLI, DEVICE, REFRESH, ROW


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = SqliteStore(tmp_path / "state.db")
    await made.open()
    yield made
    await made.close()


def store_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "heim-store" in thread.name]


async def test_everything_survives_a_restart(tmp_path: Path) -> None:
    for attempt in range(2):
        store = SqliteStore(tmp_path / "state.db")
        await store.open()
        if attempt == 0:
            await store.create_session(ROW)
            await store.burn("t1", expires=2000.0)
        else:
            assert await store.get_session("s1") == ROW
            assert not await store.burn("t1", expires=2000.0)
        await store.close()


async def test_file_and_directory_are_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.db"
    store = SqliteStore(path)
    await store.open()
    await store.create_session(ROW)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()


async def test_a_file_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch(0o644)
    path.chmod(0o644)
    store = SqliteStore(path)
    await store.open()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await store.close()


async def test_close_leaves_no_thread_and_may_be_repeated(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.open()
    assert store_threads()
    await store.close()
    await store.close()
    assert not store_threads()


async def test_open_twice_is_open_once(store: SqliteStore) -> None:
    await store.open()
    assert len(store_threads()) == 1


async def test_a_closed_store_opens_again(store: SqliteStore) -> None:
    await store.create_session(ROW)
    await store.close()
    await store.open()
    assert await store.get_session("s1") == ROW


async def test_a_failed_open_leaves_no_thread(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(StoreUnavailable, match="directory"):
        await store.open()
    assert not store_threads()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"this is no database, whatever its name says" * 100, id="text"),
        pytest.param(b"SQLite format 3\0" + b"\xff" * 8176, id="a header and noise"),
        pytest.param(b"\0" * 4096, id="zeros"),
    ],
)
async def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"state\.db: damaged or not a SQLite database"):
        await SqliteStore(path).open()
    assert path.read_bytes() == content, "the evidence was altered"
    assert not store_threads()


async def test_damage_inside_is_noticed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    await store.open()
    for number in range(200):
        await store.create_session(replace(ROW, sid=f"s{number}", sealed_tokens=b"x" * 500))
    await store.close()
    content = bytearray(path.read_bytes())
    content[8192:12288] = b"\xa5" * 4096
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="damaged"):
        await SqliteStore(path).open()


async def test_a_newer_schema_is_refused_with_both_numbers(
    store: SqliteStore, tmp_path: Path
) -> None:
    await store.close()
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    numbers = rf"newer Heim \(schema 99, this one knows {SCHEMA_VERSION}\)"
    with pytest.raises(StoreUnavailable, match=numbers):
        await store.open()


async def test_somebody_elses_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "firefox.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    with pytest.raises(StoreUnavailable, match="not Heim's"):
        await SqliteStore(path).open()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        tables = db.execute("SELECT name FROM sqlite_schema").fetchall()
    db.close()
    assert tables == [("bookmarks",)]


async def test_two_processes_may_create_the_file_at_once(tmp_path: Path) -> None:
    stores = [SqliteStore(tmp_path / "state.db") for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await stores[0].create_session(ROW)
    assert await stores[3].get_session("s1") == ROW
    for store in stores:
        await store.close()


async def test_writes_of_another_process_are_noticed(store: SqliteStore, tmp_path: Path) -> None:
    await store.create_session(ROW)
    assert not await store.changed()
    other = SqliteStore(tmp_path / "state.db")
    await other.open()
    assert not await store.changed()
    await other.end_session("s1", reason="revoked", now=1100.0)
    assert await store.changed()
    assert not await store.changed()
    assert [entry.sid for entry in await store.revocations(0)] == ["s1"]
    await other.close()


async def test_of_two_processes_one_rotates_a_refresh_token_and_one_takes_a_device(
    store: SqliteStore, tmp_path: Path
) -> None:
    other = SqliteStore(tmp_path / "state.db")
    await other.open()
    await store.create_session(CLI, refresh=REFRESH)
    await store.add_device(DEVICE, limit=9, limit_per_client=9)
    await other.decide_device(DEVICE.user_code, sid="s1", now=1100.0)
    for _ in range(20):
        row = await store.get_refresh("c1")
        assert row is not None
        won = await asyncio.gather(
            *(
                one.rotate_refresh(
                    "c1", current=row.current, successor=os.urandom(32), salt=b"", now=1.0
                )
                for one in (store, other)
            )
        )
        assert sorted(won) == [False, True]
    taken = await asyncio.gather(*(one.take_device(DEVICE.code) for one in (store, other)))
    assert len([row for row in taken if row is not None]) == 1
    await other.close()


async def test_a_full_disk_refuses_writes_and_still_reads(store: SqliteStore) -> None:
    await store.create_session(ROW)
    await store._read(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())
    big = replace(ROW, sid="s2", sealed_tokens=b"x" * 100_000)
    with pytest.raises(StoreUnavailable, match=r"state\.db: database or disk is full"):
        await store.create_session(big)
    assert await store.get_session("s1") == ROW
    assert await store.get_session("s2") is None
    assert str(store.write_problem).endswith("state.db: database or disk is full")
    await store._read(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
    await store.create_session(big)
    assert await store.get_session("s2") == big
    assert store.write_problem is None


async def test_who_counts_failures_is_told_of_each(tmp_path: Path) -> None:
    told: list[str] = []
    store = SqliteStore(tmp_path / "state.db", failed=told.append)
    for call in (store.get_session("s1"), store.create_session(ROW)):
        with pytest.raises(StoreUnavailable):
            await call
    assert told == ["read", "write"]
    await store.open()
    await store.create_session(ROW)
    assert told == ["read", "write"]
    await store.close()


async def test_a_locked_database_is_unavailable_and_not_for_ever(
    store: SqliteStore, tmp_path: Path
) -> None:
    await store.create_session(ROW)
    await store._read(lambda db: db.execute("PRAGMA busy_timeout = 50").fetchone())
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.end_session("s1", reason="logout", now=1100.0)
    assert await store.get_session("s1") == ROW, "readers do not wait for writers"
    other.execute("ROLLBACK")
    other.close()
    assert await store.end_session("s1", reason="logout", now=1100.0)


async def test_the_loop_runs_on_while_the_disk_is_slow(store: SqliteStore) -> None:
    slow = asyncio.ensure_future(store._read(lambda _: time.sleep(0.3)))
    turns = 0
    while not slow.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert turns > 10


async def test_the_queue_for_a_hanging_disk_is_bounded(store: SqliteStore) -> None:
    hang = threading.Event()
    calls = [asyncio.ensure_future(store._read(lambda _: hang.wait(10)))]
    calls += [asyncio.ensure_future(store.get_session("s1")) for _ in range(MAX_WAITING - 1)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="disk too slow"):
        await store.get_session("s1")
    hang.set()
    await asyncio.gather(*calls)
    assert await store.get_session("s1") is None


async def test_a_caller_that_gives_up_leaves_the_store_usable(store: SqliteStore) -> None:
    hang = threading.Event()
    first = asyncio.ensure_future(store._read(lambda _: hang.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await store.create_session(ROW)
    hang.set()
    await first
    assert await store.get_session("s1") is None, "a call given up while it waited was run"
    await store.create_session(ROW)


async def test_repr_names_the_file_and_state(store: SqliteStore) -> None:
    assert repr(store).endswith("state.db' open>")
    await store.close()
    assert repr(store).endswith("state.db' closed>")
