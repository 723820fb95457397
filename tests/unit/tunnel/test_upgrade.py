from __future__ import annotations

import socket
import time

import pytest

from heim_runtime import trust
from heim_runtime.complaints import Complaint
from heim_runtime.link import Link
from heim_tunnel.dial import Endpoint
from heim_tunnel.upgrade import upgrade
from heim_wire.problem import Refused
from tests.fakes.tunnel_server import LOGIN_HOST, TARGET, Peer, Script, TunnelServer


def ask(script: Script, **more: object) -> tuple[bytes, dict[str, str]]:
    """Ask for a tunnel: what followed the 101, and the fields that were sent."""
    with TunnelServer(script) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        link = Link(sock, trust.context(str(server.ca_file)), TARGET)
        try:
            link.handshake(time.monotonic() + 5)
            arguments: dict[str, object] = {"token": "tok", "within_s": 5.0, **more}
            early = upgrade(link, Endpoint(TARGET, 8443), **arguments)  # type: ignore[arg-type]
        finally:
            link.close()
        return early, server.peers[0].fields


def accept(peer: Peer) -> None:
    peer.request()
    peer.upgrade(coalesced=b"early", silent=True)


def test_what_follows_the_101_is_given() -> None:
    early, fields = ask(accept)
    assert early.endswith(b"early")
    assert fields["host"] == f"{TARGET}:8443"
    assert fields["authorization"] == "Bearer tok"
    assert "heim-backend" not in fields


def test_on_the_login_host_the_backend_is_named() -> None:
    assert ask(accept, backend="desktop")[1]["heim-backend"] == "desktop"


def test_without_a_token_none_is_sent() -> None:
    assert "authorization" not in ask(accept, token="")[1]


def test_a_refusal_is_raised_with_what_the_proxy_said() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.problem(401, "unauthenticated", "sign in", login_url=f"https://{LOGIN_HOST}")

    with pytest.raises(Refused) as caught:
        ask(script)
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
    assert caught.value.login_url == f"https://{LOGIN_HOST}"


def test_a_proxy_that_closes_is_refused() -> None:
    with pytest.raises(Refused, match="closed the connection without an answer"):
        ask(lambda peer: (peer.request(), None)[1])


def test_a_proxy_that_says_nothing_is_left_at_the_deadline() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.wait_closed()

    with pytest.raises(Complaint, match=f"{TARGET} does not answer within 0 s"):
        ask(script, within_s=0.1)


def test_a_proxy_that_resets_is_told() -> None:
    def script(peer: Peer) -> None:
        peer.request()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    with pytest.raises((Complaint, Refused), match=TARGET):
        ask(script)
