"""The certificates of agents: how one is made, and everything that is checked about one.

The only name that counts is a URI in the subject alternative name, made by us:
``spiffe://<login host>/agent/<name>`` (SPIFFE X.509-SVID). The subject is for people who look.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from heim_proxy.agents.agent_keys import AgentKey
from heim_proxy.agents.roots import PrivateKey, Root
from heim_wire.agents import ANOTHER_AUTHORITY

__all__ = [
    "BACKDATED_S",
    "LIFETIME_S",
    "CertificateRefused",
    "VerifiedAgent",
    "agent_certificate",
    "read_certificate",
]

LIFETIME_S: Final = 24 * 3600.0
"""How long a certificate is good for; agents renew it after two thirds."""

BACKDATED_S: Final = 300.0
"""How far before its making a certificate begins, for clocks that are behind."""

MAX_CERTIFICATE_BYTES: Final = 3000
"""One signed by RSA of 4096 bits has some 1000; in base64 it must fit into 4 KiB with the rest."""

# As heim_config has them: an Agent of Kubernetes is <namespace>.<name>.
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_HASHES: Final = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
_UNDERSTOOD: Final = frozenset(
    (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    )
)


@dataclass(frozen=True, slots=True)
class VerifiedAgent:
    """Whom a certificate is for. `thumbprint` is RFC 7638, 32 bytes; `expires` is in epoch seconds.

    It says nothing about whether the agent may still come: that is the store's and configuration's.
    """

    name: str
    thumbprint: bytes
    public_key: ec.EllipticCurvePublicKey
    expires: float


class CertificateRefused(Exception):  # noqa: N818 - what happened to it
    """A certificate that lets nobody in; the message is one sentence that the agent may read.

    `expired` is whose it was when that its time is over is all that is wrong with it, else None:
    an agent that was off for a week has a key that is still enrolled.
    """

    def __init__(self, message: str, *, expired: VerifiedAgent | None = None) -> None:
        super().__init__(message)
        self.expired: Final = expired


def agent_certificate(
    root: Root,
    key: PrivateKey,
    public_key: ec.EllipticCurvePublicKey,
    *,
    name: str,
    login_host: str,
    begins: float,
    expires: float,
) -> bytes:
    """A certificate in DER, signed by `key` of `root`; times are seconds since the epoch."""
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=False,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = [x509.UniformResourceIdentifier(f"spiffe://{login_host}/agent/{name}")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(root.certificate.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(begins))
        .not_valid_after(_moment(expires))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


def read_certificate(
    der: bytes, roots: Sequence[Root], *, login_host: str, now: float
) -> VerifiedAgent:
    """Whose certificate this is; see `Authority.verify`.

    Raises:
        CertificateRefused: with the first thing that is wrong; that its time is over comes last.
    """
    certificate, key = _parse(der)
    root = next((one for one in roots if one.issued(certificate)), None)
    if root is None:
        raise CertificateRefused(ANOTHER_AUTHORITY)
    if not root.valid_at(now):
        raise CertificateRefused("the authority that signed the certificate is not valid now")
    try:
        _check_use(certificate.extensions)
        name = _name(certificate.extensions, login_host)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateRefused("the certificate has an extension that cannot be read") from None
    begins = certificate.not_valid_before_utc.timestamp()
    agent = VerifiedAgent(
        name, key.thumbprint, key.public, certificate.not_valid_after_utc.timestamp()
    )
    if agent.expires - begins > LIFETIME_S + BACKDATED_S:
        raise CertificateRefused("the certificate lives for more than a day")
    if now < begins:
        raise CertificateRefused("the certificate is not valid yet")
    if now >= agent.expires:
        raise CertificateRefused("the certificate has expired", expired=agent)
    return agent


def _parse(der: bytes) -> tuple[x509.Certificate, AgentKey]:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise CertificateRefused(f"the certificate has over {MAX_CERTIFICATE_BYTES} bytes")
    try:
        with warnings.catch_warnings():
            # What it only warns about (a serial number that is not positive) none of ours has, and
            # a stranger's must not write to our log.
            warnings.simplefilter("error", CryptographyDeprecationWarning)
            certificate = x509.load_der_x509_certificate(der)
        public = certificate.public_key()
        hashed = certificate.signature_hash_algorithm
    except (
        *(ValueError, TypeError, UnsupportedAlgorithm),
        *(x509.InvalidVersion, CryptographyDeprecationWarning),
    ):
        raise CertificateRefused("the certificate cannot be read") from None
    if not isinstance(hashed, _HASHES):
        raise CertificateRefused("the certificate is not signed with SHA-2")
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise CertificateRefused("the certificate's key is not on P-256")
    try:
        return certificate, AgentKey(public)
    except ValueError:
        raise CertificateRefused("the certificate's key is not on P-256") from None


def _check_use(extensions: x509.Extensions) -> None:
    for extension in extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise CertificateRefused("the certificate has a critical extension that we do not know")
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise CertificateRefused("the certificate is an authority's, not an agent's")
            case x509.KeyUsage(digital_signature=False):
                raise CertificateRefused("the certificate's key is not for signatures")
    try:
        use = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise CertificateRefused("the certificate does not say that it is a client's") from None
    if ExtendedKeyUsageOID.CLIENT_AUTH not in use:
        raise CertificateRefused("the certificate is not a client's")


def _name(extensions: x509.Extensions, login_host: str) -> str:
    """The agent's name, from the one URI that there must be."""
    try:
        names = list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        raise CertificateRefused("the certificate has no subject alternative name") from None
    if len(names) != 1:
        raise CertificateRefused("the certificate has not exactly one subject alternative name")
    (only,) = names
    prefix = f"spiffe://{login_host}/agent/"
    if not isinstance(only, x509.UniformResourceIdentifier) or not only.value.startswith(prefix):
        raise CertificateRefused(f"the certificate's name is not under {prefix}")
    name = only.value.removeprefix(prefix)
    if _NAME.fullmatch(name) is None:
        raise CertificateRefused("the certificate's name is not an agent's")
    return name


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)
