"""The store: small durable facts behind one protocol, whatever the engine.

Every method may raise `StoreUnavailable` (disk full, database locked or gone); nothing is granted
on that error. Times are seconds since the epoch and are passed in, so that tests own the clock.
One contract suite, `tests/contracts/test_store.py`, runs against every implementation.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "PinResult",
    "Revocation",
    "SessionKind",
    "SessionRow",
    "Store",
    "StoreUnavailable",
]


class StoreUnavailable(Exception):  # noqa: N818 - the name says what the caller must do
    """The store cannot answer now; the message says why and names the database."""


class PinResult(enum.Enum):
    """What `Store.pin` found for an e-mail address."""

    NEW = "new"
    SAME = "same"
    CONFLICT = "conflict"


class SessionKind(enum.Enum):
    """What holds a session, and therefore what proves it."""

    BROWSER = "browser"
    """A person's browser; proven by sealed cookies."""

    CLI = "cli"
    """A person's command line; proven by access tokens, kept up by a refresh token."""

    SERVICE = "service"
    """A program under a service account; proven by a service token."""


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One login. `sealed_tokens` holds refresh and id token, sealed by the key ring.

    `label` is what people call the device of a CLI login. `secret_hash` is SHA-256 of a service
    token's secret, empty for the other kinds. `expires` is infinite for a service token that never
    expires.
    """

    sid: str
    issuer: str
    subject: str
    email: str | None
    domain: str | None
    groups: tuple[str, ...]
    provider: str
    auth_time: float
    created: float
    expires: float
    last_seen: float
    sealed_tokens: bytes = b""
    ended: float | None = None
    end_reason: str = ""
    kind: SessionKind = SessionKind.BROWSER
    label: str = ""
    secret_hash: bytes = b""

    def __repr__(self) -> str:
        return f"<SessionRow {self.sid[:6]}… {self.kind.value} of {self.email or self.subject!r}>"


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the feed: session `sid` ended. `seq` grows without gaps being meaningful."""

    seq: int
    sid: str
    reason: str
    at: float


class Store(Protocol):
    """Durable small facts. Implementations own their thread or connections."""

    async def open(self) -> None:
        """Create or migrate the schema; raise StoreUnavailable when that fails."""

    async def close(self) -> None:
        """Release every resource; idempotent."""

    async def create_session(self, row: SessionRow) -> None:
        """Insert a new session."""

    async def get_session(self, sid: str) -> SessionRow | None:
        """The session, ended or not; None when it never existed or was purged."""

    async def list_sessions(
        self, *, email: str | None = None, include_ended: bool = False
    ) -> Sequence[SessionRow]:
        """Sessions, newest first, of one e-mail if given."""

    async def touch_sessions(self, seen: Mapping[str, float]) -> None:
        """Record last_seen of several sessions at once; never moves a time backwards."""

    async def end_session(self, sid: str, *, reason: str, now: float) -> bool:
        """End one session and add it to the feed; False when it had ended or is unknown."""

    async def end_sessions_of(
        self, *, now: float, reason: str, email: str | None = None, before: float | None = None
    ) -> int:
        """End every live session of an e-mail and/or created before a time; how many ended.

        With neither given, ends all.
        """

    async def revocations(self, after: int) -> Sequence[Revocation]:
        """Feed entries with seq > `after`, oldest first."""

    async def last_revocation(self) -> int:
        """The highest seq so far, 0 when the feed is empty."""

    async def burn(self, jti: str, *, expires: float) -> bool:
        """Mark a one-time id as used; False when it was used before."""

    async def pin(self, email: str, *, issuer: str, subject: str, now: float) -> PinResult:
        """Bind an e-mail to the first (issuer, subject) seen with it."""

    async def unpin(self, email: str) -> bool:
        """Forget the binding; False when there was none."""

    async def list_pins(self) -> Sequence[tuple[str, str, str, float]]:
        """(email, issuer, subject, first seen), sorted by e-mail."""

    async def purge(self, *, now: float, keep_ended: float) -> int:
        """Drop expired burned ids and sessions that ended or expired `keep_ended` seconds ago."""
