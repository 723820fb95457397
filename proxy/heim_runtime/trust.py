"""Which certificates are believed, and what is said about the others.

There is no option to believe them all.
"""

from __future__ import annotations

import os
import ssl

from heim_runtime.complaints import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

__all__ = ["context", "explain", "load", "other_name", "unknown_issuer"]

# X509_V_ERR_* of OpenSSL (openssl/x509_vfy.h), which are part of its stable interface.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_SELF_SIGNED: Final = (18, 19)
_UNKNOWN_ISSUER: Final = (2, 18, 19, 20, 21)
_OTHER_NAME: Final = (62, 64)

_SHOWN: Final = 5
"""How many names of a wrong certificate are told."""

_ADVICE: Final = "name its authority with --ca-file or HEIM_CA_FILE"

_ALERTS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS (a web proxy or another service on this port?)",
    "HTTP_REQUEST": "it speaks plain HTTP on this port",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection during the handshake",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it offers no TLS 1.2 or newer",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS 1.2 or newer",
    "TLSV1_UNRECOGNIZED_NAME": "it does not know this name",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "it does not speak HTTP/1.1",
    "NO_APPLICATION_PROTOCOL": "it does not speak HTTP/1.1",
}


def context(ca_file: str | None, *, bundle: bool = False) -> ssl.SSLContext:
    """A client context: TLS ≥ 1.2, names checked, ALPN http/1.1.

    Heim itself offers TLS 1.3; 1.2 is for the corporate proxies that open TLS on the way and that
    people cannot change.

    Args:
        ca_file: Authorities to trust instead of the system's; None for the system's.
        bundle: Load the system's bundle as well, 18 ms; without it only the hashed directory is
            looked up, when a certificate arrives.

    Raises:
        UsageError: The file cannot be read or holds no certificate.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    # The server could otherwise make a write wait for a read (TLS 1.2).
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        load(made, ca_file)
        return made
    paths = ssl.get_default_verify_paths()
    # Hundreds of authorities are parsed only if one by one is not possible: a directory is asked
    # for the one name that a certificate wants (openssl rehash), in a millisecond.
    if paths.capath is not None:
        made.load_verify_locations(capath=paths.capath)
    if paths.cafile is not None and (bundle or paths.capath is None):
        load(made, paths.cafile)
    elif paths.capath is None:
        made.load_default_certs()
    return made


def load(made: ssl.SSLContext, ca_file: str) -> None:
    """Have a context trust the authorities in a PEM file, too. Raises UsageError."""
    try:
        made.load_verify_locations(cafile=os.path.expanduser(ca_file))
    except ssl.SSLError as e:
        raise UsageError(f"{ca_file} holds no PEM certificate") from e
    except OSError as e:
        raise UsageError(f"cannot read the CA file {ca_file}: {e.strerror}") from e


def unknown_issuer(error: BaseException) -> bool:
    """Whether a handshake failed because no authority of ours signed the certificate.

    With the system's store looked up by hash that may be a directory without hashes: try again
    with `context(None, bundle=True)`.
    """
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNKNOWN_ISSUER


def other_name(error: BaseException) -> bool:
    """Whether a handshake failed because a trusted certificate is for another name."""
    return isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _OTHER_NAME


def explain(
    error: OSError,
    host: str,
    ca_file: str | None,
    names: Sequence[str] = (),
    *,
    advice: str = _ADVICE,
) -> str:
    """One line on why TLS with a host failed: not trusted by which store, other name, expired.

    Args:
        error: What the handshake raised.
        host: Whose certificate was wanted.
        ca_file: The authorities instead of the system's, if any.
        names: What the certificate is for, if that is known.
        advice: What to do about an issuer that is not known.
    """
    if other_name(error):
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        shown = f" ({', '.join(names[:_SHOWN])}{more})" if names else ""
        return f"the certificate of {host} is for another name{shown}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_certificate(error, host, ca_file, advice)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or type(error).__name__
        text = _ALERTS.get(reason) or reason.lower().replace("_", " ")
        return f"no TLS with {host}: {text}"
    return f"no TLS with {host}: {error.strerror or error}"


def _explain_certificate(
    error: ssl.SSLCertVerificationError, host: str, ca_file: str | None, advice: str
) -> str:
    code = error.verify_code
    if code == _EXPIRED:
        return f"the certificate of {host} has expired (or this machine's clock is wrong)"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet (or this machine's clock is wrong)"
    if code in _UNKNOWN_ISSUER:
        why = "self-signed" if code in _SELF_SIGNED else "its issuer is not known"
        return f"the certificate of {host} is not trusted by {_store(ca_file)}: {why}; {advice}"
    return f"the certificate of {host} is not accepted: {error.verify_message}"


def _store(ca_file: str | None) -> str:
    if ca_file is not None:
        return ca_file
    paths = ssl.get_default_verify_paths()
    return f"the system ({paths.capath or paths.cafile or 'no store found'})"
