"""Join tokens: by which a machine becomes an agent once, without anybody at a browser.

``heim_jt_<id>_<secret>``: the prefix is for people and for scanners that look for leaked secrets.
The id is shown in lists; of the secret only SHA-256 is kept. A fast hash is enough, because the
secret is 256 random bits and not a password.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Final, NamedTuple

from heim_config.secrets import Secret
from heim_proxy.store.base import JoinTokenRow

__all__ = ["LIFETIME_S", "MAX_LIFETIME_S", "PREFIX", "Presented", "issue", "parse", "proves"]

PREFIX: Final = "heim_jt_"

LIFETIME_S: Final = 900.0
"""From `agent token create` to `heim-agent join`, with a walk to the machine between them."""

MAX_LIFETIME_S: Final = 7 * 86400.0
"""For images that are made today and start tomorrow. Longer ones are forgotten secrets."""

_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_TOKEN: Final = re.compile(r"heim_jt_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)


class Presented(NamedTuple):
    """The parts of a token that somebody presented."""

    id: str
    secret: Secret


def issue(
    name: str, *, now: float, lifetime_s: float = LIFETIME_S, replace: bool = False
) -> tuple[JoinTokenRow, Secret]:
    """A new token for the agent `name`, and the row that lets it be used; nothing is stored.

    Args:
        name: The agent's configured name.
        now: Seconds since the epoch.
        lifetime_s: How long it is good, at most `MAX_LIFETIME_S`.
        replace: Whether using it ends what is enrolled under the name.
    """
    token_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    row = JoinTokenRow(
        id=token_id,
        name=name,
        secret_hash=_hash(secret),
        created=now,
        expires=now + min(lifetime_s, MAX_LIFETIME_S),
        replace=replace,
    )
    return row, Secret(f"{PREFIX}{token_id}_{secret}")


def parse(token: str) -> Presented | None:
    """The parts of a join token; None for anything that is not of its exact form."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else Presented(found[1], Secret(found[2]))


def proves(presented: Presented, row: JoinTokenRow) -> bool:
    """Whether a token is the one that `row` was made for, in constant time."""
    return hmac.compare_digest(_hash(presented.secret.reveal()), row.secret_hash)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("ascii")).digest()
