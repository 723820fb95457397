"""Authorities and certificates of agents for tests: as ours make them, or wrong in one way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from heim_proxy.agents.authority import Authority
from heim_proxy.agents.roots import PrivateKey

__all__ = [
    "LOGIN_HOST",
    "NOW",
    "URI",
    "authority",
    "authority_pem",
    "csr",
    "forged",
    "key_pem",
    "new_key",
    "root_key",
    "san",
]

NOW: Final = 1_800_000_000.0
LOGIN_HOST: Final = "auth.x.example.com"
URI: Final = f"spiffe://{LOGIN_HOST}/agent/desktop"


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key as agents make them."""
    return ec.generate_private_key(ec.SECP256R1())


@cache
def root_key(name: str = "ours") -> ec.EllipticCurvePrivateKey:
    """The key of one authority of the tests."""
    return new_key()


def key_pem(key: PrivateKey) -> bytes:
    """A private key in PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def authority_pem(
    key: PrivateKey | None = None,
    *,
    begins: float = NOW - 86400,
    expires: float = NOW + 365 * 86400,
    ca: bool | None = True,
    signs: bool | None = True,
) -> bytes:
    """An authority's own certificate in PEM; None leaves an extension out."""
    key = root_key() if key is None else key
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "agents of the tests")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(begins))
        .not_valid_after(_moment(expires))
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if signs is not None:
        builder = builder.add_extension(_usage(cert_sign=signs), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def authority(*names: str, key: PrivateKey | None = None) -> Authority:
    """An authority of several `root_key`s; the first one signs."""
    keys: list[PrivateKey] = [root_key(name) for name in names or ("ours",)]
    if key is not None:
        keys.insert(0, key)
    certificates = b"".join(authority_pem(one) for one in keys)
    return Authority.parse(certificates, key_pem(keys[0]), login_host=LOGIN_HOST)


def csr(key: PrivateKey | None = None, *, name: str = "anything") -> bytes:
    """A certificate request in DER that claims a name of its own."""
    key = new_key() if key is None else key
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    names = [x509.UniformResourceIdentifier(f"spiffe://{LOGIN_HOST}/agent/{name}")]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def forged(
    *,
    signer: PrivateKey | None = None,
    key: PrivateKey | None = None,
    names: Sequence[x509.GeneralName] | None = (x509.UniformResourceIdentifier(URI),),
    use: Sequence[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CLIENT_AUTH,),
    ca: bool = False,
    signature: bool = True,
    begins: float = NOW - 300,
    expires: float = NOW + 86400 - 1,
    more: Mapping[x509.ObjectIdentifier, bytes] | None = None,
    issuer: str = "agents of the tests",
    common_name: str = "desktop",
) -> bytes:
    """A certificate in DER, good unless something is said; `signer` is `root_key()` by default.

    Args:
        signer: Who signs it.
        key: Whose it is.
        names: Of the SAN; None for no SAN.
        use: Of the extended key usage; None for none.
        ca: In basicConstraints.
        signature: digitalSignature in keyUsage.
        begins: Seconds since the epoch.
        expires: Seconds since the epoch.
        more: Critical extensions besides.
        issuer: Common name of the issuer.
        common_name: Of the subject.
    """
    signer = root_key() if signer is None else signer
    key = new_key() if key is None else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(begins))
        .not_valid_after(_moment(expires))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(_usage(signature=signature), critical=True)
    )
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(use), critical=False)
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for oid, value in (more or {}).items():
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=True)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def san(der: bytes) -> list[str]:
    """The URIs that a certificate names."""
    extensions = x509.load_der_x509_certificate(der).extensions
    found = extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(found, x509.SubjectAlternativeName)
    return [str(name.value) for name in found]


def _usage(*, cert_sign: bool = False, signature: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=signature, key_cert_sign=cert_sign, crl_sign=False,
        content_commitment=True, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
