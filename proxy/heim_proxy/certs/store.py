"""Which certificate answers for a name: asked by OpenSSL in the middle of a handshake.

The listener gets one `ssl.SSLContext` for the life of the process. It holds no certificate: its
SNI callback puts the context of the right pair in its place. Session tickets are sealed with keys
of the listener's own context, so they survive every change of certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from heim_proxy.certs.load import Loaded, server_context

__all__ = ["CertStore", "presented_key"]


@dataclass(frozen=True, slots=True)
class _Table:
    """Names to pairs; immutable, replaced whole."""

    # For clients that send no name, and for names that nothing fits.
    nameless: Loaded | None = None
    fallback: Loaded | None = None
    exact: dict[str, Loaded] = field(default_factory=dict)
    # Keyed by what follows the star's dot: "*.example.com" is under "example.com".
    wildcards: dict[str, Loaded] = field(default_factory=dict)


class CertStore:
    """The certificates in force, and the context to give to the listener."""

    __slots__ = ("_table", "context")

    def __init__(self) -> None:
        self._table = _Table()
        self.context = server_context()
        self.context.sni_callback = self._choose

    def install(self, pairs: Sequence[Loaded], *, own: Loaded | None = None) -> None:
        """Put `pairs` in force for handshakes that begin from now on.

        One that lists a name has it before those that merely hold it, and is never shown for
        another; otherwise the earlier has it. Where nothing fits, `own` is shown, or without one
        the first pair that lists nothing. That one is also for clients that send no name.

        Args:
            pairs: The configured ones that can serve.
            own: The one that the proxy made for itself.

        Raises:
            ValueError: When there are none: nothing could be served.
        """
        if not pairs and own is None:
            raise ValueError("a certificate store needs at least one pair")
        # A pair that lists names may hold others, which somebody else wrote into it.
        default = next((pair for pair in pairs if not pair.files.hosts), own)
        table = _Table(default, default if own is None else own)
        known = pairs if own is None else (*pairs, own)
        for pair in known:
            # Where a connection finds it, whatever is in force by then.
            pair.context.heim_spki = pair.spki  # type: ignore[attr-defined]
        for pair in sorted(pairs, key=lambda one: not one.files.hosts):
            for name in pair.shown_for:
                if name.startswith("*."):
                    table.wildcards.setdefault(name[2:], pair)
                else:
                    table.exact.setdefault(name, pair)
        self._table = table

    def find(self, name: str) -> Loaded | None:
        """The pair for a canonical name: exact, one-label wildcard, what there is for all others.

        None before the first `install`, and where every pair lists names and none lists this one.
        """
        table = self._table
        if not name:
            return table.nameless
        found = table.exact.get(name)
        if found is None:
            label, dot, parent = name.partition(".")
            if label and dot:
                found = table.wildcards.get(parent)
        return found or table.fallback

    def names(self) -> Mapping[str, Loaded]:
        """Every name that a configured pair is shown for, wildcards as ``*.example.com``."""
        table = self._table
        return {**table.exact, **{f"*.{parent}": pair for parent, pair in table.wildcards.items()}}

    def _choose(
        self, connection: ssl.SSLObject, server_name: str | None, _: ssl.SSLContext
    ) -> int | None:
        name = _canonical(server_name)
        connection.heim_sni = name  # type: ignore[attr-defined]
        chosen = self.find(name)
        if chosen is None:
            # Better none than a stranger's (RFC 6066, 3).
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = chosen.context
        return None


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
