"""The authority of agents: what issues their certificates, checks them, and speaks for the proxy.

The first certificate of its file belongs to the key and signs; certificates that any of them signed
are accepted, so that one authority can follow another without letting an agent go. An agent knows
the roots, too: the statement that it is given with every connection says which there are now and
which keys sign assertions, signed by the first one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import jwt
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from heim_proxy.agents.certificates import (
    BACKDATED_S,
    LIFETIME_S,
    CertificateRefused,
    VerifiedAgent,
    agent_certificate,
    read_certificate,
)
from heim_proxy.agents.roots import PrivateKey, Root, root_certificate
from heim_proxy.identity.keys import KeyFileError, write_secret
from heim_wire.agents import STATEMENT_TYPE

__all__ = [
    "BACKDATED_S",
    "CERTIFICATE_FILE",
    "KEY_FILE",
    "LIFETIME_S",
    "Authority",
    "CertificateRefused",
    "VerifiedAgent",
]

CERTIFICATE_FILE: Final = "agents-ca.pem"
KEY_FILE: Final = "agents-ca.key"

STATEMENT_LIFETIME_S: Final = 60

MAX_ROOTS: Final = 4
"""A change of authority needs two."""

MAX_KEYS: Final = 3
"""Assertion keys in a statement: the present one, and those that signed the last minute's."""

MAX_STATEMENT_CHARACTERS: Final = 2600
"""READY is at most 4 KiB, and an agent's targets take up to 1 KiB of it."""

MAX_FILE_BYTES: Final = 64 * 1024
"""Four certificates in PEM have some 8 KiB."""


