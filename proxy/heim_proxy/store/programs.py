"""What logins of programs keep in SQLite: refresh tokens and devices that wait, as statements.

Each function runs inside a transaction of its caller, in the store's thread.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from heim_proxy.store.base import DeviceRow, RefreshRow

__all__ = [
    "add_device",
    "add_refresh",
    "decide_device",
    "find_device",
    "get_device",
    "get_refresh",
    "purge",
    "rotate_refresh",
    "take_device",
]

_REFRESH: Final = "sid, family, current, rotated, previous, salt"
_DEVICE: Final = (
    "code, user_code, label, client, client_key, network, created, expires, decided, sid, agent, "
    "key, version"
)

# S608 below: what is inserted into statements are the two constants above.


def add_refresh(db: sqlite3.Connection, row: RefreshRow) -> None:
    """Insert the refresh token of a new login."""
    db.execute(
        f"INSERT INTO refresh_tokens ({_REFRESH}) VALUES (?, ?, ?, ?, ?, ?)",  # noqa: S608
        (row.sid, row.family, row.current, row.rotated, row.previous, row.salt),
    )


def get_refresh(db: sqlite3.Connection, sid: str) -> RefreshRow | None:
    """The refresh token of a login."""
    query = f"SELECT {_REFRESH} FROM refresh_tokens WHERE sid = ?"  # noqa: S608
    row = db.execute(query, (sid,)).fetchone()
    return None if row is None else RefreshRow(*row)


def rotate_refresh(
    db: sqlite3.Connection, sid: str, *, current: bytes, successor: bytes, salt: bytes, now: float
) -> bool:
    """Replace a refresh token, if it is still `current`."""
    update = (
        "UPDATE refresh_tokens SET previous = current, current = ?, salt = ?, rotated = ? "
        "WHERE sid = ? AND current = ?"
    )
    return db.execute(update, (successor, salt, now, sid, current)).rowcount == 1


def add_device(
    db: sqlite3.Connection, row: DeviceRow, *, limit: int, limit_per_client: int
) -> bool:
    """Note a device that waits, unless too many do and no other network has more of them."""
    db.execute("DELETE FROM devices WHERE expires <= ?", (row.created,))
    of_client = "SELECT count(*) FROM devices WHERE client_key = ?"
    if db.execute(of_client, (row.client_key,)).fetchone()[0] >= limit_per_client:
        return False
    waiting = db.execute("SELECT count(*) FROM devices").fetchone()[0]
    if waiting >= limit and not _make_room(db, row.network):
        return False
    db.execute(
        f"INSERT INTO devices ({_DEVICE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        (row.code, row.user_code, row.label, row.client, row.client_key, row.network, row.created,
         row.expires, row.decided, row.sid, row.agent, row.key, row.version),
    )  # fmt: skip
    return True


def _make_room(db: sqlite3.Connection, network: str) -> bool:
    """Take the oldest device from the network that has most, for one of `network` if it has less.

    False when that would not make it fairer: the most are not two more than the newcomer's.
    """
    most = "SELECT network, count(*) AS n FROM devices GROUP BY network ORDER BY n DESC LIMIT 1"
    largest, held = db.execute(most).fetchone()
    own = "SELECT count(*) FROM devices WHERE network = ?"
    if held < db.execute(own, (network,)).fetchone()[0] + 2:
        return False
    oldest = "SELECT code FROM devices WHERE network = ? ORDER BY decided, created LIMIT 1"
    db.execute(f"DELETE FROM devices WHERE code = ({oldest})", (largest,))  # noqa: S608
    return True


def get_device(db: sqlite3.Connection, code: bytes) -> DeviceRow | None:
    """The device that has this code."""
    query = f"SELECT {_DEVICE} FROM devices WHERE code = ?"  # noqa: S608
    return _device(db.execute(query, (code,)).fetchone())


def find_device(db: sqlite3.Connection, user_code: bytes) -> DeviceRow | None:
    """The device whose person types this code."""
    query = f"SELECT {_DEVICE} FROM devices WHERE user_code = ?"  # noqa: S608
    return _device(db.execute(query, (user_code,)).fetchone())


def decide_device(db: sqlite3.Connection, user_code: bytes, *, sid: str, now: float) -> bool:
    """Approve or deny a device that waits at `now`."""
    waits = "user_code = ? AND NOT decided AND expires > ?"
    update = f"UPDATE devices SET decided = 1, sid = ? WHERE {waits}"  # noqa: S608
    return db.execute(update, (sid, user_code, now)).rowcount == 1


def take_device(db: sqlite3.Connection, code: bytes) -> DeviceRow | None:
    """Drop a device that was decided, and return it."""
    row = get_device(db, code)
    if row is None or not row.decided:
        return None
    db.execute("DELETE FROM devices WHERE code = ?", (code,))
    return row


def purge(db: sqlite3.Connection, *, now: float) -> int:
    """Drop devices that expired, and refresh tokens whose session is gone; how many rows."""
    orphans = "DELETE FROM refresh_tokens WHERE sid NOT IN (SELECT sid FROM sessions)"
    return (
        db.execute("DELETE FROM devices WHERE expires < ?", (now,)).rowcount
        + db.execute(orphans).rowcount
    )


def _device(row: tuple[object, ...] | None) -> DeviceRow | None:
    if row is None:
        return None
    values = list(row)
    values[8] = bool(values[8])
    return DeviceRow(*values)  # type: ignore[arg-type]  # the schema is STRICT
