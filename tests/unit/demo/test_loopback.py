from __future__ import annotations

import socket

import pytest

from heim_proxy.demo.loopback import (
    LoopbackResolver,
    NotLoopbackError,
    free_port,
    listen,
    require_loopback,
)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_address_is_accepted(address: str) -> None:
    require_loopback(address)


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "::", "10.0.0.1", "169.254.1.1", "8.8.8.8", "::ffff:10.0.0.1", "localhost", ""],
)
def test_listening_beyond_this_machine_is_refused(address: str) -> None:
    with pytest.raises(NotLoopbackError, match="loopback only"):
        listen(address)


def test_listening_socket_accepts_connections() -> None:
    with listen() as sock, socket.create_connection(sock.getsockname(), timeout=1):
        pass


def test_wanted_port_is_given_when_it_is_free() -> None:
    with listen() as sock:
        port = sock.getsockname()[1]
    assert free_port(port) == port


def test_another_port_is_given_when_the_wanted_one_is_busy() -> None:
    with listen() as sock:
        port = sock.getsockname()[1]
        assert free_port(port) != port


def test_port_promised_to_another_listener_is_not_given_again() -> None:
    with listen() as sock:
        port = sock.getsockname()[1]
    assert free_port(port, taken=frozenset({port})) != port


@pytest.mark.parametrize("host", ["localhost", "auth.localhost", "a.b.localhost"])
async def test_localhost_names_resolve_to_loopback(host: str) -> None:
    assert [answer["host"] for answer in await LoopbackResolver().resolve(host, 443)] == [
        "127.0.0.1"
    ]


@pytest.mark.parametrize("host", ["example.com", "notlocalhost", "localhost.example.com"])
async def test_no_other_name_is_looked_up(host: str) -> None:
    with pytest.raises(OSError, match="does not look up"):
        await LoopbackResolver().resolve(host, 443)
