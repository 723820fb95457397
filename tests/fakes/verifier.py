"""Checks assertions against a published key set, as an upstream should."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import jwt

from heim_proxy.identity.assertion import ASSERTION_TYP, LIFETIME_S
from heim_proxy.identity.signed import authentic_claims, time_claim

__all__ = ["AssertionInvalid", "Verifier"]

CLOCK_SKEW_S: Final = 60
MAX_TOKEN_CHARACTERS: Final = 16 * 1024


class AssertionInvalid(Exception):  # noqa: N818 - what it says about the token
    """A token is not an assertion that should be believed; the message says why, without it."""


class Verifier:
    """Checks assertions against a published key set, as an upstream should."""

    __slots__ = ("_issuer", "_keys")

    def __init__(self, jwks: Mapping[str, Collection[Mapping[str, str]]], issuer: str) -> None:
        """Take a key set as published at /.heim/jwks.json, and the login host's origin."""
        self._issuer: Final = issuer
        self._keys: Final = {jwk["kid"]: jwt.PyJWK(dict(jwk)).key for jwk in jwks["keys"]}

    def verify(self, token: str, *, audience: str, now: float) -> dict[str, object]:
        """The claims of an assertion made for `audience` (a host) and good at `now`.

        Raises:
            AssertionInvalid: when anything is wrong with it.
        """
        claims = authentic_claims(
            token,
            typ=ASSERTION_TYP,
            what="an assertion",
            longest=MAX_TOKEN_CHARACTERS,
            find=self._keys.get,
            invalid=AssertionInvalid,
        )
        if claims.get("iss") != self._issuer:
            raise AssertionInvalid("another issuer")
        if claims.get("aud") != audience:
            raise AssertionInvalid("made for another audience")
        if not isinstance(claims.get("sub"), str) or not claims["sub"]:
            raise AssertionInvalid("no subject")
        issued, begins, expires = (
            time_claim(claims, name, AssertionInvalid) for name in ("iat", "nbf", "exp")
        )
        if expires - issued > LIFETIME_S:
            raise AssertionInvalid("lives too long")
        if now >= expires + CLOCK_SKEW_S:
            raise AssertionInvalid("expired")
        if max(issued, begins) > now + CLOCK_SKEW_S:
            raise AssertionInvalid("not valid yet")
        return claims
