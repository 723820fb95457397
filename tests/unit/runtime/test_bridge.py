from __future__ import annotations

import socket
import time

import pytest

from heim_runtime import bridge
from heim_runtime.complaints import Complaint
from heim_runtime.webproxy import WebProxy
from tests.fakes.certificates import make_pair
from tests.fakes.tunnel_server import Peer, TunnelServer

SIZE = 4 * 1024 * 1024


def bridged(server: TunnelServer, name: str = "localhost") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port))
    proxy = WebProxy("https", name, server.port, "")
    return bridge.open_tls(sock, proxy, str(server.ca_file), time.monotonic() + 5)


def test_bytes_cross_it_both_ways_and_ends_too() -> None:
    def script(peer: Peer) -> None:
        got = b""
        while len(got) < SIZE:
            got += peer.sock.recv(65536)
        peer.sock.sendall(got[::-1])

    data = bytes(range(256)) * (SIZE // 256)
    with TunnelServer(script) as server, bridged(server) as sock:
        sock.settimeout(10)
        sock.sendall(data)
        got = b"".join(iter(lambda: sock.recv(65536), b""))
    assert got == data[::-1]


def test_our_closing_reaches_the_web_proxy() -> None:
    seen: list[bytes] = []

    def script(peer: Peer) -> None:
        seen.extend(iter(lambda: peer.sock.recv(100), b""))

    with TunnelServer(script) as server:
        sock = bridged(server)
        sock.sendall(b"bye")
        sock.close()
    assert seen == [b"bye"]


def test_a_web_proxy_that_is_not_trusted_is_named() -> None:
    with (
        TunnelServer(lambda peer: None, pair=make_pair("other")) as server,
        pytest.raises(Complaint, match="web proxy: the certificate of localhost is for another"),
    ):
        bridged(server)


def test_a_web_proxy_without_tls_is_named() -> None:
    with (
        TunnelServer(lambda peer: None, tls=False) as server,
        pytest.raises(Complaint, match="web proxy"),
    ):
        bridged(server)
