"""Service tokens: by which programs prove that they act for a configured service account.

``heim_st_<id>_<secret>``: the prefix is for people and for scanners that look for leaked secrets,
the id is that of a session of kind `service`, and of the secret only SHA-256 is kept, with the
session. A fast hash is enough, because the secret is 256 random bits and not a password.

A program's file has ``@`` and domains behind it (`bound`): `heim-tunnel` sends the token to them
and nowhere else. That part is never sent, and a token that comes with it is none.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

from heim_config.secrets import Secret
from heim_proxy.identity.resident import Session
from heim_proxy.identity.session_cookie import new_sid
from heim_proxy.store.base import SessionKind, SessionRow

__all__ = ["ISSUER", "PREFIX", "Presented", "bound", "issue", "parse", "proves"]

PREFIX: Final = "heim_st_"

ISSUER: Final = "heim"
"""The issuer of service accounts: configuration, not a provider (`access.subject`)."""

_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(r"heim_st_([A-Za-z0-9_-]{24})_([A-Za-z0-9_-]{43})")


class Presented(NamedTuple):
    """The parts of a token that somebody presented."""

    sid: str
    secret: Secret


def issue(account: str, *, now: float, expires: float) -> tuple[SessionRow, Secret]:
    """A new token of a service account, and the row that lets it be used; nothing is stored.

    Args:
        account: The account's configured name.
        now: Seconds since the epoch.
        expires: When it ends, in seconds since the epoch; infinite for never.
    """
    sid, secret = new_sid(), secrets.token_urlsafe(_SECRET_BYTES)
    row = SessionRow(
        sid=sid,
        issuer=ISSUER,
        subject=account,
        email=None,
        domain=None,
        groups=(),
        provider=ISSUER,
        auth_time=now,
        created=now,
        expires=expires,
        last_seen=now,
        kind=SessionKind.SERVICE,
        secret_hash=_hash(secret),
    )
    return row, Secret(f"{PREFIX}{sid}_{secret}")


def bound(token: Secret, domains: Sequence[str]) -> Secret:
    """A token as it stands in a program's file, with the domains that it may be sent to."""
    return Secret(f"{token.reveal()}@{','.join(domains)}")


def parse(token: str) -> Presented | None:
    """The parts of a service token; None for anything that is not of its exact form."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else Presented(found[1], Secret(found[2]))


def proves(presented: Presented, session: Session) -> bool:
    """Whether a token is the one that `session` was made for, in constant time."""
    if session.kind is not SessionKind.SERVICE or not session.secret_hash:
        return False
    return hmac.compare_digest(_hash(presented.secret.reveal()), session.secret_hash)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
