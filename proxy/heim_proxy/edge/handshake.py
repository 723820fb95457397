"""Whether an Upgrade in a request is one to serve, to ignore or to refuse."""

from __future__ import annotations

import re
from typing import Final

from heim_proxy.edge.head import RequestHead
from heim_proxy.edge.responses import Refusal
from heim_proxy.routing import Backend

__all__ = ["check_upgrade"]

# 16 bytes in base64 (RFC 6455, 4.1).
_WEBSOCKET_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{22}==")


def check_upgrade(head: RequestHead, backend: Backend) -> Refusal | None:
    """Drop an Upgrade that the backend does not serve; refuse a malformed one that it does.

    An Upgrade may be ignored (RFC 9110, 7.8): what follows is an ordinary request.
    """
    if head.upgrade not in backend.upgrades or head.version != b"HTTP/1.1":
        head.upgrade = None
        return None
    if head.has_body:
        return Refusal(400, "bad_request", "an upgrade request with a body", close=True)
    if head.upgrade != b"websocket":
        return None
    if head.method != b"GET" or not _WEBSOCKET_KEY.fullmatch(head.get(b"sec-websocket-key") or b""):
        return Refusal(400, "bad_request", "malformed WebSocket handshake (RFC 6455, 4.2.1)")
    if head.get(b"sec-websocket-version") != b"13":
        return Refusal(
            426,
            "websocket_version",
            "only WebSocket version 13 is served",
            headers=("Sec-WebSocket-Version: 13", "Upgrade: websocket", "Connection: Upgrade"),
        )
    return None
