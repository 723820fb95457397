"""TLS Secrets opened and judged: what translations are told about them, and which pair is good.

A pair that was good stays in use when its Secret turns into garbage or vanishes, until it expires.
Our own mirror of a Secret remembers it across restarts: it never holds anything but a good pair.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtensionOID

from heim_controller.kube.resources import Manifest, version_of
from heim_controller.translation.objects import CertificateFacts, Key

__all__ = ["BadPairError", "Book", "KnownCertificates", "Pair", "read_pair"]

# RFC 7633: the feature that demands a stapled OCSP answer.
_MUST_STAPLE: Final = x509.TLSFeatureType.status_request
# A chain of ten takes 20 KiB, a key of RSA 8192 six. What is larger holds no more than these, and
# goes through everybody's proxy: its memory, and the list of all Secrets that it starts with.
_MAX_BYTES: Final = {"tls.crt": 64 * 1024, "tls.key": 16 * 1024}
_UNUSABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)


class BadPairError(ValueError):
    """A Secret without a usable pair; the text says why, and nothing of what is in it.

    `passing` says that time alone can change that.
    """

    def __init__(self, text: str, *, passing: bool = False) -> None:
        super().__init__(text)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain and its key that belong together, as base64 of PEM."""

    certificate: str
    key: str = field(repr=False)
    facts: CertificateFacts = field(compare=False)


def read_pair(secret: Manifest, *, now: float) -> Pair:
    """The pair of a Secret.

    Args:
        secret: With base64 of PEM in `tls.crt` (leaf first) and `tls.key`, as the API has it.
        now: Seconds since the epoch.

    Raises:
        BadPairError: Something is missing, cannot be read, does not match, or is out of its time.
    """
    chain = _certificates(_decoded(secret, "tls.crt"))
    leaf = chain[0]
    secret_key = _decoded(secret, "tls.key")
    try:
        # The long check of RSA keys (20 ms each) finds nothing that the comparison below and the
        # proxy's OpenSSL do not.
        key = load_pem_private_key(secret_key, None, unsafe_skip_rsa_key_validation=True)
        same = _encoded(key.public_key()) == _encoded(leaf.public_key())
    except _UNUSABLE as e:
        raise BadPairError("tls.key holds no key that can be read") from e
    if not same:
        raise BadPairError("tls.key is not the key of the certificate in tls.crt")
    facts = _facts(leaf)
    if facts.not_after is not None and facts.not_after <= now:
        raise BadPairError(f"the certificate expired on {_day(facts.not_after)}")
    if facts.not_before is not None and facts.not_before > now:
        raise BadPairError(
            f"the certificate is not valid before {_day(facts.not_before)}", passing=True
        )
    data = secret["data"]
    return Pair(data["tls.crt"], data["tls.key"], facts)


class Book:
    """What is known of TLS Secrets, kept from one translation to the next.

    Only Secrets that somebody asks for are opened: a cluster has thousands that no Ingress names.
    Not to be used by two threads at a time.
    """

    def __init__(self) -> None:
        # By Secret: the version that was judged, and the pair or what is wrong with it.
        self._judged: dict[Key, tuple[str, Pair | BadPairError]] = {}
        self._good: dict[Key, Pair] = {}

    def look(
        self,
        secrets: Mapping[Key, Manifest],
        mirrors: Mapping[Key, Manifest],
        *,
        now: float,
        excuses: Mapping[str, str | None] | None = None,
    ) -> KnownCertificates:
        """The facts of all Secrets as they are now, found out as they are asked for.

        Args:
            secrets: Those that may be read, by their key.
            mirrors: Our mirrors, by the key of the Secret that each is of.
            now: Seconds since the epoch.
            excuses: Why Secrets of a namespace cannot be seen, by namespace, None where they can;
                "" for all others.
        """
        return KnownCertificates(self, secrets, mirrors, now=now, excuses=excuses or {})

    def pair(self, secret: Key) -> Pair | None:
        """The good pair of a Secret that was asked for, or None."""
        return self._good.get(secret)

    def keep(self, needed: frozenset[Key]) -> None:
        """Forget everything but these: what nobody names is nobody's last good pair."""
        for known in (self._good, self._judged):
            for key in known.keys() - needed:
                del known[key]

    def _judge(self, key: Key, secret: Manifest, now: float) -> Pair | BadPairError:
        version = version_of(secret)
        known = self._judged.get(key)
        if known is not None and known[0] == version:
            return known[1]
        found: Pair | BadPairError
        try:
            found = read_pair(secret, now=now)
        except BadPairError as e:
            found = e
        if not (isinstance(found, BadPairError) and found.passing):
            self._judged[key] = (version, found)
        return found

    def _remembered(self, key: Key, mirror: Manifest | None, now: float) -> Pair | None:
        """The last good pair, from our memory or our mirror, while it is valid."""
        pair = self._good.get(key)
        if pair is None and mirror is not None:
            try:
                pair = read_pair(mirror, now=now)
            except BadPairError:
                return None
        if pair is not None and pair.facts.not_after is not None and pair.facts.not_after > now:
            return pair
        return None


