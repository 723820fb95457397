"""Whom a bearer token speaks for: the one door for programs, whatever kind of token they have.

Two kinds come in here: access tokens of a CLI login (`access_tokens`) and service tokens
(`service_tokens`). Both name a session, and the session decides: when it was revoked, expired or
idle for too long, its tokens are worthless at once, whatever they say themselves.
"""

from __future__ import annotations

import base64
import enum
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from heim_proxy.identity.access_tokens import ACCESS_TYP, AccessTokenInvalid, AccessTokens
from heim_proxy.identity.refresh_tokens import PREFIX as REFRESH_PREFIX
from heim_proxy.identity.resident import Session
from heim_proxy.identity.service_tokens import PREFIX as SERVICE_PREFIX
from heim_proxy.identity.service_tokens import parse, proves
from heim_proxy.identity.session import Sessions
from heim_proxy.store.base import SessionKind

__all__ = [
    "MAX_BEARER_CHARACTERS",
    "Bearer",
    "BearerProblem",
    "BearerReason",
    "Bearers",
    "is_ours",
]

MAX_BEARER_CHARACTERS: Final = 4096
"""An access token has some 600; callers may refuse longer ones before they come here."""


# No user name, password or token of an application contains these by chance.
_PREFIXES: Final = re.compile(f"{SERVICE_PREFIX}|{REFRESH_PREFIX}".encode("ascii")).search
_ACCESS_TYP: Final = f'"{ACCESS_TYP}"'.encode("ascii")
# The header of a JWT says algorithm, type and key: some 90 characters for ours.
_MAX_JWT_HEADER: Final = 512
# User name and password in base64: enough for an access token as the password.
_MAX_BASIC: Final = 2048


class BearerReason(enum.Enum):
    """Why a bearer token is refused; the value is what logs show."""

    INVALID = "invalid_token"
    """Not a token of ours, or not one for this place."""

    EXPIRED = "token_expired"
    """An access token whose time is over; the refresh token gives another one."""

    ENDED = "session_ended"
    """The login or service token was revoked, expired or idle for too long."""

    NO_ACCOUNT = "unknown_service_account"
    """A service token whose account is no longer in the configuration."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that is good.

    `expires` is when this token's word ends, in seconds since the epoch: the access token's own
    end, or the session's for a service token (infinite when that never expires). What was decided
    by it must end then unless a newer token arrives.
    """

    session: Session
    expires: float


@dataclass(frozen=True, slots=True)
class BearerProblem:
    """A token that is refused. `detail` is one sentence for the person at the other end."""

    detail: str
    reason: BearerReason


class Bearers:
    """Judges bearer tokens. One per process."""

    __slots__ = ("_access", "_accounts", "_sessions")

    def __init__(
        self,
        sessions: Sessions,
        access: AccessTokens,
        *,
        accounts: Callable[[], Collection[str]],
    ) -> None:
        """Nothing is read yet.

        Args:
            sessions: What tokens name.
            access: Verifies access tokens.
            accounts: Names of the service accounts that configuration has now.
        """
        self._sessions: Final = sessions
        self._access: Final = access
        self._accounts: Final = accounts

    async def authenticate(self, token: str, now: float) -> Bearer | BearerProblem:
        """Judge a token as it came in ``Authorization: Bearer``; notes its session as used.

        Args:
            token: As received, without the scheme.
            now: Seconds since the epoch.

        Raises:
            StoreUnavailable: Only the store could tell whether its session is alive.
        """
        if len(token) > MAX_BEARER_CHARACTERS:
            return BearerProblem("The token is too long to be one of ours.", BearerReason.INVALID)
        if token.startswith(SERVICE_PREFIX):
            return await self._service(token, now)
        return await self._access_token(token, now)

    async def _access_token(self, token: str, now: float) -> Bearer | BearerProblem:
        try:
            claims = self._access.verify(token, now=now)
        except AccessTokenInvalid as error:
            if error.expired:
                return BearerProblem("The access token has expired.", BearerReason.EXPIRED)
            return BearerProblem("The token is not one of this proxy's.", BearerReason.INVALID)
        session = await self._sessions.get(claims.sid, now)
        if session is None:
            return BearerProblem("The login is over; log in again.", BearerReason.ENDED)
        if session.kind is not SessionKind.CLI or session.subject.subject != claims.subject:
            return BearerProblem("The token is not one of this proxy's.", BearerReason.INVALID)
        return Bearer(session, min(claims.expires, session.expires))

    async def _service(self, token: str, now: float) -> Bearer | BearerProblem:
        presented = parse(token)
        if presented is None:
            return BearerProblem("The service token is damaged.", BearerReason.INVALID)
        # Not noted as used before the secret was compared: the id alone proves nothing.
        session = await self._sessions.peek(presented.sid, now)
        if session is None or not proves(presented, session):
            detail = "The service token is unknown, revoked or expired."
            return BearerProblem(detail, BearerReason.ENDED)
        if session.subject.subject not in self._accounts():
            detail = f"The service account {session.subject.subject} is no longer configured."
            return BearerProblem(detail, BearerReason.NO_ACCOUNT)
        session.last_seen = max(session.last_seen, now)
        return Bearer(session, session.expires)


def is_ours(authorization: bytes) -> bool:
    """Whether the value of an Authorization header holds a credential that only Heim may see.

    Whoever has a service, refresh or access token can act with it, and people try them where they
    mean nothing, also as the password of git and curl: an application must not be given one (B20).
    By its looks alone, so that one that was revoked, or is another proxy's, does not pass either.
    Never raises.
    """
    words = authorization.split(None, 1)
    scheme = words[0].lower() if words else b""
    if scheme == b"heim":
        return True
    if scheme == b"basic" and len(authorization) <= _MAX_BASIC:
        name, _, password = _decoded(words[-1]).partition(b":")
        return _is_token(name) or _is_token(password)
    # After any scheme, and after none: `token heim_st_...` is how other programs are told.
    return bool(words) and _is_token(words[-1])


def _is_token(text: bytes) -> bool:
    if _PREFIXES(text) is not None:
        return True
    header, dot, _ = text.partition(b".")
    return bool(dot) and len(header) <= _MAX_JWT_HEADER and _ACCESS_TYP in _decoded(header)


def _decoded(text: bytes) -> bytes:
    """What base64 of either alphabet says, padded or not; nothing when it is none."""
    text = text.rstrip(b"=")
    try:
        return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        return b""
