"""The authority of agents: what issues their certificates, checks them, and speaks for the proxy.

The first certificate of its file belongs to the key and signs; certificates that any of them signed
are accepted, so that one authority can follow another without letting an agent go. An agent knows
the roots, too: the statement that it is given with every connection says which there are now and
which keys sign assertions, signed by the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "BACKDATED_S",
    "LIFETIME_S",
    "Authority",
    "CertificateRefused",
    "VerifiedAgent",
]

LIFETIME_S: Final = 24 * 3600.0
"""How long a certificate is good for; agents renew it after two thirds."""

BACKDATED_S: Final = 300.0
"""How far before its making a certificate begins, for clocks that are behind."""


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


class Authority:
    """The keys and certificates. Immutable; made anew when the configuration or a file changes."""

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
        raise NotImplementedError

    @classmethod
    def load_or_create(cls, directory: Path, *, login_host: str) -> Authority:
        """Read agents-ca.pem and agents-ca.key in `directory`, made there (0600) if there are none.

        Raises:
            KeyFileError: as `load`, or when they cannot be written.
        """
        raise NotImplementedError

    @staticmethod
    def generate_pem(*, login_host: str, now: float) -> tuple[bytes, bytes]:
        """A fresh P-256 key and its own certificate, both in PEM: certificate, key."""
        raise NotImplementedError

    def issue(
        self,
        public_key: ec.EllipticCurvePublicKey,
        *,
        name: str,
        now: float,
        lifetime_s: float = LIFETIME_S,
    ) -> bytes:
        """A certificate in DER that lets `name` in with this key, for at most 24 h."""
        raise NotImplementedError

    def verify(self, der: bytes, *, now: float) -> VerifiedAgent:
        """Whose certificate this is.

        Raises:
            CertificateRefused: It is nobody's, or its time is not now.
        """
        raise NotImplementedError

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
            jwks: `SigningKeys.jwks()`: the keys that sign assertions, the present one first.
            now: Seconds since the epoch.
        """
        raise NotImplementedError

    def roots(self) -> list[dict[str, str]]:
        """The public keys of every certificate as JWKs with kid; the one that signs comes first."""
        raise NotImplementedError
