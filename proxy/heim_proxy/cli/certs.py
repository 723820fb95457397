"""`heim-proxy certs check`: is what is served for a host what the configuration says?"""

from __future__ import annotations

import argparse
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from heim_config.layers import read_boot
from heim_config.model import Config
from heim_config.problems import ConfigError
from heim_proxy.certs.load import CertificateFiles, CertificateProblem, Loaded, load, stands_for
from heim_proxy.certs.own import OWN_FILE
from heim_proxy.certs.store import CertStore
from heim_proxy.cli.complain import complain
from heim_proxy.target import canonical_host

__all__ = ["check_certificate"]

_DEADLINE_S: Final = 5.0
# Certificates are renewed at two thirds of their lifetime or earlier, so a fifth is never left; of
# one that was made for a year nobody waits to hear until ten weeks are left.
_SOON_SHARE: Final = 0.2
_SOON_S: Final = 7 * 86400.0


def check_certificate(args: argparse.Namespace) -> int:
    """Shake hands, and say what is shown and whether it is right; 1 when it is not."""
    host = canonical_host(args.host.encode("utf-8", "replace"))
    if host is None or ":" in host:
        print(f"heim-proxy certs check: {args.host} is not a host name", file=sys.stderr)
        return 2
    try:
        config = read_boot(Path(args.config)).config
        address = _address(args.connect, config)
    except ConfigError as error:
        return complain(error)
    except ValueError as error:
        print(f"heim-proxy certs check: --connect: {error}", file=sys.stderr)
        return 2
    where = f"{address[0]}:{address[1]}"
    try:
        leaf = x509.load_der_x509_certificate(_served(host, address))
    except (OSError, ValueError) as error:
        print(f"{host}: no certificate from {where}: {_reason(error)}")
        return 1
    print(f"{host}: served by {where}: serial {leaf.serial_number:x}")
    print(f"{host}: sha256 {leaf.fingerprint(SHA256()).hex()}")
    print(f"{host}: for {', '.join(_names(leaf)) or 'no names'}, until {_day(leaf)}")
    now = time.time()
    wrong = [*_wrong(host, leaf, now), *_compared(host, leaf, config, now)]
    for line in wrong:
        print(f"{host}: wrong: {line}")
    if not wrong:
        print(f"{host}: ok")
    return 1 if wrong else 0


def _address(connect: str | None, config: Config) -> tuple[str, int]:
    """Where to shake hands: as asked, or the https listener of this machine."""
    if connect is None:
        listener = config.listeners.https.address
        wildcards = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is bound, not binding
        return wildcards.get(listener.host, listener.host), listener.port
    name, colon, port = connect.rpartition(":")
    if not (colon and name and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{connect} is not HOST:PORT")
    return name.removeprefix("[").removesuffix("]"), int(port)


def _served(host: str, address: tuple[str, int]) -> bytes:
    """The leaf that is shown for `host`, in DER, trusted or not: that is what is to be judged."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(address, timeout=_DEADLINE_S) as sock,
        context.wrap_socket(sock, server_hostname=host) as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def _wrong(host: str, leaf: x509.Certificate, now: float) -> Iterator[str]:
    if leaf.issuer == leaf.subject:
        yield "it is self-signed: the proxy has no certificate for this name, or an unusual one"
    if not stands_for(_names(leaf), host):
        yield f"it is not for {host}"
    left = leaf.not_valid_after_utc.timestamp() - now
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    if left <= 0:
        yield f"it expired on {_day(leaf)}"
    elif left < min(_SOON_S, _SOON_SHARE * lifetime.total_seconds()):
        yield f"it expires soon, on {_day(leaf)}: whatever should renew it does not"
    if leaf.not_valid_before_utc.timestamp() > now:
        yield f"it is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"


def _compared(host: str, leaf: x509.Certificate, config: Config, now: float) -> Iterator[str]:
    """How what is served differs from the files that the configuration names."""
    pairs: list[Loaded] = []
    for files in CertificateFiles.listed(config.tls.certificates):
        try:
            pairs.append(load(files, now=now))
        except CertificateProblem as problem:
            print(f"{host}: note: {problem.reason}")
    if config.source is not None:
        print(f"{host}: note: which one it should be is in the cluster: see /debug/certificates")
        return
    own: Loaded | None = None
    if config.tls.self_signed:
        path = config.state.path.parent / OWN_FILE
        try:
            own = load(CertificateFiles(OWN_FILE, path, path), now=now)
        except CertificateProblem as problem:
            print(f"{host}: note: {problem.reason}")
    if not pairs and own is None:
        yield "no configured certificate can be used"
        return
    store = CertStore()
    store.install(pairs, own=own)
    expected = store.find(host)
    if expected is None:
        yield "no configured certificate is for this name"
    elif expected.fingerprint != leaf.fingerprint(SHA256()).hex():
        yield f"it is not the one in {expected.files.cert} (serial {expected.serial})"
    else:
        print(f"{host}: the same as in {expected.files.cert}")


def _names(leaf: x509.Certificate) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        return []
    # Printed on a terminal, and written by whoever serves.
    names = found.value.get_values_for_type(x509.DNSName)
    return [name.lower() for name in names if name.isascii() and name.isprintable()]


def _day(leaf: x509.Certificate) -> str:
    return datetime.fromtimestamp(leaf.not_valid_after_utc.timestamp(), UTC).strftime(
        "%Y-%m-%d %H:%M UTC"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or 'handshake error'})"
    if isinstance(error, TimeoutError):
        return f"no answer within {_DEADLINE_S:g}s"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "what it shows cannot be read"
