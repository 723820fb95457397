"""Refresh tokens: what keeps a CLI login going, a new one with every use.

``heim_rt_<session id>_<family>_<secret>``. The family stays for the login's life, the secret
changes with each refresh, and the store has SHA-256 of both. So a token of the right family with
any secret but the newest is a copy that somebody else has used, or is using: then the login ends,
whoever of the two is asking (RFC 9700, 4.14.2). A token of no known family proves nothing and
changes nothing.

One exception: an answer may get lost on its way. For `GRACE_S` after a refresh, and as long as
nobody used its outcome, the token before is answered again, with the very same successor: it is
derived from that token and a salt in the store, so that neither of the two alone is worth anything.
A thief who is faster than that gets no token of his own, only the one whose next use by either side
gives him away.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final

from heim_config.secrets import Secret
from heim_proxy.identity.feed import in_time
from heim_proxy.identity.session_cookie import new_sid
from heim_proxy.store.base import RefreshRow, Store

__all__ = [
    "GRACE_S",
    "PREFIX",
    "Presented",
    "RefreshOutcome",
    "RefreshTokens",
    "begin",
    "parse",
]

PREFIX: Final = "heim_rt_"

GRACE_S: Final = 30.0
"""A client that got no answer asks again within seconds; a minute later it is somebody else."""

CLOCK_SKEW_S: Final = 5.0
"""How far the clock may have been set back since a refresh for the grace to count."""

_FAMILY_BYTES: Final = 16
_SECRET_BYTES: Final = 32
_SALT_BYTES: Final = 32
_TOKEN: Final = re.compile(
    r"heim_rt_([A-Za-z0-9_-]{24})_([A-Za-z0-9_-]{22})_([A-Za-z0-9_-]{43})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Presented:
    """The parts of a token that somebody presented."""

    sid: str
    family: str
    secret: str

    def __repr__(self) -> str:
        return f"<Presented {self.sid[:6]}… <sealed>>"


class RefreshOutcome(enum.Enum):
    """Why a refresh token is refused."""

    INVALID = "invalid"
    """Not a token of a login we know. Proves nothing, so nothing happens."""

    REUSED = "reused"
    """A copy of a token that was used already: the login must end."""


def begin(now: float) -> tuple[RefreshRow, Secret]:
    """The first refresh token of a login, under a fresh session id; nothing is stored yet."""
    sid = new_sid()
    family = secrets.token_urlsafe(_FAMILY_BYTES)
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    row = RefreshRow(sid, family=_hash(family), current=_hash(secret), rotated=now)
    return row, _token(sid, family, secret)


def parse(token: str) -> Presented | None:
    """The parts of a refresh token; None for anything that is not of its exact form."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else Presented(found[1], found[2], found[3])


class RefreshTokens:
    """Judges and rotates refresh tokens; whether their session is alive is for the caller."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store: Final = store

    async def authentic(self, presented: Presented) -> bool:
        """Whether a token is, or once was, one of its login's.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        return await self._row(presented) is not None

    async def rotate(self, presented: Presented, now: float) -> Secret | RefreshOutcome:
        """The successor of a token, or why there is none.

        Raises:
            StoreUnavailable: when the store does not answer; the token is still good, or will be
                answered again within the grace.
        """
        row = await self._row(presented)
        if row is None:
            return RefreshOutcome.INVALID
        shown = _hash(presented.secret)
        if hmac.compare_digest(shown, row.current):
            salt = secrets.token_bytes(_SALT_BYTES)
            successor = _successor(presented.secret, salt)
            if await in_time(
                self._store.rotate_refresh(
                    row.sid, current=shown, successor=_hash(successor), salt=salt, now=now
                )
            ):
                return _token(row.sid, presented.family, successor)
            # The same token twice at once, from two processes of one person or from a thief: the
            # second is answered like one whose first answer was lost.
            row = await self._row(presented)
            if row is None:
                return RefreshOutcome.INVALID
        in_grace = -CLOCK_SKEW_S <= now - row.rotated < GRACE_S
        if in_grace and hmac.compare_digest(shown, row.previous):
            return _token(row.sid, presented.family, _successor(presented.secret, row.salt))
        return RefreshOutcome.REUSED

    async def _row(self, presented: Presented) -> RefreshRow | None:
        row = await in_time(self._store.get_refresh(presented.sid))
        if row is None or not hmac.compare_digest(_hash(presented.family), row.family):
            return None
        return row


def _successor(secret: str, salt: bytes) -> str:
    mac = hmac.new(secret.encode("ascii"), b"heim refresh successor\0" + salt, hashlib.sha256)
    return base64.urlsafe_b64encode(mac.digest()).rstrip(b"=").decode("ascii")


def _token(sid: str, family: str, secret: str) -> Secret:
    return Secret(f"{PREFIX}{sid}_{family}_{secret}")


def _hash(part: str) -> bytes:
    # A fast hash is enough: the parts are random, not passwords.
    return hashlib.sha256(part.encode("ascii")).digest()
