"""The keys that sign assertions: EC P-256 in a PEM file, published as a JWK set (RFC 7517).

The first key of the file signs, all are published. To rotate, put a new key on top, wait five
minutes (the longest life of an assertion), and delete the old one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from heim_proxy.identity.keys import KeyFileError, write_secret

__all__ = ["SigningKey", "SigningKeys"]

MAX_FILE_BYTES: Final = 64 * 1024
"""A P-256 key in PEM has 240 bytes."""

_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", re.DOTALL)
_COORDINATE_BYTES: Final = 32


class SigningKey:
    """One private key and its name, the RFC 7638 thumbprint of its public half."""

    __slots__ = ("jwk", "kid", "private")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self.private: Final = private
        point = private.public_key().public_numbers()
        # RFC 7638, 3.2: the required members in lexicographic order, no white space.
        members = {
            "crv": "P-256",
            "kty": "EC",
            "x": _base64url(point.x.to_bytes(_COORDINATE_BYTES)),
            "y": _base64url(point.y.to_bytes(_COORDINATE_BYTES)),
        }
        canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
        self.kid: Final = _base64url(hashlib.sha256(canonical).digest())
        self.jwk: Final = {**members, "kid": self.kid, "use": "sig", "alg": "ES256"}

    def __repr__(self) -> str:
        return f"<SigningKey {self.kid} <sealed>>"


class SigningKeys:
    """The signing keys of one file. Immutable."""

    __slots__ = ("_keys", "first")

    def __init__(self, keys: Sequence[SigningKey]) -> None:
        """The first of `keys` signs; there must be at least one."""
        self._keys: Final = tuple(keys)
        self.first: Final = keys[0]

    def __repr__(self) -> str:
        return f"<SigningKeys {', '.join(key.kid for key in self._keys)}>"

    def find(self, kid: object) -> SigningKey | None:
        """The key of that name; None for any other word, whatever its type."""
        return next((key for key in self._keys if key.kid == kid), None)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public halves, for /.heim/jwks.json. A fresh copy."""
        return {"keys": [dict(key.jwk) for key in self._keys]}

    @classmethod
    def parse(cls, pem: bytes, *, source: str = "assertion key") -> SigningKeys:
        """Read PEM blocks; each must be an unencrypted private EC key on P-256.

        Raises:
            KeyFileError: otherwise; the message never shows key material.
        """
        keys: list[SigningKey] = []
        for number, block in enumerate(_BLOCK.finditer(pem), start=1):
            where = f"{source}: key {number}"
            if block[1] == b"EC PARAMETERS":  # `openssl ecparam -genkey` puts it before the key
                continue
            try:
                private = load_pem_private_key(block[0], password=None)
            except (ValueError, TypeError, UnsupportedAlgorithm):
                raise KeyFileError(f"{where} is not an unencrypted private key in PEM") from None
            if not isinstance(private, ec.EllipticCurvePrivateKey) or not isinstance(
                private.curve, ec.SECP256R1
            ):
                raise KeyFileError(f"{where} is not an EC key on P-256 (assertions are ES256)")
            keys.append(SigningKey(private))
        if not keys:
            raise KeyFileError(f"{source}: no private key in PEM; try heim-proxy keygen assertion")
        return cls(keys)

    @classmethod
    def load(cls, path: Path) -> SigningKeys:
        """Read a PEM file.

        Raises:
            KeyFileError: when it cannot be read or holds anything but P-256 keys.
        """
        try:
            with path.open("rb") as file:
                pem = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror or error}") from error
        if len(pem) > MAX_FILE_BYTES:
            raise KeyFileError(f"{path}: over {MAX_FILE_BYTES} bytes is not a key file")
        return cls.parse(pem, source=str(path))

    @classmethod
    def load_or_create(cls, path: Path) -> SigningKeys:
        """Read `path`, generating it with one fresh key (mode 0600) when it does not exist.

        Raises:
            KeyFileError: as `load`, or when it cannot be written.
        """
        if not path.exists():
            write_secret(path, cls.generate_pem())
        return cls.load(path)

    @staticmethod
    def generate_pem() -> bytes:
        """A fresh P-256 key as PEM (PKCS 8, unencrypted)."""
        key = ec.generate_private_key(ec.SECP256R1())
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
