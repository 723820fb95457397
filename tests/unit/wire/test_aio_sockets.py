from __future__ import annotations

import asyncio
import socket

import pytest

from heim_wire.aio.sockets import (
    NOTSENT_BYTES,
    USER_TIMEOUT_MS,
    reset_on_close,
    tune,
    tune_carriage,
)
from tests.fakes.loops import LOOPS, run_on
from tests.unit.wire.passages import tcp_pair

TCP = socket.IPPROTO_TCP


def option(sock: socket.socket, name: str) -> int:
    return sock.getsockopt(TCP, getattr(socket, name))


def test_every_connection_is_prompt_and_notices_a_dead_peer() -> None:
    near, far = tcp_pair()
    with near, far:
        tune(near)
        assert option(near, "TCP_NODELAY")
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert [option(near, f"TCP_KEEP{name}") for name in ("IDLE", "INTVL", "CNT")] == [30, 10, 3]


def test_a_carriage_keeps_little_in_the_kernel_and_waits_20_s_for_an_acknowledgement() -> None:
    near, far = tcp_pair()
    with near, far:
        tune_carriage(near)
        assert option(near, "TCP_NODELAY")
        assert option(near, "TCP_USER_TIMEOUT") == USER_TIMEOUT_MS
        assert near.getsockopt(TCP, 25) == NOTSENT_BYTES


@pytest.mark.parametrize("change", [tune, tune_carriage, reset_on_close], ids=lambda f: f.__name__)
def test_what_has_no_such_options_is_left_alone(change) -> None:  # type: ignore[no-untyped-def]
    change(None)
    near, far = socket.socketpair()
    with near, far:
        change(near)
    change(near)
    closed, other = tcp_pair()
    closed.close()
    other.close()
    change(closed)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_transports_socket_is_good_enough(loop: str) -> None:
    """And a connection that was told so is reset when it is closed."""

    async def scenario() -> None:
        near, far = tcp_pair()
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            asyncio.Protocol, far
        )
        sock = transport.get_extra_info("socket")
        tune_carriage(sock)
        assert sock.getsockopt(TCP, 25) == NOTSENT_BYTES
        reset_on_close(sock)
        transport.abort()
        with near, pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(near, 1)

    run_on(loop, scenario())
