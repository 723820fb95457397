"""Keys that are not there, with what to tell the person who wrote them.

Later keys belong to parts that are not built yet: they are refused instead of accepted and ignored.
Keys are named by their path without list positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from heim_config.problems import Loc

__all__ = ["ABSENT", "Absent", "absent"]


@dataclass(frozen=True, slots=True)
class Absent:
    """Why a key is not there; `instead_of` is a required key whose absence it explains."""

    message: str
    hint: str | None = None
    instead_of: str | None = None


def _later(what: str, instead_of: str | None = None) -> Absent:
    return Absent(f"arrives with {what}; this version does not have it", None, instead_of)


_SECRET: Final = "secrets come from a file or the environment, never from this file"  # noqa: S105

ABSENT: Final[dict[str, Absent]] = {
    "backends.webhooks": _later("webhooks"),
    "listeners.https.acme": Absent(
        "belongs to the plain listener, which is where authorities look",
        "write listeners: {http: {acme: {webroot: ...}}}",
    ),
    "identity.providers.client_secret": Absent(
        _SECRET, "write client_secret_file or client_secret_env"
    ),
    "identity.providers.redirect_uri": Absent(
        "cannot be chosen: it is https://<login_host>/.heim/callback", "set login_host"
    ),
    "session.key": Absent(_SECRET, "write key_file"),
    "assertion.key": Absent(_SECRET, "write key_file"),
    "backends.upstream": Absent(
        "belongs to a route", "write http: [{path: /, upstream: ...}]", "http"
    ),
    "tls.cert_file": Absent("belongs to a certificate", "write certificates: [{cert_file: ...}]"),
    "tls.key_file": Absent("belongs to a certificate", "write certificates: [{key_file: ...}]"),
}


def absent(loc: Loc) -> Absent | None:
    """What is known about the key at `loc`; None when nothing is."""
    return ABSENT.get(".".join(part for part in loc if isinstance(part, str)))
