"""The agent's private key: made on this machine, kept in one file, shown to nobody."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

__all__ = ["AgentKey"]

_COORDINATE_BYTES: Final = 32
_NOT_P256: Final = "the key is not an EC key on P-256"


class AgentKey:
    """An EC P-256 private key. `repr` shows its fingerprint only.

    Attributes:
        thumbprint: Of the public key (RFC 7638), base64url without padding: what the proxy has
            enrolled, and the audience of statements and assertions.
        fingerprint: `SHA256:…` of the public key's DER (SubjectPublicKeyInfo), for people to
            compare, as ssh writes them.
    """

    __slots__ = ("_private", "fingerprint", "thumbprint")

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        """Take over a key.

        Raises:
            ValueError: It is on another curve.
        """
        if not isinstance(private.curve, ec.SECP256R1):
            raise ValueError(_NOT_P256)  # noqa: TRY004 - the type is right
        self._private: Final = private
        public = private.public_key()
        self.thumbprint: Final = _base64url(hashlib.sha256(_canonical(public)).digest())
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = base64.b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")
        self.fingerprint: Final = f"SHA256:{digest}"

    def __repr__(self) -> str:
        return f"<AgentKey {self.fingerprint}>"

    @classmethod
    def generate(cls) -> AgentKey:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, data: bytes) -> AgentKey:
        """The key of a file.

        Raises:
            ValueError: It holds no unencrypted P-256 key. The message shows nothing of it.
        """
        try:
            found = load_pem_private_key(data, password=None)
        except Exception as e:
            # cryptography raises several kinds, UnsupportedAlgorithm and TypeError among them.
            raise ValueError("it holds no unencrypted PEM key") from e
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ValueError(_NOT_P256)  # noqa: TRY004 - of a file's text
        return cls(found)

    def to_pem(self) -> bytes:
        """The private key for its file (PKCS #8)."""
        return self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def sign(self, data: bytes) -> bytes:
        """ECDSA with SHA-256, DER: for `heim_wire.agents.proof_bytes`."""
        return self._private.sign(data, ec.ECDSA(hashes.SHA256()))

    def request(self) -> bytes:
        """A PKCS #10 request for a certificate, DER.

        Its name says nothing: who the agent is, the proxy decides (decision 30).
        """
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "heim-agent")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        return builder.sign(self._private, hashes.SHA256()).public_bytes(Encoding.DER)

    def holds(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate is for this key."""
        return certificate.public_key() == self._private.public_key()


def _canonical(public: ec.EllipticCurvePublicKey) -> bytes:
    """What RFC 7638 (3.2) hashes: the required members, in order, without blanks."""
    numbers = public.public_numbers()
    x, y = (_base64url(one.to_bytes(_COORDINATE_BYTES, "big")) for one in (numbers.x, numbers.y))
    members = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
    return json.dumps(members, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
