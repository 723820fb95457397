"""The transport's side of a channel: handshake first, then every byte to the `Channel`.

`Connection` is the protocol of a transport that is, or becomes, the carriage of a session. The
proxy's edge has a protocol of its own and feeds its channels itself.
"""

from __future__ import annotations

import asyncio

from heim_wire.aio.buffers import read_buffer
from heim_wire.aio.channel import Channel
from heim_wire.aio.gate import ReadGate, turn_bytes
from heim_wire.aio.sockets import tune_carriage
from heim_wire.errors import Code
from heim_wire.problem import Refused
from heim_wire.websocket import WebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_wire.aio.channel import Handler
    from heim_wire.handshake import Upgrade
    from heim_wire.session import Session

__all__ = ["Connection", "serve", "upgrade"]

# Reads above this are charged to the turn's budget.
_BULK_BYTES: Final = 16 * 1024
# A reason not to read: the answer is there, the channel is not.
_BETWEEN: Final = 1


class Connection(asyncio.BufferedProtocol):
    """Carries a channel; made by `serve` and `upgrade`.

    Attributes:
        transport: While it is connected.
    """

    __slots__ = ("_answered", "_buffer", "_channel", "_early", "_gate", "_request", "transport")

    def __init__(self) -> None:
        """Wait for `connection_made`; in the loop's own thread."""
        self._buffer = read_buffer()
        self.transport: asyncio.Transport | None = None
        self._gate: ReadGate | None = None
        self._channel: Channel | None = None
        self._request: Upgrade | None = None
        # Read before there is a channel; reading is stopped by then, so this is one read at most.
        self._early = b""
        self._answered: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is ready, TLS included."""
        # uvloop's TLS transports are alike, not subclasses.
        carriage: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport = carriage
        loop = asyncio.get_running_loop()
        self._gate = ReadGate(carriage, loop, turn_bytes(loop))
        tune_carriage(transport.get_extra_info("socket"))

    def carry(self, channel: Channel, early: bytes) -> None:
        """From the next turn of the loop on everything is for `channel`, `early` first.

        Until then its owner can adopt the stream that the bytes may be for.
        """
        self._early = early + self._early
        asyncio.get_running_loop().call_soon(self._begin, channel)

    def _begin(self, channel: Channel) -> None:
        self._channel = channel
        early, self._early = self._early, b""
        if early:
            channel.feed(early)
        if self._gate is not None:
            self._gate.release(_BETWEEN)
        if self.transport is None or self.transport.is_closing():
            # It broke before there was anybody to tell.
            channel.connection_lost(None)

    async def ask(self, request: Upgrade, timeout_s: float) -> bytes:
        """Send `request`; what followed the 101. See `upgrade` for what is raised."""
        assert self.transport is not None
        self._request = request
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request.request)
        request.prepare()
        async with asyncio.timeout(timeout_s):
            return await self._answered

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to read to."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes are in the buffer."""
        # A copy (1 µs for 64 KiB): payloads are views of it, and outlive the next read.
        data = bytes(self._buffer[:nbytes])
        if nbytes > _BULK_BYTES and self._gate is not None:
            self._gate.spend(nbytes)
        if self._channel is not None:
            self._channel.feed(data)
        elif self._answered is not None and not self._answered.done():
            self._answer(data)
        else:
            self._early += data

    def eof_received(self) -> bool:
        """asyncio: the peer will send nothing more."""
        if self._channel is not None:
            self._channel.eof()
        else:
            self._unanswered()
        return False

    def pause_writing(self) -> None:
        """asyncio: the transport is full."""
        if self._channel is not None:
            self._channel.pause_writing()

    def resume_writing(self) -> None:
        """asyncio: the transport takes more."""
        if self._channel is not None:
            self._channel.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self.transport = None
        if self._channel is not None:
            self._channel.connection_lost(exc)
        else:
            self._unanswered()

    def _answer(self, data: bytes) -> None:
        assert self._request is not None
        assert self._answered is not None
        try:
            early = self._request.receive(data)
        except Refused as refused:
            self._answered.set_exception(refused)
            return
        if early is not None:
            # What comes before the channel is there waits in the kernel.
            assert self._gate is not None
            self._gate.hold(_BETWEEN)
            self._answered.set_result(early)

    def _unanswered(self) -> None:
        if self._answered is not None and not self._answered.done():
            assert self._request is not None
            self._answered.set_exception(self._request.eof())


def serve(
    transport: asyncio.Transport,
    session: Session,
    handler: Handler,
    *,
    early: bytes = b"",
    single: bool = False,
    lost: int = Code.PEER_LOST,
) -> Channel:
    """Take over a server's transport right after its 101 was written.

    Sets the transport's protocol and resumes reading. See `Channel` and `Connection` for the rest.

    Args:
        transport: Closed by the channel.
        session: The acceptor's.
        handler: The channel's owner.
        early: What came behind the request's head.
        single: See `Channel`.
        lost: See `Channel`.
    """
    connection = Connection()
    transport.set_protocol(connection)
    connection.connection_made(transport)
    channel = Channel(
        session, WebSocket(client=False), transport, handler, single=single, lost=lost
    )
    connection.carry(channel, early)
    if not transport.is_closing():
        transport.resume_reading()
    return channel


async def upgrade(
    connection: Connection,
    request: Upgrade,
    session: Session,
    handler: Handler,
    *,
    timeout_s: float,
    single: bool = False,
    lost: int = Code.PEER_LOST,
) -> Channel:
    """Turn a fresh client connection into a channel.

    Args:
        connection: Connected; `loop.create_connection(Connection, …)` makes it.
        request: Made for the host that it is connected to.
        session: The initiator's.
        handler: The channel's owner.
        timeout_s: For the answer, in seconds.
        single: See `Channel`.
        lost: See `Channel`.

    Raises:
        Refused: The answer was not 101. The transport is closed.
        TimeoutError: No answer in time. The transport is closed.
    """
    transport = connection.transport
    assert transport is not None
    try:
        early = await connection.ask(request, timeout_s)
    except BaseException:
        transport.abort()
        raise
    channel = Channel(session, WebSocket(client=True), transport, handler, single=single, lost=lost)
    connection.carry(channel, early)
    return channel
