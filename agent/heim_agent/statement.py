"""Verify the proxy's statement: that it is the proxy that this agent joined.

TLS proves who has the name, as far as the machine's authorities go: a company's TLS inspection and
whoever got a certificate for the name pass. The statement is signed by the agents' authority, whose
key was pinned at the join, over a nonce of ours (`heim_wire.agents`). It also says which keys sign
assertions from now on, and what time it is.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from heim_wire.agents import STATEMENT_TYPE
from heim_wire.messages import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final

    from heim_agent.identity import Jwk

__all__ = ["Statement", "StatementRefused", "verify"]

MAX_LIFE_S: Final = 300
"""The proxy gives 60; the claim is checked for sense only, as freshness comes from the nonce."""

RSA_BITS: Final = 2048

_CLAIMS: Final = ("iss", "aud", "nonce", "iat", "exp", "keys", "roots")


class StatementRefused(Exception):  # noqa: N818 - the name says what we did
    """It is not the statement of the proxy that we joined; the text says why, in few words."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What the proxy stated.

    Attributes:
        issued_at: The proxy's time then, seconds since the epoch.
        roots: Keys of the agents' authority: what the next statement may be signed by.
        keys: Keys that sign assertions.
    """

    issued_at: float
    roots: tuple[Jwk, ...]
    keys: tuple[Jwk, ...]


def verify(
    token: str, *, roots: Sequence[Jwk], issuer: str, audience: str, nonce: str
) -> Statement:
    """Verify and read a statement. No clock is needed: `nonce` is ours and new.

    Args:
        token: As it came in READY.
        roots: Pinned keys, one of which must have signed it.
        issuer: The login URL that this agent joined.
        audience: Thumbprint of this agent's key.
        nonce: Of this lane's HELLO.

    Raises:
        StatementRefused: It is none, or somebody else's.
    """
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as e:
        raise StatementRefused("its statement is no signed statement") from e
    if header.get("typ") != STATEMENT_TYPE:
        raise StatementRefused("its statement is something else that was signed")
    kid = header.get("kid")
    root = next((root for root in roots if root.get("kid") == kid), None) if kid else None
    if root is None:
        raise StatementRefused("its statement is signed by an authority that is not pinned here")
    claims = _claims(token, root, issuer, audience)
    said = claims["nonce"]
    if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
        raise StatementRefused("its statement is an old one, or made for another connection")
    issued_at, ends = claims["iat"], claims["exp"]
    if not (_is_number(issued_at) and _is_number(ends) and 0 < ends - issued_at <= MAX_LIFE_S):
        raise StatementRefused("its statement has no sensible times")
    fresh = _keys(claims["roots"], "roots")
    if all(entry.get("kid") != kid for entry in fresh):
        # It would be the last one that we believe.
        raise StatementRefused("its statement would unpin the authority that signed it")
    return Statement(float(issued_at), fresh, _keys(claims["keys"], "keys"))


def _claims(token: str, root: Jwk, issuer: str, audience: str) -> dict[str, Any]:
    try:
        algorithm, key = _key(root)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience,
            issuer=issuer,
            options={
                "require": list(_CLAIMS),
                # By which clock? Ours may be off by years.
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "strict_aud": True,
            },
        )
    except jwt.InvalidSignatureError as e:
        raise StatementRefused("the signature of its statement is wrong") from e
    except jwt.InvalidAudienceError as e:
        raise StatementRefused("its statement is for another agent") from e
    except jwt.InvalidIssuerError as e:
        raise StatementRefused("its statement is by another proxy") from e
    except (jwt.PyJWTError, ValueError) as e:
        raise StatementRefused(f"its statement is broken ({printable(str(e), 100)})") from e
    return claims


def _key(jwk: Mapping[str, Any]) -> tuple[str, Any]:
    """The algorithm and public key of a JWK.

    Raises:
        ValueError, jwt.PyJWTError: It is not a public key of a kind that signs here.
    """
    if "d" in jwk or "k" in jwk:
        raise ValueError("a secret key among public ones")
    match jwk.get("kty"), jwk.get("crv"):
        case "EC", "P-256":
            algorithm = "ES256"
        case "EC", "P-384":
            algorithm = "ES384"
        case "RSA", None:
            algorithm = "RS256"
        case kind, curve:
            raise ValueError(f"a key of kind {kind!s} {curve or ''}".rstrip())
    key = jwt.PyJWK(dict(jwk), algorithm).key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < RSA_BITS:
            raise ValueError(f"an RSA key of {key.key_size} bits")
    elif not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("not a public key")  # noqa: TRY004 - of somebody's text
    return algorithm, key


def _keys(found: object, what: str) -> tuple[Jwk, ...]:
    """The JWKs of a claim, each a public key with a `kid`."""
    if not isinstance(found, list):
        raise StatementRefused(f"the {what} of its statement are no keys")
    keys: list[Jwk] = []
    for entry in found:
        try:
            if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
                raise ValueError("a key without a kid")  # noqa: TRY004 - of somebody's text
            _key(entry)
        except (ValueError, jwt.PyJWTError) as e:
            raise StatementRefused(
                f"the {what} of its statement are no keys ({printable(str(e), 100)})"
            ) from e
        keys.append({str(name): str(value) for name, value in entry.items()})
    return tuple(keys)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
