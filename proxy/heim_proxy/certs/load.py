"""Turn a certificate file and a key file into something that can serve, or say what is wrong.

A pair is taken whole or not at all: it must parse, belong together and not be expired. Each good
pair gets a fresh `ssl.SSLContext`; loading a chain into a context that serves would change it
under connections that are just shaking hands.
"""

from __future__ import annotations

import hashlib
import os
import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from heim_config.model import Certificate

__all__ = [
    "CertificateFiles",
    "CertificateProblem",
    "Loaded",
    "digest",
    "load",
    "server_context",
    "stands_for",
]

# A chain of ten certificates takes 20 KiB; a path that points at something huge by mistake must
# not be read into memory once a second.
MAX_FILE_BYTES: Final = 1024 * 1024

# Issuers date certificates from now; clocks of two machines differ by less than this.
CLOCK_SKEW_S: Final = 300.0

# Names that are written out in a message.
_SHOWN: Final = 5

# TLS 1.2 with forward secrecy and AEAD only; the suites of 1.3 are all of that kind.
_CIPHERS_1_2: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a pair comes from, and what it is for. `name` is what logs and metrics call it.

    `hosts` are the only names it is shown for; without any, all that are in it.
    """

    name: str
    cert: Path
    key: Path
    # Two configurations that differ only here mean the same files, and the same last good pair.
    hosts: tuple[str, ...] = field(default=(), compare=False)

    @classmethod
    def pair(cls, cert: Path, key: Path) -> CertificateFiles:
        """Two files, called after the certificate's."""
        return cls(str(cert), cert, key)

    @classmethod
    def directory(cls, path: Path) -> CertificateFiles:
        """A mounted Secret: a directory with tls.crt and tls.key, called after itself."""
        return cls(str(path), path / "tls.crt", path / "tls.key")

    @classmethod
    def secret(cls, name: str, secrets: Path) -> CertificateFiles:
        """A Secret by its name, in the directory where a source puts them; called after it."""
        return cls(name, secrets / name / "tls.crt", secrets / name / "tls.key")

    @classmethod
    def listed(
        cls, certificates: Iterable[Certificate], secrets: Path | None = None
    ) -> list[CertificateFiles]:
        """Those of a configuration (`tls.certificates`).

        Secrets are found in the directory `secrets`; without one they are left out.
        """
        found: list[CertificateFiles] = []
        for one in certificates:
            if one.directory is not None:
                files = cls.directory(one.directory)
            elif one.secret is None:
                files = cls.pair(*one.pair)
            elif secrets is not None:
                files = cls.secret(one.secret, secrets)
            else:
                continue
            found.append(replace(files, hosts=one.hosts) if one.hosts else files)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A pair that can serve.

    `names` are the DNS names in it, lower case, wildcards as ``*.example.com``; `not_after` and
    `loaded_at` are seconds since the epoch; `fingerprint` is the leaf's SHA-256 and `serial` its
    number, in hexadecimal; `content` is the files' digest; `spki` is SHA-256 of the leaf's
    SubjectPublicKeyInfo.
    """

    files: CertificateFiles
    names: tuple[str, ...]
    context: ssl.SSLContext
    not_after: float
    fingerprint: str
    content: bytes
    spki: bytes
    serial: str
    loaded_at: float

    @property
    def shown_for(self) -> tuple[str, ...]:
        """The names it is shown for: of those that it has the ones that are listed, if any are."""
        hosts = self.files.hosts
        return tuple(one for one in hosts if self.covers(one)) if hosts else self.names

    def covers(self, host: str) -> bool:
        """Whether it is for a canonical `host`; a wildcard is covered by itself only."""
        return stands_for(self.names, host)


def stands_for(names: Iterable[str], host: str) -> bool:
    """Whether one of a certificate's `names` is for `host`: wildcards are one label (RFC 6125)."""
    found = frozenset(names)
    label, dot, parent = host.partition(".")
    return host in found or (bool(label and dot) and label != "*" and f"*.{parent}" in found)


class CertificateProblem(Exception):  # noqa: N818 - mostly kept and shown, not raised to fail
    """A pair that cannot serve. `reason` is one sentence for the operator, with the file's name."""

    def __init__(self, files: CertificateFiles, reason: str) -> None:
        super().__init__(reason)
        self.files = files
        self.reason = reason


