from __future__ import annotations

import pytest

from heim_proxy.edge.handshake import check_upgrade
from heim_proxy.routing import Backend
from tests.unit.edge.heads import parsed

BACKEND = Backend("app", upgrades=frozenset((b"websocket", b"x-proto")))
WEBSOCKET = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(WEBSOCKET, id="websocket"),
        pytest.param(("Connection: Upgrade", "Upgrade: X-Proto"), id="another protocol"),
    ],
)
def test_what_the_backend_serves_passes(headers: tuple[str, ...]) -> None:
    head = parsed(headers=headers)
    assert check_upgrade(head, BACKEND) is None
    assert head.upgrade is not None


def test_what_it_does_not_serve_is_an_ordinary_request() -> None:
    for head in (
        parsed(headers=("Connection: Upgrade", "Upgrade: h2c")),
        parsed(headers=WEBSOCKET, version="HTTP/1.0"),
    ):
        assert check_upgrade(head, BACKEND) is None
        assert head.upgrade is None


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        pytest.param("GET", (*WEBSOCKET, "Content-Length: 3"), 400, id="body"),
        pytest.param("POST", WEBSOCKET, 400, id="method"),
        pytest.param("GET", WEBSOCKET[:2] + WEBSOCKET[3:], 400, id="no key"),
        pytest.param("GET", WEBSOCKET[:3], 426, id="no version"),
    ],
)
def test_a_malformed_websocket_handshake_is_refused(
    method: str, headers: tuple[str, ...], status: int
) -> None:
    refused = check_upgrade(parsed(method=method, headers=headers), BACKEND)
    assert refused is not None
    assert refused.status == status
