"""The SQLite file: how it is created, checked and migrated.

`PRAGMA application_id` says that a file is ours, `PRAGMA user_version` which schema it has. All of
this runs in the store's own thread.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import Final

from heim_proxy.store.base import StoreUnavailable

__all__ = ["SCHEMA_VERSION", "connect"]

APPLICATION_ID: Final = 0x4845494D  # "HEIM"

BUSY_TIMEOUT_S: Final = 2.0
"""How long a write waits for another process's write; those take milliseconds."""

_MIGRATIONS: Final = (
    # to version 1
    """
    CREATE TABLE sessions (
        sid TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL, email TEXT, domain TEXT,
        groups TEXT NOT NULL, provider TEXT NOT NULL, auth_time REAL NOT NULL,
        created REAL NOT NULL, expires REAL NOT NULL, last_seen REAL NOT NULL,
        sealed_tokens BLOB NOT NULL, ended REAL, end_reason TEXT NOT NULL
    ) STRICT;
    CREATE INDEX sessions_email ON sessions (email);
    CREATE TABLE revocations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, sid TEXT NOT NULL, reason TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT;
    CREATE TABLE burned (jti TEXT PRIMARY KEY, expires REAL NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE pins (
        email TEXT PRIMARY KEY, issuer TEXT NOT NULL, subject TEXT NOT NULL, since REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    # to version 2: programs have sessions, too
    """
    ALTER TABLE sessions ADD COLUMN kind TEXT NOT NULL DEFAULT 'browser';
    ALTER TABLE sessions ADD COLUMN label TEXT NOT NULL DEFAULT '';
    ALTER TABLE sessions ADD COLUMN secret_hash BLOB NOT NULL DEFAULT x'';
    CREATE TABLE refresh_tokens (
        sid TEXT PRIMARY KEY, family BLOB NOT NULL, current BLOB NOT NULL, rotated REAL NOT NULL,
        previous BLOB NOT NULL, salt BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE devices (
        code BLOB PRIMARY KEY, user_code BLOB NOT NULL UNIQUE, label TEXT NOT NULL,
        client TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL,
        decided INTEGER NOT NULL, sid TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX devices_client ON devices (client);
    """,
    # to version 3: people look at their command lines; devices are counted as sign-ins are
    """
    CREATE INDEX sessions_person ON sessions (issuer, subject);
    DROP INDEX devices_client;
    ALTER TABLE devices ADD COLUMN client_key TEXT NOT NULL DEFAULT '';
    ALTER TABLE devices ADD COLUMN network TEXT NOT NULL DEFAULT '';
    UPDATE devices SET client_key = client, network = client;
    CREATE INDEX devices_client_key ON devices (client_key);
    """,
    # to version 4: agents are enrolled, by a token or by somebody's approval
    """
    CREATE TABLE join_tokens (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, secret_hash BLOB NOT NULL, created REAL NOT NULL,
        expires REAL NOT NULL, replace_others INTEGER NOT NULL, used REAL, sid TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE devices ADD COLUMN agent TEXT NOT NULL DEFAULT '';
    ALTER TABLE devices ADD COLUMN key BLOB NOT NULL DEFAULT x'';
    ALTER TABLE devices ADD COLUMN version TEXT NOT NULL DEFAULT '';
    CREATE INDEX sessions_enrolled ON sessions (secret_hash)
        WHERE kind = 'agent' AND ended IS NULL;
    """,
)
"""Entry n takes a file from version n to n + 1; an entry that was released is never edited."""

SCHEMA_VERSION: Final = len(_MIGRATIONS)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file at `path`, creating or migrating it.

    Raises:
        StoreUnavailable: when it is damaged, not ours or too new.
        sqlite3.Error, OSError: for anything else that goes wrong.
    """
    _create(path)
    db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    try:
        try:
            damage = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            damage = str(error)
        if damage != "ok":
            raise StoreUnavailable(
                f"{path}: damaged or not a SQLite database ({damage}). Restore a backup, or "
                "move it away: Heim then starts with an empty one and people sign in again."
            )
        db.execute("PRAGMA journal_mode = WAL")
        # FULL: a revocation or a used ticket must not come back after a power failure. Writes are
        # logins, logouts and one flush a minute, in a thread of their own.
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, path)
    except BaseException:
        db.close()
        raise
    return db


def _create(path: Path) -> None:
    """Make sure that the file exists and is readable by us alone before SQLite touches it.

    SQLite gives the -wal and -shm files beside it the same mode.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    # One transaction, taken before the version is read: two processes may start at once.
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        owner = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if owner != APPLICATION_ID and tables:
            raise StoreUnavailable(
                f"{path}: a SQLite database, but not Heim's; give it another path"
            )
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{path}: written by a newer Heim (schema {version}, this one knows "
                f"{SCHEMA_VERSION}); run that version, or restore the backup made before it"
            )
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                if statement.strip():
                    db.execute(statement)
        if version < SCHEMA_VERSION:
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
