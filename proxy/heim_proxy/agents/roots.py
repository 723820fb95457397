"""The authorities of agents as keys: which kinds there are, and how each is named and signs.

A root is one certificate of the authority's file. Its key is EC P-256 or P-384, or RSA.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from heim_proxy.identity.keys import KeyFileError

__all__ = ["PrivateKey", "PublicKey", "Root", "root_certificate"]

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MIN_RSA_BITS: Final = 2048

MAX_RSA_BITS: Final = 4096
"""Larger ones cost milliseconds for each agent that connects, and fit into no statement."""

_DAYS: Final = 3650
_DAY: Final = datetime.timedelta(days=1)

_CURVES: Final = {"secp256r1": ("P-256", "ES256"), "secp384r1": ("P-384", "ES384")}


class Root:
    """One authority. Immutable.

    Attributes:
        certificate: Its certificate.
        public: The key in it.
        algorithm: What it signs statements with: ES256, ES384 or RS256.
        kid: RFC 7638 thumbprint of the key, in base64url.
        jwk: The key as agents store it (RFC 7517).
        begins: Start of the certificate's time, seconds since the epoch.
        expires: Its end.
    """

    __slots__ = ("algorithm", "begins", "certificate", "expires", "jwk", "kid", "public")

    def __init__(self, certificate: x509.Certificate, *, source: str) -> None:
        """The authority of `certificate`; `source` is what messages call it.

        Raises:
            KeyFileError: It is no authority's, or of a kind that we do not take.
        """
        _check_authority(certificate, source)
        members, algorithm, public = _members(certificate, source)
        # RFC 7638, 3.2: the required members in lexicographic order, no white space.
        canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
        self.certificate: Final = certificate
        self.public: Final[PublicKey] = public
        self.algorithm: Final = algorithm
        self.kid: Final = _base64url(hashlib.sha256(canonical).digest())
        self.jwk: Final = {**members, "kid": self.kid, "alg": algorithm}
        self.begins: Final = certificate.not_valid_before_utc.timestamp()
        self.expires: Final = certificate.not_valid_after_utc.timestamp()

    def __repr__(self) -> str:
        return f"<Root {self.kid}>"

    def valid_at(self, now: float) -> bool:
        """Whether `now`, in seconds since the epoch, is within the certificate's time."""
        return self.begins <= now < self.expires

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this key signed `certificate`, and under this name."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True


def root_certificate(key: PrivateKey, *, now: float) -> bytes:
    """The certificate that a key signs for itself, in PEM, good for ten years from `now`."""
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    public = key.public_key()
    # Two authorities that follow each other differ in name: people look at it, and some tools.
    mark = x509.SubjectKeyIdentifier.from_public_key(public).digest.hex()[:8]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Heim agents {mark}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _DAY)
        .not_valid_after(at + _DAYS * _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM)


def _check_authority(certificate: x509.Certificate, source: str) -> None:
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not basic.ca:
            raise KeyFileError(f"{source} is not an authority's: basicConstraints has no CA")
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
        if not usage.key_cert_sign:
            raise KeyFileError(f"{source} may not sign certificates: keyUsage has no keyCertSign")
    except x509.ExtensionNotFound as missing:
        # A certificate without keyUsage may be used for everything (RFC 5280, 4.2.1.3).
        if missing.oid == ExtensionOID.BASIC_CONSTRAINTS:
            raise KeyFileError(f"{source} is not an authority's: it has no basicConstraints") from (
                None
            )
    except ValueError:
        raise KeyFileError(f"{source} has an extension that cannot be read") from None


def _members(certificate: x509.Certificate, source: str) -> tuple[dict[str, str], str, PublicKey]:
    """The key as the required members of a JWK, and what it signs with."""
    public = certificate.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in _CURVES:
        name, algorithm = _CURVES[public.curve.name]
        point, size = public.public_numbers(), (public.key_size + 7) // 8
        x, y = (_base64url(number.to_bytes(size)) for number in (point.x, point.y))
        return {"crv": name, "kty": "EC", "x": x, "y": y}, algorithm, public
    if isinstance(public, rsa.RSAPublicKey) and MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS:
        numbers = public.public_numbers()
        n, e = (_base64url(_unsigned(number)) for number in (numbers.n, numbers.e))
        return {"e": e, "kty": "RSA", "n": n}, "RS256", public
    raise KeyFileError(
        f"{source} has a key that is neither EC P-256 or P-384 nor RSA of "
        f"{MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
    )


def _unsigned(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
