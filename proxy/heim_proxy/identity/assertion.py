"""Assertions: the signed, short-lived statement to an upstream about who is asking.

An ES256 JWT with `typ` "heim-assertion+jwt", `iss` the login host's origin and `aud` the one host
it is for, so that an upstream can neither use it elsewhere nor be fed another one's.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Collection, Mapping
from typing import Final

import jwt

from heim_proxy.identity.dialects import HeaderBlock, Identity, bounded, header_lines
from heim_proxy.identity.resident import Session
from heim_proxy.identity.signing import SigningKeys

__all__ = ["ASSERTION_TYP", "IdentityHeaders"]

ASSERTION_TYP: Final = "heim-assertion+jwt"

LIFETIME_S: Final = 300
"""Long enough to serve many requests, short enough that a leaked one is soon worth nothing."""

RENEW_BEFORE_S: Final = 60
"""An upstream that works on a request for a while, or whose clock is ahead, still finds it good."""

_MAX_BLOCKS: Final = 64
"""Hosts a session has headers ready for; only a wildcard host could make it more."""

_MAX_SUBJECT_CHARACTERS: Final = 1024
"""A `sub` has at most 255 (OIDC Core 1.0, 2); a provider that sends more gets no assertion."""


class IdentityHeaders:
    """Makes the identity headers of requests. One per configuration generation."""

    __slots__ = ("_groups", "_issuer", "_keys")

    def __init__(self, keys: SigningKeys, issuer: str, *, groups: Collection[str]) -> None:
        """Nothing is signed yet.

        Args:
            keys: The first one signs.
            issuer: The login host's origin, such as ``https://auth.example.com:8443``.
            groups: The groups that configuration names; upstreams hear of no others.
        """
        self._keys: Final = keys
        self._issuer: Final = issuer
        self._groups: Final = frozenset(groups)

    def block(
        self,
        session: Session,
        backend: str,
        host: str,
        *,
        dialects: tuple[str, ...],
        roles: tuple[str, ...],
        now: float,
    ) -> bytes:
        """Complete header lines for a request of `session`, each ended by CRLF.

        Made once per session and host, then reused until a minute before the assertion expires or
        anything it was made from changes.

        Args:
            session: Whose request it is.
            backend: Name of the backend it goes to.
            host: The backend's canonical host, the assertion's audience.
            dialects: Names from the configuration, in order.
            roles: The subject's roles for that backend.
            now: Seconds since the epoch.
        """
        made = session.blocks.get(host)
        if (
            made is not None
            and now < made.renew_at
            and made.maker is self
            and made.backend == backend
            and made.roles == roles
            and made.dialects == dialects
        ):
            return made.lines
        return self._make(session, backend, host, dialects=dialects, roles=roles, now=now)

    def _make(
        self,
        session: Session,
        backend: str,
        host: str,
        *,
        dialects: tuple[str, ...],
        roles: tuple[str, ...],
        now: float,
    ) -> bytes:
        subject = session.subject
        groups = bounded(subject.groups & self._groups)
        issued = int(now)
        expires = int(min(issued + LIFETIME_S, session.expires))
        claims = {
            "iss": self._issuer,
            "aud": host,
            "backend": backend,
            "sub": subject.subject,
            "provider": subject.provider,
            "email": subject.email,
            "groups": groups,
            "roles": bounded(roles),
            "auth_time": int(session.auth_time),
            "iat": issued,
            "nbf": issued,
            "exp": expires,
            "jti": secrets.token_urlsafe(16),
            "sid": _public_sid(session.sid),
        }
        if subject.email is None:
            del claims["email"]
        identity = Identity(
            user=subject.name, email=subject.email, groups=groups, assertion=self._sign(claims)
        )
        lines = header_lines(identity, dialects)
        # In a session's last minutes the assertion is shorter: then it is renewed at half its life,
        # and not for every request of the last minute.
        life = expires - now
        renew_at = now + max(life - RENEW_BEFORE_S, life / 2, 1.0)
        if len(session.blocks) >= _MAX_BLOCKS:
            session.blocks.clear()
        session.blocks[host] = HeaderBlock(self, backend, dialects, roles, renew_at, lines)
        return lines

    def _sign(self, claims: Mapping[str, object]) -> str:
        if len(str(claims["sub"])) > _MAX_SUBJECT_CHARACTERS:
            return ""
        key = self._keys.first
        return jwt.encode(
            dict(claims),
            key.private,
            algorithm="ES256",
            headers={"typ": ASSERTION_TYP, "kid": key.kid},
        )


def _public_sid(sid: str) -> str:
    """Names the session to upstreams, without being the id that administrators revoke by."""
    digest = hashlib.sha256(b"heim-assertion-sid\0" + sid.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest[:16]).rstrip(b"=").decode("ascii")
