"""The RSA key with which the demo's provider signs id tokens; made at start, never stored."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

__all__ = ["IdTokenKey"]


class IdTokenKey:
    """One RS256 key: the algorithm that every OpenID Connect client must know (Core 1.0, 15.1)."""

    def __init__(self) -> None:
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid = secrets.token_hex(8)

    def jwks(self) -> dict[str, object]:
        """The public half as a JWK set (RFC 7517, 5)."""
        public = json.loads(RSAAlgorithm.to_jwk(self._private.public_key()))
        public.pop("key_ops", None)
        return {"keys": [{**public, "kid": self.kid, "use": "sig", "alg": "RS256"}]}

    def sign(self, claims: Mapping[str, object]) -> str:
        """A signed id token of those claims."""
        return jwt.encode(dict(claims), self._private, algorithm="RS256", headers={"kid": self.kid})

    def audience_of(self, id_token: str) -> str | None:
        """Whom we once issued that token to, expired or not; None when it is not ours.

        RP-initiated logout 1.0, 2: a hint stays good after it expires.
        """
        try:
            claims = jwt.decode(
                id_token,
                self._private.public_key(),
                algorithms=["RS256"],
                options={"verify_exp": False, "verify_aud": False, "require": ["aud"]},
            )
        except jwt.InvalidTokenError:
            return None
        audience = claims["aud"]
        return audience if isinstance(audience, str) else None
