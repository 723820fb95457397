"""A stream that was asked for, until its agent answered: then a transport or a TLS connection.

`Opening` and `Secured` own their stream from OPEN on (`heim_wire.aio.channel.Owner`), so that
nothing of what comes behind ACCEPT is lost, and pass it on in the very call that brings ACCEPT.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final

from heim_proxy.agents import words
from heim_proxy.edge.dial import AgentDialError, DialError, Layered, dial_reason
from heim_wire.aio.relay import Relay
from heim_wire.aio.transport import StreamReset, StreamTransport
from heim_wire.errors import Code

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from heim_proxy.routing import Endpoint
    from heim_wire.aio.channel import Channel
    from heim_wire.messages import Message
    from heim_wire.stream import Stream

__all__ = ["TLS_CLOSE_S", "Opening", "Secured", "Unanswered"]

TLS_CLOSE_S: Final = 2.0
"""For a target to see the end of TLS and end its side, before its stream is reset."""

_NOBODY: Final = (Code.CONNECTION_RESET, "nobody reads it any more")

# Said to the agent when nobody waits for its answer any more.
_GIVEN_UP: Final = (Code.DIAL_TIMEOUT, "nobody waits for it any more")


class Unanswered(Exception):  # noqa: N818 - what happened
    """A stream was not accepted.

    Attributes:
        code: The agent's; AGENT_LOST when its lane ended.
        reason: The agent's words.
        again: Whether another lane may be asked: nothing was dialled for it.
    """

    def __init__(self, code: int, reason: str, *, again: bool) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.again = again


class Opening:
    """Owns a stream between OPEN and its answer."""

    def __init__(
        self,
        channel: Channel,
        stream: Stream,
        endpoint: Endpoint,
        factory: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        """Become the owner of `stream`, which must have been opened in this turn of the loop."""
        self._channel = channel
        self._stream = stream
        self._endpoint = endpoint
        self._factory = factory
        self._transport: StreamTransport | None = None
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream.context = self

    async def protocol(self) -> asyncio.BaseProtocol:
        """Wait for the answer; the protocol, connected.

        Raises:
            Unanswered: The agent refused, or was lost.
            DialError: It accepted, and that was all.
        """
        try:
            await self._answered
        except asyncio.CancelledError:
            self._give_up()
            raise
        transport = self._transport
        assert transport is not None
        if transport.is_closing():
            # Accepted and ended in one turn: the protocol has heard of its end already.
            raise words.closed_at_once(self._endpoint)
        return transport.get_protocol()

    def _begin(self) -> None:
        """ACCEPT came: from now on the stream is the protocol's."""
        self._transport = StreamTransport(
            self._channel,
            self._stream,
            self._factory(),
            extra={"agent": self._endpoint.host, "target": self._endpoint.target},
            told=self._told,
        )

    def _told(self, code: int, reason: str) -> tuple[int, str]:
        return words.ended(self._endpoint, code, lost=self._channel.over)

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        else:
            self._stream.reset(*_GIVEN_UP)
            self._channel.wake()

    # -- the stream ---------------------------------------------------------------------------

    def accepted(self, message: Message) -> None:
        """See `Owner.accepted`."""
        if self._answered.done():
            return
        try:
            self._begin()
        except Exception as error:  # noqa: BLE001 - a fault of one stream must not end its lane
            self._stream.reset(Code.INTERNAL, "the proxy failed to use this stream")
            self._answered.set_exception(error)
        else:
            self._answered.set_result(None)

    def reset(self, code: int, reason: str) -> None:
        """See `Owner.reset`."""
        if self._answered.done():
            return
        lost = self._channel.over
        again = lost or code == Code.GOING_AWAY
        code = Code.AGENT_LOST if lost else code
        self._answered.set_exception(Unanswered(code, reason, again=again))

    def data(self, payload: bytes | memoryview) -> None:
        """See `Owner.data`: the session lets none through before ACCEPT."""

    def drained(self) -> None:
        """See `Owner.drained`: nothing was sent."""

    def ended(self) -> None:
        """See `Owner.ended`: not before ACCEPT."""

    def finished(self) -> None:
        """See `Owner.finished`: not before ACCEPT."""


class _Leg(Relay):
    """Joins a stream with our end of TLS. TLS has no half-close: nobody reads after its end."""

    def eof_received(self) -> bool:
        """asyncio: TLS was closed or cut; what it sent last has TLS_CLOSE_S to leave."""
        asyncio.get_running_loop().call_later(TLS_CLOSE_S, self.end, *_NOBODY)
        return super().eof_received()


class Secured(Opening):
    """TLS from here to the target, which the agent cannot read.

    Event loops speak TLS over sockets only: a relay joins the stream with one end of a pair.
    """

    def __init__(
        self,
        channel: Channel,
        stream: Stream,
        endpoint: Endpoint,
        factory: Callable[[], asyncio.BaseProtocol],
        context: ssl.SSLContext,
    ) -> None:
        """As `Opening`; `context` verifies the target."""
        super().__init__(channel, stream, endpoint, factory)
        self._context = context
        self._relay = _Leg(self._relay_over)
        self._connected: Layered | None = None
        self._broken: StreamReset | None = None

    async def protocol(self) -> asyncio.BaseProtocol:
        """See `Opening.protocol`."""
        try:
            await self._answered
            protocol = await self._secure()
        except asyncio.CancelledError:
            self._give_up()
            raise
        if isinstance(protocol, Layered):
            self._connected = protocol
            self._pass_on()
        return protocol

    async def _secure(self) -> asyncio.BaseProtocol:
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self._give_up()
            raise DialError(dial_reason(error)) from error
        try:
            for end in (ours, theirs):
                end.setblocking(False)
            await loop.create_unix_connection(lambda: self._relay, sock=theirs)
            # No name is verified with `insecure`, and none is asked for.
            name = (endpoint.tls.server_name if endpoint.tls is not None else None) or ""
            _, protocol = await loop.create_unix_connection(
                self._factory, sock=ours, ssl=self._context, server_hostname=name
            )
        except OSError as error:
            broken = self._broken
            self._give_up()
            ours.close()
            theirs.close()
            if broken is not None:
                raise AgentDialError(broken.code, broken.reason) from error
            raise DialError(f"{endpoint.words}: {dial_reason(error)}") from error
        except asyncio.CancelledError:
            ours.close()
            theirs.close()
            raise
        return protocol

    def _begin(self) -> None:
        self._relay.join(self._channel, self._stream)

    def _give_up(self) -> None:
        if self._stream.context is self._relay:
            self._relay.end(*_GIVEN_UP)
        else:
            super()._give_up()

    def _relay_over(self, relay: Relay, code: int, reason: str) -> None:
        if code:
            self._broken = StreamReset(*words.ended(self._endpoint, code, lost=self._channel.over))
            self._pass_on()

    def _pass_on(self) -> None:
        """TLS takes a cut for an end: the protocol must know better (a body without a length)."""
        if self._broken is not None and self._connected is not None:
            self._connected.broken = self._broken
