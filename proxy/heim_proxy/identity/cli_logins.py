"""A command line's login: how it begins from a person's consent, goes on, and ends.

It is a session of its own, made from the browser's: same person, same proof, another id. Signing
out in the browser does not end it; revoking the person does, and they can end it themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from heim_config.secrets import Secret
from heim_proxy.access.subject import Subject
from heim_proxy.identity.access_tokens import AccessToken, AccessTokens
from heim_proxy.identity.authorization_codes import Consent
from heim_proxy.identity.feed import in_time
from heim_proxy.identity.refresh_tokens import (
    RefreshOutcome,
    RefreshTokens,
    begin,
    parse,
)
from heim_proxy.identity.session import Session, Sessions
from heim_proxy.live import EndReason
from heim_proxy.store.base import SessionKind, SessionRow, Store

__all__ = ["MAX_LISTED", "CliLogin", "CliLogins", "Refused"]

MAX_LISTED: Final = 100
"""Logins of one person that are listed, or ended in one go. Nobody has so many machines."""


@dataclass(frozen=True, slots=True)
class CliLogin:
    """A login with the tokens that were just issued for it."""

    session: Session
    access: AccessToken
    refresh: Secret


@dataclass(frozen=True, slots=True)
class Refused:
    """A refresh that was refused. `reused` when it was a copy, and the login was ended for it."""

    session: Session | None = None
    reused: bool = False


class CliLogins:
    """Begins, refreshes and ends CLI logins. One per process."""

    __slots__ = ("_access", "_refresh", "_sessions", "_store")

    def __init__(self, sessions: Sessions, store: Store, access: AccessTokens) -> None:
        self._sessions: Final = sessions
        self._access: Final = access
        self._refresh: Final = RefreshTokens(store)
        self._store: Final = store

    async def begin(self, consent: Consent, now: float) -> CliLogin | None:
        """Start a login; None when the browser session in which somebody consented is over.

        Raises:
            StoreUnavailable: when it cannot be stored; then there is no login.
        """
        person = await self._sessions.peek(consent.sid, now)
        if person is None or person.kind is not SessionKind.BROWSER:
            return None
        row, token = begin(now)
        session = await self._sessions.create_cli(person, label=consent.label, refresh=row, now=now)
        # Another process may have revoked the person, which we hear of half a second later. A
        # revocation that comes behind our row ends it; for one before it we look again.
        consented = await in_time(self._store.get_session(consent.sid))
        if consented is None or consented.ended is not None:
            await self._sessions.end(session.sid, EndReason.REVOKED, now)
            return None
        return CliLogin(session, self._access.issue(session, now), token)

    async def refresh(self, token: str, now: float) -> CliLogin | Refused:
        """Go on with a login, for a refresh token; notes its session as used.

        Raises:
            StoreUnavailable: when the store does not answer; the token may be presented again.
        """
        presented = parse(token)
        if presented is None or not await self._refresh.authentic(presented):
            return Refused()
        session = await self._sessions.get(presented.sid, now)
        if session is None:
            return Refused()
        outcome = await self._refresh.rotate(presented, now)
        if outcome is RefreshOutcome.INVALID:
            return Refused()
        if outcome is RefreshOutcome.REUSED:
            await self._sessions.end(session.sid, EndReason.REVOKED, now)
            return Refused(session, reused=True)
        return CliLogin(session, self._access.issue(session, now), outcome)

    async def end(self, token: str, now: float) -> Session | None:
        """End the login of a refresh token, the newest or an older one; None when there is none.

        Raises:
            StoreUnavailable: it ended here, but may come back with a restart.
        """
        presented = parse(token)
        if presented is None or not await self._refresh.authentic(presented):
            return None
        session = await self._sessions.peek(presented.sid, now)
        if session is None:
            return None
        await self._sessions.end(session.sid, EndReason.LOGOUT, now)
        return session

    async def of(self, person: Subject, now: float) -> tuple[Sequence[Session], bool]:
        """The logins of one person, those used last first, and whether there are still more.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        rows = await self._rows(person, now, limit=MAX_LISTED + 1)
        found = (self._sessions.living(row, now) for row in rows[:MAX_LISTED])
        logins = [session for session in found if session is not None]
        # Memory knows later uses than the rows do.
        logins.sort(key=lambda session: session.last_seen, reverse=True)
        return logins, len(rows) > MAX_LISTED

    async def end_one(self, sid: str, person: Subject, now: float) -> Session | None:
        """End a login if it is that person's; None when there is none, or it is somebody else's.

        Raises:
            StoreUnavailable: it ended here, but may come back with a restart.
        """
        session = await self._sessions.peek(sid, now)
        if session is None or session.kind is not SessionKind.CLI:
            return None
        if not _same_person(session.subject, person):
            return None
        return session if await self._sessions.end(sid, EndReason.LOGOUT, now) else None

    async def end_all(self, person: Subject, now: float) -> AsyncIterator[Session]:
        """End every login of one person, also those past `MAX_LISTED`; gives each that ended.

        Raises:
            StoreUnavailable: some have ended, others not yet; it may be called again.
        """
        while rows := await self._rows(person, now, limit=MAX_LISTED):
            for row in rows:
                session = self._sessions.living(row, now)
                ended = await self._sessions.end(row.sid, EndReason.LOGOUT, now)
                if ended and session is not None:
                    yield session

    async def _rows(self, person: Subject, now: float, *, limit: int) -> Sequence[SessionRow]:
        return await in_time(
            self._store.list_cli_logins(
                issuer=person.issuer, subject=person.subject, now=now, limit=limit
            )
        )


def _same_person(one: Subject, other: Subject) -> bool:
    """By issuer and subject: an e-mail address or a provider's name may pass on to another."""
    return (one.issuer, one.subject) == (other.issuer, other.subject)
