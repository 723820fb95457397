"""What most integration tests configure: one protected backend, one public, and alice."""

from __future__ import annotations

import ssl
from typing import Any

from websockets.asyncio.client import connect

from tests.fakes.heim import DOMAIN, Heim, authority

__all__ = ["APP", "OPEN", "alice_only", "app_backend", "public_backend", "trust", "websocket"]

APP = f"app.{DOMAIN}"
OPEN = f"open.{DOMAIN}"


def alice_only() -> list[dict[str, Any]]:
    """Roles by which alice may do everything on `app`, and nobody else anything."""
    return [
        {
            "name": "users",
            "members": [{"user": "alice@example.com"}],
            "bindings": [{"backend": "app", "permission": "all"}],
        }
    ]


def app_backend(upstream: str, **more: Any) -> dict[str, Any]:
    """The backend `app`, whose permission `all` covers everything."""
    return {
        "name": "app",
        "http": [{"path": "/", "upstream": upstream}],
        "permissions": [{"name": "all", "locations": [{"any": "/"}]}],
        **more,
    }


def public_backend(upstream: str, **more: Any) -> dict[str, Any]:
    """The backend `open`, which needs no login."""
    return {
        "name": "open",
        "public": True,
        "http": [{"path": "/", "upstream": upstream}],
        **more,
    }


def trust() -> ssl.SSLContext:
    """A client's context that trusts the tests' authority."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context


def websocket(heim: Heim, cookie: str, path: str = "/ws", **options: Any) -> connect:
    """A WebSocket to the backend `app`, by a client that we did not write."""
    return connect(
        f"wss://{APP}{path}",
        host="127.0.0.1",
        port=heim.https_port,
        ssl=trust(),
        # Browsers always send it, and Heim refuses a handshake without.
        origin=options.pop("origin", f"https://{APP}"),
        additional_headers={"Cookie": cookie, **options.pop("additional_headers", {})},
        proxy=None,
        **options,
    )
