"""Which certificates are believed, and what is said about the others.

There is no option to believe them all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext, SSLError

__all__ = ["context", "explain"]


def context(ca_file: str | None, *, bundle: bool = False) -> SSLContext:
    """A client context: TLS ≥ 1.2, names checked, ALPN http/1.1.

    Args:
        ca_file: Authorities to trust instead of the system's; None for the system's.
        bundle: Load the system's bundle as well, 18 ms; without it only the hashed directory is
            looked up, when a certificate arrives.

    Raises:
        Complaint: The file cannot be read or holds no certificate.
    """
    raise NotImplementedError


def explain(error: SSLError | OSError, host: str, ca_file: str | None) -> str:
    """One line on why TLS with a host failed: not trusted by which store, other name, expired…"""
    raise NotImplementedError
