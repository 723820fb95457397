"""The keys of agents: P-256, made on their machines; here only the public half and its two names.

Two digests name a key. The RFC 7638 thumbprint is what the store binds a name to and what
assertions are made out to; the fingerprint, over the SubjectPublicKeyInfo, is what people compare.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

__all__ = ["MAX_REQUEST_BYTES", "AgentKey", "BadRequestError"]

MAX_REQUEST_BYTES: Final = 2048
"""A certificate request for a P-256 key has about 220."""

_COORDINATE_BYTES: Final = 32


class BadRequestError(Exception):
    """A certificate request that cannot be used; the message says why in one sentence."""


class AgentKey:
    """A public key of an agent. Immutable.

    Attributes:
        public: The key itself, on P-256.
        der: Its SubjectPublicKeyInfo.
        thumbprint: RFC 7638 thumbprint, 32 bytes.
        fingerprint: ``SHA256:`` and base64 without padding, as `heim-agent` prints it.
    """

    __slots__ = ("der", "fingerprint", "public", "thumbprint")

    def __init__(self, public: ec.EllipticCurvePublicKey) -> None:
        """The key `public`; ValueError when it is not on P-256."""
        if public.curve.name != ec.SECP256R1.name:
            raise ValueError("not a key on P-256")
        self.public: Final = public
        self.der: Final = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        point = public.public_numbers()
        # RFC 7638, 3.2: the required members in lexicographic order, no white space.
        members = {
            "crv": "P-256",
            "kty": "EC",
            "x": _base64url(point.x.to_bytes(_COORDINATE_BYTES)),
            "y": _base64url(point.y.to_bytes(_COORDINATE_BYTES)),
        }
        canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
        self.thumbprint: Final = hashlib.sha256(canonical).digest()
        digest = base64.b64encode(hashlib.sha256(self.der).digest()).rstrip(b"=")
        self.fingerprint: Final = f"SHA256:{digest.decode('ascii')}"

    def __repr__(self) -> str:
        return f"<AgentKey {self.fingerprint}>"

    @classmethod
    def from_request(cls, der: bytes) -> AgentKey:
        """The key that a certificate request (PKCS #10) was signed with.

        Nothing but the key is taken from it: names and extensions are ours to give (decision 30).

        Raises:
            BadRequestError: It is not such a request, is for another kind of key, or whoever made
                it did not have the private key.
        """
        if len(der) > MAX_REQUEST_BYTES:
            raise BadRequestError(f"the certificate request is over {MAX_REQUEST_BYTES} bytes")
        try:
            request = x509.load_der_x509_csr(der)
            public = request.public_key()
            if not isinstance(public, ec.EllipticCurvePublicKey):
                raise BadRequestError("the certificate request is not for an EC key on P-256")
            if not request.is_signature_valid:
                raise BadRequestError("the certificate request is not signed with its key")
            return cls(public)
        except (
            *(ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature),
            x509.InvalidVersion,
        ):
            raise BadRequestError(
                "the certificate request is not PKCS #10 in DER for an EC key on P-256"
            ) from None

    @classmethod
    def from_der(cls, der: bytes) -> AgentKey:
        """The key of a SubjectPublicKeyInfo that `der` once gave; ValueError for another."""
        public = load_der_public_key(der)
        if isinstance(public, ec.EllipticCurvePublicKey):
            return cls(public)
        raise ValueError("not an EC key")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
