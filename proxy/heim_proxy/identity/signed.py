"""Reading what our own keys signed: ES256 JWTs of an exact type (RFC 7519; RFC 8725, 3.1 and 3.11).

Only the signature is judged here. Names and times are the callers', against their own clock. Agents
verify theirs in `heim_agent.signed`: what programs share (heim_wire, heim_runtime) is standard
library only, and this needs cryptography.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from jwt.types import Options

__all__ = ["Invalid", "authentic_claims", "time_claim"]

Invalid = Callable[[str], Exception]
"""Makes the caller's own exception of a reason that does not quote the token."""

_SIGNATURE_ONLY: Final[Options] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def authentic_claims(
    token: str,
    *,
    typ: str,
    what: str,
    longest: int,
    find: Callable[[str], EllipticCurvePublicKey | None],
    require: tuple[str, ...] = (),
    invalid: Invalid,
) -> dict[str, object]:
    """The claims of a token that one of our keys signed as a `typ`; else raises `invalid`.

    Args:
        token: As it was presented.
        typ: The only type that is taken; compared before the signature is.
        what: The type in words, with its article.
        longest: Characters it may have.
        find: The public key of a `kid`, None for an unknown one.
        require: Claims that must be there.
        invalid: Makes the exception.
    """
    if len(token) > longest:
        raise invalid("too long")
    try:
        header = jwt.get_unverified_header(token)
        if header.get("typ") != typ:
            raise invalid(f"not {what}")
        key = find(header.get("kid", ""))
        if key is None:
            raise invalid("signed by an unknown key")
        options: Options = {**_SIGNATURE_ONLY, "require": list(require)}
        claims: dict[str, object] = jwt.decode(token, key, algorithms=["ES256"], options=options)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        # RecursionError: JSON nested thousands deep, in a header nobody has signed.
        raise invalid(f"not authentic ({type(error).__name__})") from None
    return claims


def time_claim(claims: Mapping[str, object], name: str, invalid: Invalid) -> float:
    """A claim in seconds since the epoch; raises `invalid` when it is none."""
    value = claims.get(name)
    # bool is an int to Python, and JSON numbers may be infinite to it.
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise invalid(f"{name} is not a time")
    return value
