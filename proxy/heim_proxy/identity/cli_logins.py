"""A command line's login: how it begins from a person's consent, goes on, and ends.

It is a session of its own, made from the browser's: same person, same proof, another id. Signing
out in the browser does not end it; revoking the person does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heim_config.secrets import Secret
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
from heim_proxy.store.base import SessionKind, Store

__all__ = ["CliLogin", "CliLogins", "Refused"]


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
