"""What every configuration of a measured proxy has: listeners, certificate, provider, state."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

__all__ = ["ISSUER", "frame"]

ISSUER: Final = "http://127.0.0.1:1"
"""An identity provider that nobody asks: sessions are made in the store."""


def frame(
    certificates: Path, room: Path, *, domain: str, https: str, http: str | None = None
) -> dict[str, Any]:
    """A configuration without backends; writes the client secret that it names.

    Args:
        certificates: The directory of tls.crt and tls.key.
        room: Where the proxy keeps its state and its admin socket.
        domain: Of the backends.
        https: Where it listens, as host and port.
        http: The same for plain http; None for not at all.
    """
    secret = room / "client-secret"
    secret.write_text("not-a-secret")
    certificate = {
        "cert_file": str(certificates / "tls.crt"),
        "key_file": str(certificates / "tls.key"),
    }
    provider = {
        "name": "test",
        "type": "oidc",
        "issuer": ISSUER,
        "client_id": "heim",
        "client_secret_file": str(secret),
    }
    return {
        "version": 1,
        "domain": domain,
        "listeners": {
            "https": {"address": https},
            "http": None if http is None else {"address": http},
            "admin": {"address": f"unix:{room / 'admin.sock'}"},
        },
        "tls": {"certificates": [certificate]},
        "identity": {"providers": [provider]},
        "state": {"url": f"sqlite://{room / 'state' / 'state.db'}"},
    }
