"""Sessions in SQLite, as statements.

Each function runs in the store's thread; those that write, inside a transaction of their caller.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Final

from heim_proxy.store.base import SessionKind, SessionRow

__all__ = ["end", "insert", "select"]

_COLUMNS: Final = (
    "sid, issuer, subject, email, domain, groups, provider, auth_time, created, expires, "
    "last_seen, sealed_tokens, ended, end_reason, kind, label, secret_hash"
)

# S608 below: what is inserted into statements are constants, here and in the callers.


def insert(db: sqlite3.Connection, row: SessionRow) -> None:
    """Add a session; sqlite3.IntegrityError when there is one of its id."""
    values = (
        *(row.sid, row.issuer, row.subject, row.email, row.domain, json.dumps(row.groups)),
        *(row.provider, row.auth_time, row.created, row.expires, row.last_seen),
        *(row.sealed_tokens, row.ended, row.end_reason),
        *(row.kind.value, row.label, row.secret_hash),
    )
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT INTO sessions ({_COLUMNS}) VALUES ({marks})", values)  # noqa: S608


def select(
    db: sqlite3.Connection, where: str, values: Mapping[str, str | bytes | float | None]
) -> list[SessionRow]:
    """The sessions that the clause `where` (a constant) selects."""
    query = f"SELECT {_COLUMNS} FROM sessions {where}"  # noqa: S608
    return [_session(*row) for row in db.execute(query, values)]


def end(
    db: sqlite3.Connection,
    which: str,
    values: Mapping[str, str | float | None],
    *,
    reason: str,
    now: float,
) -> tuple[str, ...]:
    """End the live sessions that `which` (a constant) selects and tell the feed; their ids."""
    query = f"SELECT sid FROM sessions WHERE ended IS NULL AND {which}"  # noqa: S608
    sids = tuple(row[0] for row in db.execute(query, values))
    db.executemany(
        "UPDATE sessions SET ended = ?, end_reason = ? WHERE sid = ?",
        [(now, reason, sid) for sid in sids],
    )
    db.executemany(
        "INSERT INTO revocations (sid, reason, at) VALUES (?, ?, ?)",
        [(sid, reason, now) for sid in sids],
    )
    return sids


def _session(*row: object) -> SessionRow:
    """A row in the order of _COLUMNS."""
    values = list(row)
    values[5] = tuple(json.loads(str(values[5])))
    values[14] = SessionKind(values[14])
    return SessionRow(*values)  # type: ignore[arg-type]  # the schema is STRICT
