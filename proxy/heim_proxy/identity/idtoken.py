"""Whether an ID token proves the login we asked for (OpenID Connect Core 1.0, 3.1.3.7).

Two steps, both pure: `read_header` says which key would have to have signed it, without believing
anything; `verify` checks the signature with that key and then every claim. PyJWT does the
cryptography and is told the algorithm, issuer, audience and required claims explicitly; by itself
it would accept a token without `exp`, one that expires in the year 1e300, and any `typ`. Times are
checked here, because PyJWT reads the machine's clock and tests must own it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import jwt

from heim_proxy.identity.jwks import Key
from heim_proxy.identity.login_errors import LoginRejected
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = [
    "MAX_AGE_S",
    "MAX_TOKEN_BYTES",
    "SKEW_S",
    "Claims",
    "Expected",
    "Header",
    "read_header",
    "verify",
]

STEP: Final = "ID token"
# Real ones are 1-3 KiB; with hundreds of groups, 20 KiB.
MAX_TOKEN_BYTES: Final = 64 * 1024
# How far a provider's clock may be off, in seconds.
SKEW_S: Final = 60.0
# The token comes straight from the token endpoint, so it is seconds old, or somebody kept it.
MAX_AGE_S: Final = 600.0
# Nobody issues ID tokens for longer than this (providers use minutes to a day), in seconds.
MAX_LIFETIME_S: Final = 31 * 86400.0
MAX_SUB_CHARS: Final = 255

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Header:
    """What an unverified token says about its signature."""

    algorithm: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What the token has to match.

    `max_age_s` is what was sent as `max_age`: the person must have proven who they are at most
    that many seconds ago, if the token tells. `access_token` is compared with `at_hash`.
    """

    issuer: str
    client_id: str
    nonce: str
    algorithms: tuple[str, ...]
    access_token: str | None = None
    max_age_s: float | None = None


@dataclass(frozen=True, slots=True)
class Claims:
    """A verified token. `auth_time` is seconds since the epoch; None when it was not told."""

    issuer: str
    subject: str
    auth_time: float | None
    all: Mapping[str, object]


def read_header(token: str, algorithms: tuple[str, ...]) -> Header:
    """Read a token's header without believing it.

    Only `alg` and `kid` are used. Keys inside the header (`jwk`, `jku`, `x5u`, `x5c`) are ignored:
    a token cannot bring its own proof. Encrypted, compressed and nested tokens are refused, and so
    is every critical extension, since we understand none (RFC 7515, 4.1.11).

    Raises:
        LoginRejected: With the first thing that is wrong.
    """
    head, _, _ = _segments(token)
    header = _object(head, "header")
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        # The value is the sender's, so only its fate is told, never its text.
        raise LoginRejected(STEP, f"alg is not one of {', '.join(algorithms)}")
    for name in ("crit", "zip", "enc", "b64", "cty"):
        if name in header:
            raise LoginRejected(STEP, f"the header has {name}")
    # Access tokens (at+jwt) and logout tokens (logout+jwt) are signed with the same keys.
    if typ is not None and not (isinstance(typ, str) and typ.lower() == "jwt"):
        raise LoginRejected(STEP, "typ is not JWT")
    if not (kid is None or isinstance(kid, str)):
        raise LoginRejected(STEP, "kid is not a string")
    return Header(algorithm, kid)


def verify(token: str, key: Key, expected: Expected, *, now: float) -> Claims:
    """Verify signature and claims.

    Args:
        token: The compact serialisation, as the token endpoint gave it.
        key: The key that the header pointed at, from the provider's own key set.
        expected: What this login must match.
        now: Seconds since the epoch.

    Raises:
        LoginRejected: With the first thing that is wrong.
    """
    header = read_header(token, expected.algorithms)
    if not key.fits(header.algorithm):
        raise LoginRejected(STEP, "the key does not fit the algorithm")
    claims = _signed_claims(token, key, header.algorithm, expected)
    _check_parties(claims, expected)
    _check_times(claims, now)
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not _equal(nonce, expected.nonce):
        raise LoginRejected(STEP, "the nonce is not this login's")
    _check_at_hash(claims, header.algorithm, expected.access_token)
    return Claims(
        issuer=expected.issuer,
        subject=_subject(claims),
        auth_time=_auth_time(claims, now, expected.max_age_s),
        all=claims,
    )


