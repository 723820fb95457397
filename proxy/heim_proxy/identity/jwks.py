"""A provider's signing keys, and which of them may have signed a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from heim_proxy.identity.fetch import MAX_BODY_BYTES
from heim_proxy.identity.login_errors import ProviderFault
from heim_wire.strict_json import StrictJsonError, read_object

__all__ = ["Key", "KeySet", "PublicKey", "parse_jwks"]

STEP: Final = "signing keys"
MIN_RSA_BITS: Final = 2048
# Verification time grows with the modulus; 16384 bits take 3 ms and nobody uses them.
MAX_RSA_BITS: Final = 8192
MAX_KEYS: Final = 256

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_TYPES: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "PS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
}


@dataclass(frozen=True, slots=True)
class Key:
    """One published key that may verify signatures; `algorithm` is None unless it names one."""

    kid: str | None
    kty: str
    crv: str | None
    algorithm: str | None
    public: PublicKey

    def fits(self, algorithm: str) -> bool:
        """Whether this key may verify signatures made with `algorithm`."""
        return _TYPES.get(algorithm) == (self.kty, self.crv) and self.algorithm in (
            None,
            algorithm,
        )


class KeySet:
    """The usable keys of one document. Immutable."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The one key that a token's header points at; None when there is none, or no single one.

        A header without `kid` is accepted only while a single key fits (Core 1.0, 10.1).
        """
        fitting = [
            key for key in self._keys if key.fits(algorithm) and (kid is None or key.kid == kid)
        ]
        return fitting[0] if len(fitting) == 1 else None


def parse_jwks(body: bytes) -> KeySet:
    """Read a JWK Set (RFC 7517, 5), leaving out every key that must not verify a signature.

    Left out: keys for encryption, symmetric keys, private keys, RSA below 2048 bits, points off
    their curve, curves and types we do not know. One odd key does not hide the others.

    Raises:
        ProviderFault: It is not a key set.
    """
    try:
        document = read_object(body, max_bytes=MAX_BODY_BYTES)
    except StrictJsonError as error:
        raise ProviderFault(STEP, f"the key set {error}") from error
    listed = document.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ProviderFault(STEP, f"the key set has no list of at most {MAX_KEYS} keys")
    found = (_key(item) for item in listed if isinstance(item, dict))
    return KeySet(key for key in found if key is not None)


def _key(jwk: dict[str, object]) -> Key | None:
    kid, kty, crv = jwk.get("kid"), jwk.get("kty"), jwk.get("crv")
    algorithm, use, operations = jwk.get("alg"), jwk.get("use"), jwk.get("key_ops")
    if not (kid is None or isinstance(kid, str)) or not isinstance(kty, str):
        return None
    if use not in (None, "sig") or not (algorithm is None or isinstance(algorithm, str)):
        return None
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    # A published private key is no secret of the provider's any more.
    if "d" in jwk or kty not in ("RSA", "EC", "OKP"):
        return None
    curve = crv if kty != "RSA" and isinstance(crv, str) else None
    name = next((alg for alg, kind in _TYPES.items() if kind == (kty, curve)), None)
    if name is None:
        return None
    try:
        public = jwt.PyJWK(jwk, algorithm=name).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if not isinstance(public, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return None
    if isinstance(public, RSAPublicKey) and not _sound(public):
        return None
    return Key(kid, kty, curve, algorithm, public)


def _sound(key: RSAPublicKey) -> bool:
    exponent = key.public_numbers().e
    return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and exponent >= 3 and exponent % 2 == 1
