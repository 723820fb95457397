from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import resource
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast

import pytest
import trustme

from heim_proxy.edge.admission import Admission, Limits
from heim_proxy.edge.listener import (
    ACCEPTS_PER_TURN,
    Listener,
    ListenError,
    Network,
    Peer,
    create_sockets,
)
from tests.fakes.loops import LOOPS, run_on

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)
ELSEWHERE: tuple[Network, ...] = (ipaddress.ip_network("192.0.2.0/24"),)
V1 = b"PROXY TCP4 203.0.113.9 10.0.0.1 50000 443\r\n"
V2_MAPPED = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x21"
    + struct.pack("!H", 36)
    + socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.9")
    + bytes(16)
    + struct.pack("!HH", 50000, 443)
)
CA = trustme.CA()
SERVER_CERT = CA.issue_cert("app.example.test")

pytestmark = pytest.mark.parametrize("loop_name", LOOPS)


class Echo(asyncio.Protocol):
    """Answers with who it thinks the peer is, then echoes."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclass.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(f"{self.peer.ip} {self.peer.raw_ip}\n".encode())

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.peer.closed()


@dataclass
class Served:
    listener: Listener
    admission: Admission
    protocols: list[Echo] = field(default_factory=list)

    async def connect(self, tls: bool = False) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = self.listener.address
        name = "app.example.test" if tls else None
        return await asyncio.open_connection(
            host, port, ssl=client_context() if tls else None, server_hostname=name
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(4):
            while not condition():
                await asyncio.sleep(0.005)


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER_CERT.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    CA.configure_trust(context)
    return context


@asynccontextmanager
async def serving(
    *,
    tls: bool = False,
    proxy_from: Sequence[Network] = (),
    limits: Limits | None = None,
    setup_timeout_s: float = 5.0,
    factory: Callable[[Peer], Echo] = Echo,
) -> AsyncIterator[Served]:
    (sock,) = create_sockets("127.0.0.1", 0)
    admission = Admission(limits)
    protocols: list[Echo] = []

    def make(peer: Peer) -> Echo:
        protocols.append(factory(peer))
        return protocols[-1]

    listener = Listener(
        sock,
        name="test",
        factory=make,
        admission=admission,
        ssl_context=server_context() if tls else None,
        proxy_from=proxy_from,
        setup_timeout_s=setup_timeout_s,
    )
    served = Served(listener, admission, protocols)
    listener.start()
    try:
        yield served
    finally:
        listener.close()
        for protocol in protocols:
            if protocol.transport is not None:
                protocol.transport.abort()
        await served.until(lambda: admission.connections == 0)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What still arrives until the server closes, a reset included."""
    async with asyncio.timeout(4):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_connection_reaches_its_protocol_and_gives_its_place_back(
    loop_name: str, tls: bool
) -> None:
    async def scenario() -> None:
        async with serving(tls=tls) as served:
            reader, writer = await served.connect(tls)
            assert await reader.readline() == b"127.0.0.1 127.0.0.1\n"
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            assert (served.admission.connections, served.admission.clients) == (1, 1)
            assert (served.listener.accepted, served.listener.open) == (1, 1)
            transport = served.protocols[0].transport
            assert transport is not None
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            await closed(writer)
            await served.until(lambda: served.listener.open == 0)
            assert served.admission.clients == 0

    run_on(loop_name, scenario())


