"""A throw-away certificate authority and one server certificate for the demo's host names.

The authority's key never touches the disk and is gone when `issue` returns; the authority itself is
constrained to `localhost` names, so that trusting it in a browser endangers no other site.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["DemoCertificates", "issue"]

LIFETIME: Final = timedelta(days=7)
"""Long enough for a workshop, short enough that a trusted leftover stops to matter."""

CLOCK_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, repr=False)
class DemoCertificates:
    """PEM texts: what a client trusts, what the server shows, and the server's private key."""

    ca_pem: bytes
    server_pem: bytes
    server_key_pem: bytes


def issue(hosts: tuple[str, ...], *, now: datetime) -> DemoCertificates:
    """Make an authority and have it sign one certificate that lists every host by name.

    Each name is listed because clients refuse a certificate for `*.localhost`: the part after the
    star is a public suffix to them.

    Args:
        hosts: DNS names; each is `localhost` or below it.
        now: An aware time; the certificates are valid from five minutes before it for seven days.

    Raises:
        ValueError: for a name outside `localhost`, which the authority could not sign.
    """
    for host in hosts:
        if host != "localhost" and not host.endswith(".localhost"):
            raise ValueError(f"the demo's authority signs localhost names only, not {host!r}")
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _authority(ca_key, now=now)
    server_key = ec.generate_private_key(ec.SECP256R1())
    server = _server(hosts, server_key.public_key(), ca=ca, ca_key=ca_key, now=now)
    return DemoCertificates(
        ca_pem=ca.public_bytes(serialization.Encoding.PEM),
        server_pem=server.public_bytes(serialization.Encoding.PEM),
        server_key_pem=server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def _authority(key: ec.EllipticCurvePrivateKey, *, now: datetime) -> x509.Certificate:
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"Heim DEMO authority {now:%Y-%m-%d %H:%M}")]
    )
    public = key.public_key()
    localhost_only = x509.NameConstraints(
        permitted_subtrees=[
            x509.DNSName("localhost"),
            # Without a permitted address block the constraint would leave addresses free.
            x509.IPAddress(ipaddress.ip_network("127.0.0.0/8")),
        ],
        excluded_subtrees=None,
    )
    return (
        _builder(name, name, public, now=now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(localhost_only, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _server(
    hosts: tuple[str, ...],
    public: ec.EllipticCurvePublicKey,
    *,
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    return (
        _builder(name, ca.subject, public, now=now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, *, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