class KnownCertificates(Mapping[Key, CertificateFacts]):
    """The facts of Secrets, by their key; a Secret that is not in here does not exist."""

    def __init__(
        self,
        book: Book,
        secrets: Mapping[Key, Manifest],
        mirrors: Mapping[Key, Manifest],
        *,
        now: float,
        excuses: Mapping[str, str | None],
    ) -> None:
        self._book = book
        self._secrets = secrets
        self._mirrors = mirrors
        self._now = now
        self._excuses = excuses
        self._found: dict[Key, CertificateFacts | None] = {}

    def __getitem__(self, key: Key) -> CertificateFacts:
        if key not in self._found:
            self._found[key] = self._find(key)
        facts = self._found[key]
        if facts is None:
            raise KeyError(key)
        return facts

    def _find(self, key: Key) -> CertificateFacts | None:
        book, now = self._book, self._now
        secret = self._secrets.get(key)
        problem = None
        if secret is not None:
            found = book._judge(key, secret, now)
            if isinstance(found, Pair):
                book._good[key] = found
                return found.facts
            problem = str(found)
        else:
            problem = self._excuses.get(key[0], self._excuses.get(""))
        last = book._remembered(key, self._mirrors.get(key), now)
        if last is None:
            book._good.pop(key, None)
            return None if problem is None else CertificateFacts(problem=problem)
        book._good[key] = last
        known = last.facts
        return CertificateFacts(
            known.names,
            known.not_before,
            known.not_after,
            problem or "the Secret is gone",
            known.must_staple,
        )

    def __iter__(self) -> Iterator[Key]:
        return iter(self._secrets)

    def __len__(self) -> int:
        return len(self._secrets)


def _decoded(secret: Manifest, name: str) -> bytes:
    data = secret.get("data")
    value = data.get(name) if isinstance(data, dict) else None
    if not value or not isinstance(value, str):
        raise BadPairError(f"{name} is missing")
    if len(value) > _MAX_BYTES[name] * 4 // 3 + 4:
        raise BadPairError(f"{name} is larger than {_MAX_BYTES[name] >> 10} KiB")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as e:
        raise BadPairError(f"{name} is not base64") from e


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNUSABLE as e:
        raise BadPairError("tls.crt holds no certificate that can be read") from e


def _facts(leaf: x509.Certificate) -> CertificateFacts:
    try:
        names, staple = _names(leaf), _must_staple(leaf)
    except _UNUSABLE as e:
        raise BadPairError("tls.crt has extensions that cannot be read") from e
    if not names:
        raise BadPairError("the certificate is for no DNS name")
    return CertificateFacts(
        names,
        leaf.not_valid_before_utc.timestamp(),
        leaf.not_valid_after_utc.timestamp(),
        must_staple=staple,
    )


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.value.get_values_for_type(x509.DNSName))


def _must_staple(leaf: x509.Certificate) -> bool:
    try:
        found = leaf.extensions.get_extension_for_oid(ExtensionOID.TLS_FEATURE)
    except x509.ExtensionNotFound:
        return False
    return isinstance(found.value, x509.TLSFeature) and _MUST_STAPLE in found.value


def _encoded(key: object) -> bytes:
    encode = getattr(key, "public_bytes", None)
    if encode is None:
        raise ValueError("not a public key")
    encoded: bytes = encode(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