def server_context() -> ssl.SSLContext:
    """A context with what all our TLS has in common, and no certificate yet.

    TLS 1.2 or later, HTTP/1.1 by ALPN, no compression, no renegotiation. Session tickets are on
    (OpenSSL's default) and early data is off (likewise): 0-RTT can be replayed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS_1_2)
    context.set_alpn_protocols(["http/1.1"])
    return context


def digest(files: CertificateFiles) -> bytes:
    """What tells one content of both files from another.

    Raises:
        CertificateProblem: When one cannot be read.
    """
    return _digest(_read(files, files.cert), _read(files, files.key))


def load(files: CertificateFiles, *, now: float) -> Loaded:
    """Read and check a pair.

    Args:
        files: Where it is.
        now: Seconds since the epoch.

    Raises:
        CertificateProblem: When it cannot serve, or for none of the names it is listed for.
    """
    cert_pem = _read(files, files.cert)
    content = _digest(cert_pem, _read(files, files.key))
    leaf = _leaf(files, cert_pem)
    not_after = _checked_dates(files, leaf, now)
    names = _dns_names(files, leaf)
    if files.hosts and not any(stands_for(names, host) for host in files.hosts):
        reason = f"{files.cert} is for none of the names it is listed for ({_some(files.hosts)})"
        raise CertificateProblem(files, reason)
    context = server_context()
    _load_chain(files, context)
    # OpenSSL read the files by name after us. A key written between is caught as a mismatch, a
    # whole new pair written between is caught here; both are tried again a second later.
    if digest(files) != content:
        raise CertificateProblem(files, f"{files.cert} changed while it was being read")
    fingerprint = leaf.fingerprint(SHA256()).hex()
    return Loaded(
        files,
        names,
        context,
        not_after,
        fingerprint,
        content,
        _spki(leaf),
        f"{leaf.serial_number:x}",
        now,
    )


def _spki(leaf: x509.Certificate) -> bytes:
    public = leaf.public_key()
    return hashlib.sha256(
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


def _digest(cert_pem: bytes, key_pem: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(cert_pem).digest() + key_pem).digest()


def _read(files: CertificateFiles, path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise CertificateProblem(files, f"{path} is not a file")
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise CertificateProblem(files, f"{path} cannot be read: {reason}") from error
    if len(content) > MAX_FILE_BYTES:
        raise CertificateProblem(files, f"{path} is larger than {MAX_FILE_BYTES} bytes")
    return content


def _leaf(files: CertificateFiles, pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except (ValueError, IndexError, x509.InvalidVersion) as error:
        reason = f"{files.cert} holds no readable PEM certificate"
        raise CertificateProblem(files, reason) from error


def _checked_dates(files: CertificateFiles, leaf: x509.Certificate, now: float) -> float:
    not_before = leaf.not_valid_before_utc.timestamp()
    not_after = leaf.not_valid_after_utc.timestamp()
    if not_after <= now:
        raise CertificateProblem(files, f"{files.cert} expired at {_date(not_after)}")
    if not_before > now + CLOCK_SKEW_S:
        raise CertificateProblem(files, f"{files.cert} is not valid before {_date(not_before)}")
    return not_after


def _dns_names(files: CertificateFiles, leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        # Browsers have ignored the common name since 2017; as the default it may still serve.
        return ()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        reason = f"{files.cert} holds extensions that cannot be read"
        raise CertificateProblem(files, reason) from error
    return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def _load_chain(files: CertificateFiles, context: ssl.SSLContext) -> None:
    def no_password() -> str:
        # Without this, OpenSSL asks for one on the terminal and waits.
        raise CertificateProblem(files, f"{files.key} is encrypted; store the key unencrypted")

    try:
        context.load_cert_chain(files.cert, files.key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"{files.key} is not the key of {files.cert}"
        elif error.reason in ("EE_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            reason = f"{files.cert} uses a key or signature that is too weak ({error.reason})"
        else:
            # The certificate parsed before, so it is the key that OpenSSL cannot read.
            reason = f"{files.key} holds no readable PEM private key"
        raise CertificateProblem(files, reason) from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise CertificateProblem(files, f"{files.key} cannot be read: {reason}") from error


def _some(hosts: tuple[str, ...]) -> str:
    return ", ".join((*hosts[:_SHOWN], "…") if len(hosts) > _SHOWN else hosts)


def _date(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
