"""What agents keep in SQLite: join tokens and enrolments, as statements.

Each function runs in the store's thread; those that write, inside a transaction of their caller.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from typing import Final

from heim_proxy.store import sessions
from heim_proxy.store.base import (
    AGENT_ISSUER,
    EnrolFailure,
    Enrolment,
    JoinTokenRow,
    SessionRow,
)

__all__ = [
    "add_join_token",
    "drop_join_token",
    "enrol",
    "get_join_token",
    "list_join_tokens",
    "of",
    "purge",
]

REPLACED: Final = "replaced"
"""Why an enrolment ended that another one took the name of, for lists and logs."""

_TOKEN: Final = "id, name, secret_hash, created, expires, replace_others, used, sid"  # noqa: S105
_LIVE: Final = "issuer = :issuer AND subject = :name AND kind = 'agent'"

# S608 below: what is inserted into statements are the two constants above.


def add_join_token(db: sqlite3.Connection, row: JoinTokenRow) -> None:
    """Note a token that was made; sqlite3.IntegrityError when its id is in use."""
    db.execute(
        f"INSERT INTO join_tokens ({_TOKEN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (row.id, row.name, row.secret_hash, row.created, row.expires, row.replace, row.used,
         row.sid),
    )  # fmt: skip


def get_join_token(db: sqlite3.Connection, token_id: str) -> JoinTokenRow | None:
    """The token of that id, used or not."""
    query = f"SELECT {_TOKEN} FROM join_tokens WHERE id = ?"  # noqa: S608
    row = db.execute(query, (token_id,)).fetchone()
    return None if row is None else _token(*row)


def list_join_tokens(db: sqlite3.Connection) -> list[JoinTokenRow]:
    """Every token, newest first."""
    query = f"SELECT {_TOKEN} FROM join_tokens ORDER BY created DESC, id"  # noqa: S608
    return [_token(*row) for row in db.execute(query)]


def drop_join_token(db: sqlite3.Connection, token_id: str) -> bool:
    """Delete a token that was not used."""
    delete = "DELETE FROM join_tokens WHERE id = ? AND used IS NULL"
    return db.execute(delete, (token_id,)).rowcount == 1


def enrol(
    db: sqlite3.Connection, row: SessionRow, *, group: bool, replace: bool, token: str
) -> Enrolment | EnrolFailure:
    """Make `row` the enrolment of its subject and burn `token` for it, unless it is empty."""
    live = of(db, row.subject)
    same = next((one for one in live if one.secret_hash == row.secret_hash), None)
    if live and same is None and not (group or replace):
        return EnrolFailure.NAME_TAKEN
    holds = row if same is None else dataclasses.replace(same, label=row.label)
    if token and not _use(db, token, holds, now=row.created):
        return EnrolFailure.TOKEN_OVER
    if same is None:
        ended = _end_others(db, row, now=row.created) if replace and not group else ()
        sessions.insert(db, row)
        return Enrolment(row, ended)
    db.execute("UPDATE sessions SET label = ? WHERE sid = ?", (holds.label, holds.sid))
    # It was a group, perhaps, and has other machines still.
    return Enrolment(
        holds, _end_others(db, holds, now=row.created) if replace and not group else ()
    )


def of(db: sqlite3.Connection, name: str) -> Sequence[SessionRow]:
    """The enrolments of an agent that have not ended, newest first."""
    where = f"WHERE {_LIVE} AND ended IS NULL ORDER BY created DESC, sid"
    return sessions.select(db, where, _values(name))


def of_key(db: sqlite3.Connection, name: str, key: bytes) -> Sequence[SessionRow]:
    """Those of one key: a group of ten thousand machines is not read for each that connects."""
    # + keeps the planner from the index that has every row of a name together.
    where = (
        "WHERE kind = 'agent' AND ended IS NULL AND secret_hash = :key "
        "AND +issuer = :issuer AND +subject = :name"
    )
    return sessions.select(db, where, {**_values(name), "key": key})


def purge(db: sqlite3.Connection, *, before: float) -> int:
    """Drop join tokens that expired before that time; how many."""
    return db.execute("DELETE FROM join_tokens WHERE expires < ?", (before,)).rowcount


def _use(db: sqlite3.Connection, token: str, row: SessionRow, *, now: float) -> bool:
    update = (
        "UPDATE join_tokens SET used = ?, sid = ? "
        "WHERE id = ? AND name = ? AND used IS NULL AND expires > ?"
    )
    return db.execute(update, (now, row.sid, token, row.subject, now)).rowcount == 1


def _end_others(db: sqlite3.Connection, row: SessionRow, *, now: float) -> tuple[str, ...]:
    values = {**_values(row.subject), "sid": row.sid}
    return sessions.end(db, f"{_LIVE} AND sid != :sid", values, reason=REPLACED, now=now)


def _values(name: str) -> dict[str, str]:
    return {"issuer": AGENT_ISSUER, "name": name}


def _token(*row: object) -> JoinTokenRow:
    """A row in the order of _TOKEN."""
    values = list(row)
    values[5] = bool(values[5])
    return JoinTokenRow(*values)  # type: ignore[arg-type]  # the schema is STRICT
