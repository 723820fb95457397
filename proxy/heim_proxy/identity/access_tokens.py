"""Access tokens: the short-lived statement by which a CLI login proves itself to this proxy.

An ES256 JWT with `typ` "heim-cli+jwt", issued by the login host for the login host. It names a
session and is worth nothing without it; `bearer` asks for that. Neither `typ` nor audience are
those of the assertions that upstreams receive, so neither token passes for the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from heim_config.secrets import Secret
from heim_proxy.identity.resident import Session
from heim_proxy.identity.signed import authentic_claims, time_claim
from heim_proxy.identity.signing import SigningKeys

__all__ = [
    "ACCESS_TYP",
    "LIFETIME_S",
    "AccessClaims",
    "AccessToken",
    "AccessTokenInvalid",
    "AccessTokens",
]

ACCESS_TYP: Final = "heim-cli+jwt"

LIFETIME_S: Final = 900
"""Many connections for one token, and a stolen one is soon worth nothing."""

CLOCK_SKEW_S: Final = 60
"""How far ahead another replica's clock may be. Its end gets no such grace: it is our own word."""

MAX_TOKEN_CHARACTERS: Final = 4096

_MAX_SID_CHARACTERS: Final = 64
_REQUIRED: Final = ("iss", "aud", "sub", "sid", "iat", "nbf", "exp")


class AccessTokenInvalid(Exception):  # noqa: N818 - what it says about the token
    """A token that proves nothing; the message says why, without it.

    `expired` when that is all that is wrong with it.
    """

    def __init__(self, message: str, *, expired: bool = False) -> None:
        super().__init__(message)
        self.expired: Final = expired


class AccessToken(NamedTuple):
    """A token that was just issued, and when it ends in seconds since the epoch."""

    text: Secret
    expires: float


class AccessClaims(NamedTuple):
    """What a verified token says: whose login it belongs to, and until when."""

    sid: str
    subject: str
    expires: float


class AccessTokens:
    """Issues and verifies access tokens."""

    __slots__ = ("_keys", "_login_url")

    def __init__(self, keys: Callable[[], SigningKeys], login_url: Callable[[], str]) -> None:
        """Nothing is signed yet.

        Args:
            keys: The signing keys of the present configuration; the first one signs.
            login_url: The login host's origin, issuer and audience.
        """
        self._keys: Final = keys
        self._login_url: Final = login_url

    def issue(self, session: Session, now: float) -> AccessToken:
        """A token for a CLI login; it never outlives its session."""
        issued = int(now)
        expires = int(min(issued + LIFETIME_S, session.expires))
        login_url = self._login_url()
        claims = {
            "iss": login_url,
            "aud": login_url,
            "sub": session.subject.subject,
            "sid": session.sid,
            "iat": issued,
            "nbf": issued,
            "exp": expires,
        }
        key = self._keys().first
        headers = {"typ": ACCESS_TYP, "kid": key.kid}
        text = jwt.encode(claims, key.private, algorithm="ES256", headers=headers)
        return AccessToken(Secret(text), expires)

    def verify(self, token: str, *, now: float) -> AccessClaims:
        """What a token says, if it is ours and good at `now`.

        Raises:
            AccessTokenInvalid: when anything is wrong with it.
        """
        claims = authentic_claims(
            token,
            typ=ACCESS_TYP,
            what="an access token",
            longest=MAX_TOKEN_CHARACTERS,
            find=self._public_key,
            require=_REQUIRED,
            invalid=AccessTokenInvalid,
        )
        login_url = self._login_url()
        if claims.get("iss") != login_url:
            raise AccessTokenInvalid("another issuer")
        if claims.get("aud") != login_url:
            raise AccessTokenInvalid("made for another audience")
        sid, subject = _text(claims, "sid"), _text(claims, "sub")
        if len(sid) > _MAX_SID_CHARACTERS:
            raise AccessTokenInvalid("sid is too long")
        issued, begins, expires = (
            time_claim(claims, name, AccessTokenInvalid) for name in ("iat", "nbf", "exp")
        )
        if expires - issued > LIFETIME_S:
            raise AccessTokenInvalid("lives too long")
        if max(issued, begins) > now + CLOCK_SKEW_S:
            raise AccessTokenInvalid("not valid yet")
        if now >= expires:
            raise AccessTokenInvalid("expired", expired=True)
        return AccessClaims(sid, subject, expires)

    def _public_key(self, kid: str) -> EllipticCurvePublicKey | None:
        key = self._keys().find(kid)
        return None if key is None else key.private.public_key()


def _text(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise AccessTokenInvalid(f"{name} is missing")
    return value
