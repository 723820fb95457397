"""A passage: local socket, relay, channel, channel, relay, local socket; all of them real.

`near` is the socket of whoever connects, `far` that of the service. What the two channels say to
their owners is kept by a `Watcher` each.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from heim_wire.aio.channel import Channel
from heim_wire.aio.connection import Connection
from heim_wire.aio.relay import Relay
from heim_wire.events import Event, Opened
from heim_wire.session import Session
from heim_wire.stream import Stream
from heim_wire.websocket import WebSocket
from tests.fakes.certificates import CA_PEM, make_pair
from tests.fakes.waiting import until

__all__ = [
    "End", "Passage", "Watcher", "carriage", "carried", "client_context", "drain",
    "keep_small",
    "passage", "reset", "server_context", "sessions", "tcp_pair",
]  # fmt: skip


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection, neither blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for end in (ours, theirs):
        end.setblocking(False)
    return ours, theirs


def keep_small(sock: socket.socket, relay: Relay) -> None:
    """Let the kernel keep little between `relay` and its other end, `sock`.

    Else it takes megabytes, makes its buffers larger meanwhile, and we our window.
    """
    assert relay._transport is not None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    local = relay._transport.get_extra_info("socket")
    local.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def drain(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    loop = asyncio.get_running_loop()
    pieces = []
    while piece := await loop.sock_recv(sock, 1 << 18):
        pieces.append(piece)
    return b"".join(pieces)


def server_context() -> ssl.SSLContext:
    """For a server called localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        make_pair("localhost").write(Path(folder))
        context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
    return context


def client_context() -> ssl.SSLContext:
    """Trusts `server_context`."""
    context = ssl.create_default_context(cadata=CA_PEM)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
    return context


@dataclass
class Watcher:
    """A channel's owner that remembers what it was told."""

    opened: Callable[[Channel, Opened], None] | None = None
    events: list[Event] = field(default_factory=list)
    ends: list[tuple[int, str]] = field(default_factory=list)

    def event(self, channel: Channel, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Opened) and self.opened is not None:
            self.opened(channel, event)

    def closed(self, channel: Channel, code: int, reason: str) -> None:
        self.ends.append((code, reason))


@dataclass
class End:
    """One end of a carriage."""

    watcher: Watcher
    connection: Connection
    channel: Channel


def sessions() -> tuple[Session, Session]:
    now = time.monotonic()
    return Session(initiator=True, now=now), Session(initiator=False, now=now)


def carried(connection: Connection, session: Session, *, client: bool, single: bool) -> End:
    """Put `session` on a connection whose handshake is left out."""
    assert connection.transport is not None
    watcher = Watcher()
    channel = Channel(
        session, WebSocket(client=client), connection.transport, watcher, single=single
    )
    connection.carry(channel, b"")
    return End(watcher, connection, channel)


@asynccontextmanager
async def carriage(*, single: bool = True, tls: bool = False) -> AsyncIterator[tuple[End, End]]:
    """A client's and a server's channel, connected."""
    loop = asyncio.get_running_loop()
    accepted: list[Connection] = []

    def accept() -> Connection:
        accepted.append(Connection())
        return accepted[-1]

    listener = await loop.create_server(
        accept, "127.0.0.1", 0, ssl=server_context() if tls else None
    )
    _, connection = await loop.create_connection(
        Connection,
        *listener.sockets[0].getsockname(),
        ssl=client_context() if tls else None,
        server_hostname="localhost" if tls else None,
    )
    await until(lambda: accepted and accepted[0].transport is not None)
    ours, theirs = sessions()
    near = carried(connection, ours, client=True, single=single)
    far = carried(accepted[0], theirs, client=False, single=single)
    listener.close()
    try:
        yield near, far
    finally:
        for end in (near, far):
            end.channel.abort()
        await until(lambda: near.connection.transport is far.connection.transport is None)


@dataclass
class Passage:
    """One stream from end to end."""

    near: socket.socket
    far: socket.socket
    near_relay: Relay
    far_relay: Relay
    near_stream: Stream
    far_stream: Stream
    # What the relays told when they were over.
    near_over: list[tuple[int, str]]
    far_over: list[tuple[int, str]]

    async def over(self) -> tuple[int, int]:
        """The codes with which the two relays ended."""
        await until(lambda: self.near_over and self.far_over)
        assert len(self.near_over) == len(self.far_over) == 1
        return self.near_over[0][0], self.far_over[0][0]


@asynccontextmanager
async def passage(near: End, far: End, *, adopt: bool = True) -> AsyncIterator[Passage]:
    """A stream over a carriage: stream 1 of both ends, or opened by the near one."""
    near_over: list[tuple[int, str]] = []
    far_over: list[tuple[int, str]] = []
    near_relay = Relay(lambda relay, code, reason: near_over.append((code, reason)))
    far_relay = Relay(lambda relay, code, reason: far_over.append((code, reason)))
    near_sock, near_local = tcp_pair()
    far_sock, far_local = tcp_pair()
    loop = asyncio.get_running_loop()
    await loop.connect_accepted_socket(lambda: near_relay, near_local)
    await loop.connect_accepted_socket(lambda: far_relay, far_local)
    if adopt:
        near_stream, far_stream = near.channel.session.adopt(), far.channel.session.adopt()
    else:
        offered: list[Stream] = []
        far.watcher.opened = lambda channel, event: offered.append(event.stream)
        near_stream = near.channel.session.open({"service": "echo"})
        near.channel.wake()
        await until(lambda: offered)
        far_stream = offered[0]
    far_relay.join(far.channel, far_stream)
    near_relay.join(near.channel, near_stream)
    try:
        yield Passage(
            near_sock, far_sock, near_relay, far_relay, near_stream, far_stream, near_over, far_over
        )
    finally:
        near_sock.close()
        far_sock.close()
        near_relay.end(18, "the test is over")
        far_relay.end(18, "the test is over")