class Authority:
    """The keys and certificates. Immutable; made anew when the configuration or a file changes."""

    __slots__ = ("_key", "_login_host", "_roots")

    def __init__(self, key: PrivateKey, roots: Sequence[Root], *, login_host: str) -> None:
        """An authority whose first root belongs to `key`; see `parse`."""
        self._key: Final = key
        self._roots: Final = tuple(roots)
        self._login_host: Final = login_host

    def __repr__(self) -> str:
        return f"<Authority {', '.join(root.kid for root in self._roots)} <sealed>>"

    @classmethod
    def load(cls, cert_file: Path, key_file: Path, *, login_host: str) -> Authority:
        """Read the two files of `agents_ca`.

        Args:
            cert_file: PEM, one to four certificates; the first belongs to the key.
            key_file: PEM, one private key.
            login_host: The trust domain of the names in certificates.

        Raises:
            KeyFileError: They cannot be read, do not fit, or are not an authority's.
        """
        return cls.parse(
            _read(cert_file),
            _read(key_file),
            login_host=login_host,
            sources=(str(cert_file), str(key_file)),
        )

    @classmethod
    def load_or_create(cls, directory: Path, *, login_host: str) -> Authority:
        """Read agents-ca.pem and agents-ca.key in `directory`, made there (0600) if there are none.

        Raises:
            KeyFileError: as `load`, or when they cannot be written.
        """
        cert_file, key_file = directory / CERTIFICATE_FILE, directory / KEY_FILE
        if cert_file.exists() and not key_file.exists():
            raise KeyFileError(
                f"{cert_file} is there, and its key {key_file} is not: restore the key, or remove "
                "the certificate too, and let every agent join again"
            )
        if not key_file.exists():
            write_secret(key_file, _key_pem(ec.generate_private_key(ec.SECP256R1())))
        if not cert_file.exists():
            # For the key that is there: another process may have been faster, or we were stopped
            # between the two files.
            key = _private_key(_read(key_file), str(key_file))
            write_secret(cert_file, root_certificate(key, now=time.time()))
        return cls.load(cert_file, key_file, login_host=login_host)

    @classmethod
    def parse(
        cls,
        certificates: bytes,
        key: bytes,
        *,
        login_host: str,
        sources: tuple[str, str] = ("the certificate", "the key"),
    ) -> Authority:
        """Read PEM text; `sources` is what messages call the two.

        Raises:
            KeyFileError: They do not fit, or are not an authority's; never shows key material.
        """
        cert_source, key_source = sources
        private = _private_key(key, key_source)
        try:
            read = x509.load_pem_x509_certificates(certificates)
        except ValueError:
            raise KeyFileError(f"{cert_source}: no certificate in PEM that can be read") from None
        if len(read) > MAX_ROOTS:
            raise KeyFileError(f"{cert_source}: {len(read)} certificates; {MAX_ROOTS} are enough")
        roots = [
            Root(one, source=f"{cert_source}: certificate {number}")
            for number, one in enumerate(read, start=1)
        ]
        if private.public_key() != roots[0].public:
            raise KeyFileError(
                f"{cert_source}: certificate 1 does not belong to the key in {key_source}"
            )
        made = cls(private, roots, login_host=login_host)
        made._check_size(cert_source)
        return made

    @staticmethod
    def generate_pem(*, now: float) -> tuple[bytes, bytes]:
        """A fresh P-256 key and its own certificate, both in PEM: certificate, key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return root_certificate(key, now=now), _key_pem(key)

    def issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        *,
        name: str,
        now: float,
        lifetime_s: float = LIFETIME_S,
    ) -> bytes:
        """A certificate in DER that lets `name` in with this key, for at most 24 h.

        Raises:
            CertificateRefused: Our own certificate is over, or not valid yet.
        """
        root = self._roots[0]
        if not root.valid_at(now):
            raise CertificateRefused(
                "the proxy's own authority is not valid now: it cannot issue certificates"
            )
        return agent_certificate(
            root,
            self._key,
            public_key,
            name=name,
            login_host=self._login_host,
            begins=now - BACKDATED_S,
            expires=min(now + min(lifetime_s, LIFETIME_S), root.expires),
        )

    def valid_at(self, now: float) -> bool:
        """Whether certificates can be issued at `now`, in seconds since the epoch."""
        return self._roots[0].valid_at(now)

    def verify(self, der: bytes, *, now: float) -> VerifiedAgent:
        """Whose certificate this is.

        Raises:
            CertificateRefused: It is nobody's, or its time is not now.
        """
        return read_certificate(der, self._roots, login_host=self._login_host, now=now)

    def statement(
        self,
        *,
        issuer: str,
        audience: str,
        nonce: str,
        jwks: Mapping[str, Sequence[Mapping[str, str]]],
        now: float,
    ) -> str:
        """What READY proves the proxy with: a JWT of type STATEMENT_TYPE, good for 60 s.

        Args:
            issuer: The login host's origin.
            audience: Thumbprint of the agent's key, in base64url.
            nonce: Of the agent's HELLO.
            jwks: `SigningKeys.jwks()`: the keys that sign assertions, the present one first. The
                first three are told.
            now: Seconds since the epoch.
        """
        issued = int(now)
        told = ("kty", "crv", "x", "y", "kid")
        claims = {
            "iss": issuer,
            "aud": audience,
            "nonce": nonce,
            "iat": issued,
            "exp": issued + STATEMENT_LIFETIME_S,
            "keys": [{name: key[name] for name in told} for key in jwks["keys"][:MAX_KEYS]],
            "roots": self.roots(),
        }
        root = self._roots[0]
        headers = {"typ": STATEMENT_TYPE, "kid": root.kid}
        return jwt.encode(claims, self._key, algorithm=root.algorithm, headers=headers)

    def roots(self) -> list[dict[str, str]]:
        """The public keys of every certificate as JWKs with kid; the one that signs comes first."""
        by_kid = {root.kid: dict(root.jwk) for root in self._roots}
        return list(by_kid.values())

    def _check_size(self, source: str) -> None:
        """Find out now, and not when the first agent comes, that a statement would be too long."""
        digest = "x" * 43
        key = {"kty": "EC", "crv": "P-256", "x": digest, "y": digest, "kid": digest}
        text = self.statement(
            issuer=f"https://{self._login_host}:65535",
            audience=digest,
            nonce=digest,
            jwks={"keys": list(itertools.repeat(key, MAX_KEYS))},
            now=4e9,
        )
        if len(text) > MAX_STATEMENT_CHARACTERS:
            raise KeyFileError(
                f"{source}: these authorities are too large to be told to agents; "
                "use EC keys, or fewer certificates"
            )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise KeyFileError(f"{path}: over {MAX_FILE_BYTES} bytes is not an authority's file")
    return content


def _private_key(pem: bytes, source: str) -> PrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(
            f"{source}: not an unencrypted private key in PEM; try heim-proxy keygen ca"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise KeyFileError(f"{source}: an authority's key is EC P-256 or P-384, or RSA")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
