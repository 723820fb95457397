"""Which certificate answers for a name: asked by OpenSSL in the middle of a handshake.

The listener gets one `ssl.SSLContext` for the life of the process. It holds no certificate: its
SNI callback puts the context of the right pair in its place. Session tickets are sealed with keys
of the listener's own context, so they survive every change of certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from heim_proxy.certs.load import Loaded, server_context

__all__ = ["CertStore", "presented_key", "presented_name"]


@dataclass(frozen=True, slots=True)
class _Table:
    """Names to contexts; immutable, replaced whole."""

    default: ssl.SSLContext | None = None
    exact: dict[str, ssl.SSLContext] = field(default_factory=dict)
    # Keyed by what follows the star's dot: "*.example.com" is under "example.com".
    wildcards: dict[str, ssl.SSLContext] = field(default_factory=dict)


class CertStore:
    """The certificates in force, and the context to give to the listener."""

    __slots__ = ("_table", "context")

    def __init__(self) -> None:
        self._table = _Table()
        self.context = server_context()
        self.context.sni_callback = self._choose

    def install(self, pairs: Sequence[Loaded]) -> None:
        """Put `pairs` in force for handshakes that begin from now on.

        The first is the default, for clients that send no name or an unknown one. Where two pairs
        hold the same name, the earlier has it.

        Raises:
            ValueError: When there are none: nothing could be served.
        """
        if not pairs:
            raise ValueError("a certificate store needs at least one pair")
        table = _Table(default=pairs[0].context)
        for pair in pairs:
            # Where a connection finds it, whatever is in force by then.
            pair.context.heim_spki = pair.spki  # type: ignore[attr-defined]
            for name in pair.names:
                if name.startswith("*."):
                    table.wildcards.setdefault(name[2:], pair.context)
                else:
                    table.exact.setdefault(name, pair.context)
        self._table = table

    def find(self, name: str) -> ssl.SSLContext | None:
        """The context for a canonical name: exact, one-label wildcard, the default.

        None only before the first `install`.
        """
        table = self._table
        found = table.exact.get(name)
        if found is None:
            label, dot, parent = name.partition(".")
            if label and dot:
                found = table.wildcards.get(parent)
        return found or table.default

    def _choose(
        self, connection: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext
    ) -> None:
        name = _canonical(server_name)
        connection.heim_sni = name  # type: ignore[attr-defined]
        chosen = self.find(name)
        # Without any, the handshake fails by itself: the listener's context has no certificate.
        if chosen is not None:
            connection.context = chosen


def presented_name(connection: object) -> str:
    """The canonical name that a client asked for by SNI; "" when it sent none.

    Args:
        connection: The transport's ``ssl_object``; None for plain http.
    """
    name = getattr(connection, "heim_sni", "")
    return name if isinstance(name, str) else ""


def presented_key(connection: object) -> bytes:
    """SHA-256 of the public key (SubjectPublicKeyInfo) that a client was shown; b"" when none was.

    Args:
        connection: The transport's ``ssl_object``; None for plain http.
    """
    spki = getattr(getattr(connection, "context", None), "heim_spki", b"")
    return spki if isinstance(spki, bytes) else b""


def _canonical(server_name: str | None) -> str:
    """SNI is ASCII without a port (RFC 6066, 3); case and one trailing dot do not matter."""
    return "" if server_name is None else server_name.lower().removesuffix(".")
