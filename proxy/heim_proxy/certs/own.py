"""The certificate that the proxy makes for itself, for names that nobody gave it one for.

Nobody trusts it. With it a proxy can begin before its first certificate is there, which an ACME
authority gives only to a host that answers already. It is made once and kept beside the state:
who looked at it and went on should not be asked again after a restart.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heim_proxy.certs.load import CertificateFiles, CertificateProblem, Loaded, load

__all__ = ["OWN_FILE", "OWN_NAME", "own_certificate"]

log = logging.getLogger(__name__)

OWN_FILE: Final = "self-signed.pem"
# What logs call it, and what browsers show as its subject.
OWN_NAME: Final = "self-signed"
_SUBJECT: Final = "Heim has no certificate for this name yet"
# Never a name of anybody's (RFC 6761, 6.4).
_DNS_NAME: Final = "self-signed.heim.invalid"

_LIFETIME: Final = timedelta(days=3650)
# A clock that is set right later must not make it one of the future.
_BACKDATED: Final = timedelta(days=30)


def own_certificate(directory: Path, *, now: float) -> Loaded:
    """The one kept in `directory`, made if there is none that can serve. Blocks.

    Where it cannot be kept there is one all the same, another one after a restart.

    Args:
        directory: Where the state is; made with mode 0700 when it is missing.
        now: Seconds since the epoch.

    Raises:
        CertificateProblem: Not even a temporary file could be written and read.
    """
    path = directory / OWN_FILE
    with contextlib.suppress(CertificateProblem):
        return load(_files(path), now=now)
    content = _generate(now)
    try:
        _write(path, content)
        return load(_files(path), now=now)
    except (OSError, CertificateProblem) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        log.warning("cert.self_signed_not_kept", extra={"cert_file": str(path), "reason": reason})
    with tempfile.TemporaryDirectory(prefix="heim-") as name:
        path = Path(name) / OWN_FILE
        try:
            _write(path, content)
        except OSError as error:
            raise CertificateProblem(_files(path), f"{path} cannot be written") from error
        return load(_files(path), now=now)


def _files(path: Path) -> CertificateFiles:
    return CertificateFiles(OWN_NAME, path, path)


def _write(path: Path, content: bytes) -> None:
    """Replace `path` with mode 0600; nobody ever sees half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _generate(now: float) -> bytes:
    """Certificate and key in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _SUBJECT)])
    begin = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin - _BACKDATED)
        .not_valid_after(begin + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(_DNS_NAME)]), critical=False)
        # Whoever trusts it by mistake trusts this key for this name, and nothing else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + private
