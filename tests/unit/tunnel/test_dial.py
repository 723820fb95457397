from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from heim_runtime.complaints import Complaint, UsageError
from heim_tunnel.dial import Endpoint, Way, connect, dial, secure
from tests.fakes.certificates import make_pair
from tests.fakes.tunnel_server import TARGET, Peer, TunnelServer
from tests.unit.tunnel.test_status import store


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("web1", "web1", 443, "web1"),
        ("Web1.Example.COM.", "web1.example.com", 443, "web1.example.com"),
        ("web1:8443", "web1", 8443, "web1:8443"),
        ("web1:443", "web1", 443, "web1"),
        ("[::1]:8443", "::1", 8443, "[::1]:8443"),
        ("[2001:db8::1]", "2001:db8::1", 443, "[2001:db8::1]"),
        ("https://auth.example.com/", "auth.example.com", 443, "auth.example.com"),
        (" web1 ", "web1", 443, "web1"),
    ],
)
def test_an_endpoint_is_read(text: str, host: str, port: int, shown: str) -> None:
    found = Endpoint.parse(text)
    assert (found.host, found.port, str(found)) == (host, port, shown)
    assert Endpoint.parse(found.authority).authority == found.authority


@pytest.mark.parametrize(
    "text",
    [
        "", ":443", "web1:", "web1:x", "web1:0", "web1:65536", "web1:443:1", "http://web1",
        "web1/path", "user@web1", "we b1", "web1\r\nX:", "wéb1", "[::1", "[web1]:1", "::1", "web1?",
        "web1:4434434", "web1:\u0663",
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="LOGIN_HOST: "):
        Endpoint.parse(text, what="LOGIN_HOST")


@pytest.mark.parametrize("text", ["web1:0", "web1:65536", "web1:4434434"])
def test_a_port_that_there_is_not_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="has no port from 1 to 65535"):
        Endpoint.parse(text)


def test_a_web_proxy_that_has_no_address_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(Complaint, match=r"^web proxy http://proxy\.invalid:3128: cannot") as caught:
        connect(Endpoint(TARGET), Way())
    assert caught.value.status == 69


def test_the_environment_names_the_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEIM_CA_FILE", "/ca.pem")
    assert Way.from_environment().ca_file == "/ca.pem"
    monkeypatch.setenv("HEIM_CA_FILE", "")
    assert Way.from_environment().ca_file is None


def test_authorities_of_a_login_hold_where_no_others_are_named(home: Path) -> None:
    named = home / "company.pem"
    named.write_text("-----BEGIN CERTIFICATE-----")
    login = store(ca_file=str(named))
    assert Way().with_authorities(login).ca_file == login.authorities
    for other in (str(named), "/other.pem"):
        way = Way(ca_file=other)
        assert way.with_authorities(login) is way
    # ssh-config wrote the file's name down, and it has moved since.
    named.unlink()
    way = Way(ca_file=str(named)).with_authorities(login)
    assert (way.ca_file, way.ca_remembered) == (login.authorities, str(named))


def test_authorities_that_are_gone_say_what_to_do(home: Path) -> None:
    login = store(ca_file=str(home / "gone.pem"))
    with pytest.raises(Complaint, match=r"remembered for auth\.test is gone \(/.*gone\.pem\); run: "
                       r"heim-tunnel login --ca-file FILE auth\.test"):  # fmt: skip
        Way().with_authorities(login)


def idle(peer: Peer) -> None:
    peer.wait_closed()


def test_the_detour_is_connected_to_and_the_name_verified() -> None:
    with TunnelServer(idle) as server:
        way = Way(ca_file=str(server.ca_file), connect_to=Endpoint("127.0.0.1", server.port))
        link = dial(Endpoint(TARGET), way)
        assert link.protocol == "TLSv1.3"
        link.close()
        names = r"other\.example\.test is for another name \([a-z.*, ]*example\.test[a-z.*, ]*\)"
        with pytest.raises(Complaint, match=names):
            dial(Endpoint("other.example.test"), way)


def test_a_connection_notices_a_dead_peer_and_queues_little() -> None:
    with TunnelServer(idle) as server, connect(Endpoint("127.0.0.1", server.port), Way()) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_socket_whose_peer_is_not_trusted_is_closed() -> None:
    with TunnelServer(idle, pair=make_pair("other.example.test")) as server:
        sock = connect(Endpoint("127.0.0.1", server.port), Way())
        with pytest.raises(Complaint, match="is for another name"):
            secure(sock, TARGET, Way(ca_file=str(server.ca_file)))
        assert sock.fileno() == -1


def test_a_server_that_closes_instead_of_shaking_hands_is_told() -> None:
    with TunnelServer(lambda peer: None, tls=False) as server:
        begin = time.monotonic()
        with pytest.raises(Complaint, match=f"no TLS with {TARGET}: "):
            dial(Endpoint(TARGET), Way(connect_to=Endpoint("127.0.0.1", server.port)))
        assert time.monotonic() - begin < 5