def test_a_balancer_names_the_client_before_plain_http(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving(proxy_from=LOOPBACK) as served:
            reader, writer = await served.connect()
            writer.write(V1 + b"hello\n")
            assert await reader.readline() == b"203.0.113.9 127.0.0.1\n"
            assert await reader.readline() == b"hello\n"
            assert served.protocols[0].peer.port == 50000
            await closed(writer)

    run_on(loop_name, scenario())


@pytest.mark.parametrize("header", [V1, V2_MAPPED], ids=["v1", "v2-mapped"])
@pytest.mark.parametrize("piece", [1, 7, 1000], ids=["bytewise", "pieces", "one-segment"])
def test_a_balancer_names_the_client_before_tls(loop_name: str, header: bytes, piece: int) -> None:
    async def scenario() -> None:
        async with serving(tls=True, proxy_from=LOOPBACK) as served:
            loop = asyncio.get_running_loop()
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = client_context().wrap_bio(incoming, outgoing, server_hostname="app.example.test")
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            # The header and the ClientHello run into each other wherever the pieces end.
            stream = header + outgoing.read()
            with socket.create_connection(served.listener.address) as sock:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for start in range(0, min(len(stream), 80), piece):
                    await loop.sock_sendall(sock, stream[start : min(start + piece, 80)])
                    await asyncio.sleep(0)
                await loop.sock_sendall(sock, stream[80:])
                while True:
                    incoming.write(await loop.sock_recv(sock, 65536))
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        continue
                await loop.sock_sendall(sock, outgoing.read())
                answer = b""
                while not answer:
                    try:
                        answer = tls.read(100)
                    except ssl.SSLWantReadError:
                        incoming.write(await loop.sock_recv(sock, 65536))
            assert answer == b"203.0.113.9 127.0.0.1\n"

    run_on(loop_name, scenario())


def test_a_balancer_that_speaks_for_itself_is_the_peer(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving(proxy_from=LOOPBACK) as served:
            reader, writer = await served.connect()
            writer.write(b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00")
            assert await reader.readline() == b"127.0.0.1 127.0.0.1\n"
            await closed(writer)

    run_on(loop_name, scenario())


NO_HEADER = {
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "garbage": b"PROXY TCP4 nonsense\r\n",
    "closed-early": b"",
    "closed-in-the-middle": V1[:10],
}


@pytest.mark.parametrize("sent", NO_HEADER.values(), ids=NO_HEADER)
def test_without_a_header_a_balancer_is_turned_away(loop_name: str, sent: bytes) -> None:
    """security.md E8."""

    async def scenario() -> None:
        async with serving(proxy_from=LOOPBACK) as served:
            reader, writer = await served.connect()
            writer.write(sent)
            if not sent.endswith(b"\n"):
                writer.write_eof()
            assert await rest(reader) == b""
            await closed(writer)
            await served.until(lambda: served.admission.connections == 0)
            assert served.protocols == []
            assert served.admission.refused.read() == {"proxy_header": 1}

    run_on(loop_name, scenario())


def test_a_balancer_that_says_nothing_is_closed_at_the_deadline(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving(proxy_from=LOOPBACK, setup_timeout_s=0.2) as served:
            reader, writer = await served.connect()
            assert await rest(reader) == b""
            await closed(writer)
            assert served.admission.refused.read() == {"proxy_header": 1}

    run_on(loop_name, scenario())


def test_nobody_else_may_name_a_client(loop_name: str) -> None:
    """security.md E8."""

    async def scenario() -> None:
        async with serving(proxy_from=ELSEWHERE) as served:
            reader, writer = await served.connect()
            writer.write(V1)
            assert await reader.readline() == b"127.0.0.1 127.0.0.1\n"
            assert await reader.readline() == V1
            await closed(writer)

    run_on(loop_name, scenario())


def test_stalled_handshakes_delay_nobody_and_end_at_their_deadline(loop_name: str) -> None:
    """security.md O9. The standard loop takes a quarter of a megabyte for each, hence fewer."""
    stalled = 1000 if loop_name == "uvloop" else 200

    async def scenario() -> None:
        async with serving(tls=True, setup_timeout_s=2.0) as served:
            loop = asyncio.get_running_loop()
            idle = [socket.create_connection(served.listener.address) for _ in range(stalled)]
            try:
                await served.until(lambda: served.admission.connections == stalled)
                started = loop.time()
                reader, writer = await served.connect(tls=True)
                assert await reader.readline() == b"127.0.0.1 127.0.0.1\n"
                assert loop.time() - started < 1.0
                await served.until(lambda: served.admission.connections == 1)
                assert served.admission.handshake_failures.read() == {"timeout": stalled}
                await closed(writer)
            finally:
                for sock in idle:
                    sock.close()

    run_on(loop_name, scenario())


def test_failed_handshakes_leave_nothing_open(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving(tls=True) as served:
            before = 0
            for number in range(21):
                reader, writer = await served.connect()
                if number % 2:
                    writer.write(b"GET / HTTP/1.1\r\n\r\n")
                    await rest(reader)
                await closed(writer)
                await served.until(lambda: served.admission.connections == 0)
                # The loops open descriptors of their own for their first connection.
                before = before or len(os.listdir("/proc/self/fd"))
            await served.until(lambda: len(os.listdir("/proc/self/fd")) <= before)
            failures = served.admission.handshake_failures.read()
            assert sum(failures.values()) == 21
            assert failures["tls"] == 10
            assert served.admission.clients == 0

    run_on(loop_name, scenario())


def test_above_the_limit_connections_are_closed_until_a_place_is_free(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving(limits=Limits(connections=1)) as served:
            reader, writer = await served.connect()
            await reader.readline()
            late_reader, late_writer = await served.connect()
            assert await rest(late_reader) == b""
            await closed(late_writer)
            await closed(writer)
            await served.until(lambda: served.admission.connections == 0)
            reader, writer = await served.connect()
            assert await reader.readline() == b"127.0.0.1 127.0.0.1\n"
            await closed(writer)
            assert served.admission.refused.read() == {"total_limit": 1}

    run_on(loop_name, scenario())


def test_behind_a_balancer_the_client_limit_is_the_clients(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving(proxy_from=LOOPBACK, limits=Limits(per_client=1)) as served:
            answers, writers = [], []
            for client in (b"203.0.113.9", b"203.0.113.10", b"203.0.113.9"):
                reader, writer = await served.connect()
                writer.write(V1.replace(b"203.0.113.9", client))
                answers.append(await reader.readline())
                writers.append(writer)
            assert answers == [b"203.0.113.9 127.0.0.1\n", b"203.0.113.10 127.0.0.1\n", b""]
            for writer in writers:
                await closed(writer)

    run_on(loop_name, scenario())


def test_without_descriptors_it_waits_says_so_and_goes_on(
    loop_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with serving() as served:
            loop = asyncio.get_running_loop()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with socket.socket() as sock:
                sock.setblocking(False)
                highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
                filler = [os.dup(0) for _ in range(highest + 8 - len(os.listdir("/proc/self/fd")))]
                try:
                    top = max(int(fd) for fd in os.listdir("/proc/self/fd"))
                    resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
                    await loop.sock_connect(sock, served.listener.address)
                    await served.until(lambda: "listener.accept_failed" in caplog.messages)
                    assert served.listener.accepted == 0
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                    for fd in filler:
                        os.close(fd)
                async with asyncio.timeout(4):
                    assert await loop.sock_recv(sock, 100) == b"127.0.0.1 127.0.0.1\n"
            assert caplog.messages.count("listener.accept_failed") == 1

    with caplog.at_level(logging.WARNING):
        run_on(loop_name, scenario())


def test_closing_refuses_new_connections_and_keeps_those_it_has(loop_name: str) -> None:
    async def scenario() -> None:
        async with serving() as served:
            reader, writer = await served.connect()
            await reader.readline()
            address = served.listener.address
            served.listener.close()
            served.listener.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*address)
            writer.write(b"still here\n")
            assert await reader.readline() == b"still here\n"
            await closed(writer)

    run_on(loop_name, scenario())


def test_a_protocol_that_cannot_be_made_costs_its_connection_only(loop_name: str) -> None:
    def broken(peer: Peer) -> Echo:
        raise LookupError(peer.ip)

    async def scenario() -> None:
        async with serving(factory=broken) as served:
            reader, writer = await served.connect()
            assert await rest(reader) == b""
            await closed(writer)
            await served.until(lambda: served.admission.connections == 0)
            assert served.admission.clients == 0

    run_on(loop_name, scenario())


def test_on_a_dual_stack_socket_ipv4_is_ipv4(loop_name: str) -> None:
    """security.md E11."""

    async def scenario() -> None:
        try:
            (sock,) = create_sockets("[::]", 0)
        except ListenError as error:
            pytest.skip(f"no IPv6 on this machine: {error}")
        admission, peers = Admission(), []

        def factory(peer: Peer) -> Echo:
            peers.append(peer)
            return Echo(peer)

        listener = Listener(sock, name="dual", factory=factory, admission=admission)
        listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.address[1])
        assert await reader.readline() == b"127.0.0.1 127.0.0.1\n"
        assert repr(peers[0]).startswith("<Peer 127.0.0.1:")
        listener.close()
        await closed(writer)
        async with asyncio.timeout(4):
            while admission.connections:
                await asyncio.sleep(0.005)

    run_on(loop_name, scenario())


def test_who_waits_is_let_in_a_few_at_a_time(loop_name: str) -> None:
    """What was let in goes on in between: a crowd gets through its handshakes, not into them."""

    async def scenario() -> None:
        (sock,) = create_sockets("127.0.0.1", 0)
        waiting = [socket.create_connection(sock.getsockname()) for _ in range(40)]
        listener = Listener(sock, name="crowd", factory=Echo, admission=Admission())
        listener.start()
        steps, before = [], 0
        async with asyncio.timeout(4):
            while listener.open < len(waiting):
                await asyncio.sleep(0)
                steps.append(listener.accepted - before)
                before = listener.accepted
        assert max(steps) <= ACCEPTS_PER_TURN
        listener.close()
        for client in waiting:
            client.close()
        async with asyncio.timeout(4):
            while listener.open:
                await asyncio.sleep(0.005)

    run_on(loop_name, scenario())


def test_an_address_that_is_taken_is_named(loop_name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            create_sockets("127.0.0.1", port)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "another program" in str(caught.value)


def test_an_address_of_another_machine_is_named(loop_name: str) -> None:
    with pytest.raises(ListenError) as caught:
        create_sockets("192.0.2.1", 0)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EADDRNOTAVAIL
    assert "192.0.2.1:0" in str(caught.value)