def _signed_claims(token: str, key: Key, algorithm: str, expected: Expected) -> dict[str, object]:
    try:
        jwt.decode(
            token,
            key=key.public,
            algorithms=[algorithm],
            audience=expected.client_id,
            issuer=expected.issuer,
            options={
                "require": ["iss", "sub", "aud", "exp", "iat"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise LoginRejected(STEP, f"not valid: {type(error).__name__}") from error
    # Read a second time, strictly: the signature covers the bytes, not one reading of them.
    return _object(_segments(token)[1], "payload")


def _segments(token: str) -> tuple[str, str, str]:
    if len(token) > MAX_TOKEN_BYTES:
        raise LoginRejected(STEP, f"longer than {MAX_TOKEN_BYTES} bytes")
    parts = token.split(".")
    if len(parts) == 5:
        raise LoginRejected(STEP, "encrypted tokens are not accepted")
    if len(parts) != 3 or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise LoginRejected(STEP, "not a signed JWT")
    return parts[0], parts[1], parts[2]


def _object(segment: str, what: str) -> dict[str, object]:
    try:
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        return read_object(raw, max_bytes=MAX_TOKEN_BYTES)
    except StrictJsonError as error:
        raise LoginRejected(STEP, f"the {what} {error}") from error
    except ValueError as error:
        raise LoginRejected(STEP, f"the {what} is not base64url") from error


def _check_parties(claims: Mapping[str, object], expected: Expected) -> None:
    if claims.get("iss") != expected.issuer:
        raise LoginRejected(STEP, "iss is not the provider's issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(one, str) for one in audiences) or expected.client_id not in audiences:
        raise LoginRejected(STEP, "aud is not this client")
    azp = claims.get("azp")
    if len(audiences) > 1 and azp is None:
        raise LoginRejected(STEP, "several audiences and no azp")
    if azp is not None and azp != expected.client_id:
        raise LoginRejected(STEP, "azp is not this client")


def _check_times(claims: Mapping[str, object], now: float) -> None:
    issued = _time(claims, "iat")
    expires = _time(claims, "exp")
    if issued > now + SKEW_S:
        raise LoginRejected(STEP, "iat is in the future")
    if issued < now - MAX_AGE_S - SKEW_S:
        raise LoginRejected(STEP, "issued too long ago")
    if expires <= now - SKEW_S:
        raise LoginRejected(STEP, "expired")
    if expires > issued + MAX_LIFETIME_S:
        raise LoginRejected(STEP, "valid for longer than any ID token")
    if "nbf" in claims and _time(claims, "nbf") > now + SKEW_S:
        raise LoginRejected(STEP, "not valid yet")


def _time(claims: Mapping[str, object], name: str) -> float:
    value = claims.get(name)
    # bool is an int in Python, and a string of digits is a string.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        raise LoginRejected(STEP, f"{name} is not a time")
    return float(value)


def _subject(claims: Mapping[str, object]) -> str:
    value = claims.get("sub")
    # isprintable is also False for control characters, which would end up in logs and headers.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise LoginRejected(STEP, "sub is not printable ASCII")
    if not 0 < len(value) <= MAX_SUB_CHARS:
        raise LoginRejected(STEP, f"sub is not 1 to {MAX_SUB_CHARS} characters long")
    return value


def _auth_time(claims: Mapping[str, object], now: float, max_age_s: float | None) -> float | None:
    if claims.get("auth_time") is None:
        return None
    proven = _time(claims, "auth_time")
    if proven > now + SKEW_S:
        raise LoginRejected(STEP, "auth_time is in the future")
    if max_age_s is not None and proven < now - max_age_s - SKEW_S:
        raise LoginRejected(STEP, "the provider did not ask the person again")
    return min(proven, now)


def _check_at_hash(claims: Mapping[str, object], algorithm: str, access_token: str | None) -> None:
    if "at_hash" not in claims:
        return
    claimed = claims["at_hash"]
    if not isinstance(claimed, str) or access_token is None:
        raise LoginRejected(STEP, "at_hash without an access token")
    # Ed25519 hashes with SHA-512 (RFC 8032, 5.1), and at_hash follows the signature's hash.
    digest = hashlib.sha512 if algorithm == "EdDSA" else hashlib.sha256
    whole = digest(access_token.encode("utf-8")).digest()
    half = base64.urlsafe_b64encode(whole[: len(whole) // 2]).rstrip(b"=").decode("ascii")
    if not _equal(claimed, half):
        raise LoginRejected(STEP, "at_hash is another access token's")


def _equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8"), right.encode("utf-8"))
