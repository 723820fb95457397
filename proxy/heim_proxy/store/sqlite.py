"""The store on one machine: SQLite in a thread of its own.

Every call is a job for that one thread, so the event loop never waits for a disk and statements
never interleave. Other processes (the command line) may open the same file: WAL lets them write
while we read, and `changed` notices that they did.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from heim_proxy.store import enrolments, programs, sessions
from heim_proxy.store.base import (
    DeviceRow,
    EnrolFailure,
    Enrolment,
    JoinTokenRow,
    PinResult,
    RefreshRow,
    Revocation,
    SessionKind,
    SessionRow,
    StoreUnavailable,
)
from heim_proxy.store.schema import connect

__all__ = ["SqliteStore"]

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_WAITING: Final = 1000
"""Jobs that may wait for the thread. One takes about 0.1 ms: a second's worth would be 10 000, so a
queue of 1000 means that the disk hangs, and more would only be memory."""

CLOSE_DEADLINE_S: Final = 10.0
"""Longer than the busy timeout; a hanging disk must not hold up the rest of a shutdown."""


class SqliteStore:
    """`store.base.Store` in one SQLite file. Owns one thread and one connection.

    Every method raises StoreUnavailable before `open`, after `close`, and when SQLite fails; a
    failed write changes nothing.
    """

    def __init__(self, path: Path, *, failed: Callable[[str], None] | None = None) -> None:
        """Nothing is opened yet; `failed` is told of each call that fails: "read" or "write"."""
        self.path: Final = path
        self._failed: Final = failed or (lambda _: None)
        self._write_problem: str | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None
        self._waiting = 0
        self._data_version = 0

    def __repr__(self) -> str:
        return f"<SqliteStore {str(self.path)!r} {'open' if self._thread else 'closed'}>"

    @property
    def write_problem(self) -> str | None:
        """Why the last write failed; None when it did not."""
        return self._write_problem

    async def open(self) -> None:
        """Create the file (0600, in a directory made 0700) or migrate it.

        Raises:
            StoreUnavailable: when it cannot be opened, is not ours, is damaged, or was written by
                a newer version; the message says what to do.
        """
        if self._thread is not None:
            return
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heim-store")
        try:
            await self._submit(self._connect)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Finish what was asked for, close the file and end the thread; idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
        except TimeoutError:
            log.warning("store.close_timeout", extra={"path": str(self.path)})
            thread.shutdown(wait=False, cancel_futures=True)
        except sqlite3.Error as error:
            log.warning("store.close_failed", extra={"path": str(self.path), "error": str(error)})
            thread.shutdown()
        else:
            # The last job is over, so this only waits for the thread's return.
            thread.shutdown()

    async def changed(self) -> bool:
        """Whether another process wrote since the last call (PRAGMA data_version)."""
        return await self._read(self._changed)

    async def create_session(self, row: SessionRow, *, refresh: RefreshRow | None = None) -> None:
        """Insert a new session, and its refresh token with it; both or neither."""

        def add(db: sqlite3.Connection) -> None:
            sessions.insert(db, row)
            if refresh is not None:
                programs.add_refresh(db, refresh)

        await self._write(add)

    async def get_session(self, sid: str) -> SessionRow | None:
        """The session, ended or not; None when it never existed or was purged."""
        rows = await self._select_sessions("WHERE sid = :sid", {"sid": sid})
        return rows[0] if rows else None

    async def list_sessions(
        self,
        *,
        email: str | None = None,
        kind: SessionKind | None = None,
        include_ended: bool = False,
    ) -> Sequence[SessionRow]:
        """Sessions, newest first, of one e-mail and of one kind if given."""
        return await self._select_sessions(
            "WHERE (:email IS NULL OR email = :email) AND (:kind IS NULL OR kind = :kind) "
            "AND (:ended OR ended IS NULL) ORDER BY created DESC, sid",
            {"email": email, "kind": kind and kind.value, "ended": include_ended},
        )

    async def list_cli_logins(
        self, *, issuer: str, subject: str, now: float, limit: int
    ) -> Sequence[SessionRow]:
        """Live CLI logins of one person, `limit` at most, those seen last first."""
        return await self._select_sessions(
            "WHERE issuer = :issuer AND subject = :subject AND kind = 'cli' AND ended IS NULL "
            "AND expires > :now ORDER BY last_seen DESC, sid LIMIT :limit",
            {"issuer": issuer, "subject": subject, "now": now, "limit": limit},
        )

    async def touch_sessions(self, seen: Mapping[str, float]) -> None:
        """Record last_seen of several sessions at once; never moves a time backwards."""
        rows = [(when, sid) for sid, when in seen.items()]
        await self._write(
            lambda db: db.executemany(
                "UPDATE sessions SET last_seen = max(last_seen, ?) WHERE sid = ?", rows
            )
        )

    async def end_session(self, sid: str, *, reason: str, now: float) -> bool:
        """End one session and add it to the feed; False when it had ended or is unknown."""
        return await self._write(
            lambda db: bool(sessions.end(db, "sid = :sid", {"sid": sid}, reason=reason, now=now))
        )

    async def end_sessions_of(
        self, *, now: float, reason: str, email: str | None = None, before: float | None = None
    ) -> int:
        """End every live session of an e-mail and/or created before a time; how many ended."""
        which = "(:email IS NULL OR email = :email) AND (:before IS NULL OR created < :before)"
        values = {"email": email, "before": before}
        return await self._write(
            lambda db: len(sessions.end(db, which, values, reason=reason, now=now))
        )

    async def revocations(self, after: int) -> Sequence[Revocation]:
        """Feed entries with seq > `after`, oldest first."""
        query = "SELECT seq, sid, reason, at FROM revocations WHERE seq > ? ORDER BY seq"
        return await self._read(
            lambda db: [Revocation(*row) for row in db.execute(query, (after,))]
        )

    async def last_revocation(self) -> int:
        """The highest seq so far, 0 when the feed has always been empty."""
        # Not max(seq): a purge may have emptied the table, and seq must not seem to go back.
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'revocations'"
        row = await self._read(lambda db: db.execute(query).fetchone())
        return int(row[0]) if row else 0

    async def burn(self, jti: str, *, expires: float) -> bool:
        """Mark a one-time id as used; False when it was used before."""
        insert = "INSERT OR IGNORE INTO burned (jti, expires) VALUES (?, ?)"
        return await self._write(lambda db: db.execute(insert, (jti, expires)).rowcount == 1)

    async def get_refresh(self, sid: str) -> RefreshRow | None:
        """The refresh token of a login; None when it has none or was purged."""
        return await self._read(lambda db: programs.get_refresh(db, sid))

    async def rotate_refresh(
        self, sid: str, *, current: bytes, successor: bytes, salt: bytes, now: float
    ) -> bool:
        """Replace a refresh token, if it is still `current`; False when somebody was faster."""
        return await self._write(
            lambda db: programs.rotate_refresh(
                db, sid, current=current, successor=successor, salt=salt, now=now
            )
        )

    async def add_device(self, row: DeviceRow, *, limit: int, limit_per_client: int) -> bool:
        """Note a device that waits, dropping those that expired; False when too many wait."""
        return await self._write(
            lambda db: programs.add_device(db, row, limit=limit, limit_per_client=limit_per_client)
        )

    async def get_device(self, code: bytes) -> DeviceRow | None:
        """The device that has this code; None when it is unknown, taken or dropped."""
        return await self._read(lambda db: programs.get_device(db, code))

    async def find_device(self, user_code: bytes) -> DeviceRow | None:
        """The device whose person types this code; None when there is none."""
        return await self._read(lambda db: programs.find_device(db, user_code))

    async def decide_device(self, user_code: bytes, *, sid: str, now: float) -> bool:
        """Approve a device in the name of session `sid`, or deny it; False when none waits."""
        return await self._write(lambda db: programs.decide_device(db, user_code, sid=sid, now=now))

    async def take_device(self, code: bytes) -> DeviceRow | None:
        """Drop a device that was decided, and return it; None for the second who asks."""
        return await self._write(lambda db: programs.take_device(db, code))

    async def add_join_token(self, row: JoinTokenRow) -> None:
        """Note a token that was made."""
        await self._write(lambda db: enrolments.add_join_token(db, row))

    async def get_join_token(self, token_id: str) -> JoinTokenRow | None:
        """The token of that id, used or not; None when there is none."""
        return await self._read(lambda db: enrolments.get_join_token(db, token_id))

    async def list_join_tokens(self) -> Sequence[JoinTokenRow]:
        """Every token, newest first."""
        return await self._read(enrolments.list_join_tokens)

    async def drop_join_token(self, token_id: str) -> bool:
        """Make a token worthless; False when there is none, or it was used."""
        return await self._write(lambda db: enrolments.drop_join_token(db, token_id))

    async def enrol(
        self, row: SessionRow, *, group: bool, replace: bool, token: str = ""
    ) -> Enrolment | EnrolFailure:
        """Make `row` the enrolment of its subject and burn a token for it; both or neither."""
        return await self._write(
            lambda db: enrolments.enrol(db, row, group=group, replace=replace, token=token)
        )

    async def list_enrolments(self, name: str, *, key: bytes | None = None) -> Sequence[SessionRow]:
        """The enrolments of an agent that have not ended, newest first; of one key if given."""
        if key is not None:
            return await self._read(lambda db: enrolments.of_key(db, name, key))
        return await self._read(lambda db: enrolments.of(db, name))

    async def pin(self, email: str, *, issuer: str, subject: str, now: float) -> PinResult:
        """Bind an e-mail to the first (issuer, subject) seen with it."""

        def bind(db: sqlite3.Connection) -> PinResult:
            insert = (
                "INSERT OR IGNORE INTO pins (email, issuer, subject, since) VALUES (?, ?, ?, ?)"
            )
            if db.execute(insert, (email, issuer, subject, now)).rowcount == 1:
                return PinResult.NEW
            select = "SELECT issuer, subject FROM pins WHERE email = ?"
            bound = db.execute(select, (email,)).fetchone()
            return PinResult.SAME if bound == (issuer, subject) else PinResult.CONFLICT

        return await self._write(bind)

    async def unpin(self, email: str) -> bool:
        """Forget the binding; False when there was none."""
        delete = "DELETE FROM pins WHERE email = ?"
        return await self._write(lambda db: db.execute(delete, (email,)).rowcount == 1)

    async def list_pins(self) -> Sequence[tuple[str, str, str, float]]:
        """(email, issuer, subject, first seen), sorted by e-mail."""
        query = "SELECT email, issuer, subject, since FROM pins ORDER BY email"
        return await self._read(lambda db: db.execute(query).fetchall())

    async def purge(self, *, now: float, keep_ended: float) -> int:
        """Drop what is over, as the protocol says; how many rows."""
        old = now - keep_ended

        def drop(db: sqlite3.Connection) -> int:
            return (
                db.execute("DELETE FROM burned WHERE expires < ?", (now,)).rowcount
                + db.execute("DELETE FROM revocations WHERE at < ?", (old,)).rowcount
                + db.execute(
                    "DELETE FROM sessions WHERE expires < ? OR ended < ?", (old, old)
                ).rowcount
                + programs.purge(db, now=now)
                + enrolments.purge(db, before=old)
            )

        return await self._write(drop)

    async def _select_sessions(
        self, where: str, values: Mapping[str, str | float | None]
    ) -> list[SessionRow]:
        return await self._read(lambda db: sessions.select(db, where, values))

    async def _read(self, job: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._submit(lambda: job(self._connection()))
        except StoreUnavailable:
            self._failed("read")
            raise

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def transact() -> T:
            db = self._connection()
            with _transaction(db):
                return job(db)

        try:
            result = await self._submit(transact)
        except StoreUnavailable as error:
            self._write_problem = str(error)
            self._failed("write")
            raise
        self._write_problem = None
        return result

    async def _submit(self, job: Callable[[], T]) -> T:
        """Run `job` in the store's thread, its failures translated."""
        if self._thread is None:
            raise StoreUnavailable(f"{self.path}: the store is closed")
        if self._waiting >= MAX_WAITING:
            raise StoreUnavailable(f"{self.path}: {MAX_WAITING} calls wait already; disk too slow?")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self.path}: {error}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {error.strerror or error}") from error
        finally:
            self._waiting -= 1

    def _connect(self) -> None:
        self._db = connect(self.path)
        self._changed(self._db)

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise StoreUnavailable(f"{self.path}: the store is not open")
        return self._db

    def _changed(self, db: sqlite3.Connection) -> bool:
        before = self._data_version
        self._data_version = db.execute("PRAGMA data_version").fetchone()[0]
        return self._data_version != before


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE takes the write lock now, under the busy timeout; a deferred transaction that
    # upgrades later fails at once when another process wrote in between.
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # A full disk may have rolled back already; then there is nothing left to undo.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
