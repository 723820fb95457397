"""One connection to an upstream: reads answers, strictly, and relays them as they arrive.

Between exchanges it waits in its pool with `exchange` None; any byte that arrives then was not
asked for and ends the connection, so that no answer can reach the wrong person.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from heim_proxy.edge.answer import AnswerHead, BadAnswer
from heim_proxy.edge.body import BadChunk, ChunkRelay, chunk
from heim_proxy.edge.limits import INTERIM_RESPONSES, JOINED_BYTES, RESPONSE_HEADER_BYTES
from heim_proxy.edge.readgate import Hold, ReadGate

if TYPE_CHECKING:
    from heim_proxy.edge.exchange import Exchange
    from heim_proxy.edge.pool import Pool

__all__ = ["Framing", "Upstream"]

_COOKIES: Final = frozenset((b"set-cookie",))
# Reads above this are charged to the turn's budget; smaller ones cannot starve anybody.
_BULK_BYTES: Final = 16 * 1024


class Framing:
    """Where the body of an answer ends (RFC 9112, 6.3). Plain integers, as in `names`."""

    NONE: Final = 0
    LENGTH: Final = 1
    CHUNKED: Final = 2
    UNTIL_CLOSE: Final = 3


class Upstream(asyncio.Protocol):
    """A connection of a pool. Created by the pool's dialer, owned by one exchange at a time."""

    __slots__ = (
        "_answer",
        "_buffer",
        "_interim",
        "_loop",
        "_relay",
        "_remaining",
        "_transport",
        "_waiting",
        "alive",
        "broken",
        "exchange",
        "framing",
        "gate",
        "idle_since",
        "keep",
        "pool",
        "switched",
        "used",
        "write",
    )

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self._loop = loop
        self._answer = AnswerHead()
        self.alive = True
        # Why what is below its TLS broke (`edge.dial.Layered`): TLS takes a cut for an end.
        self.broken: Exception | None = None
        # Whether it has waited in its pool: only then can it have gone stale.
        self.used = False
        self.idle_since = 0.0
        self.switched = False
        self.start(None)

    def start(self, exchange: Exchange | None) -> None:
        """Begin reading an answer for `exchange`; None while waiting in the pool."""
        self.exchange: Exchange | None = exchange
        self._buffer = b""
        self._interim = 0
        self._waiting = True
        self._relay: ChunkRelay | None = None
        self._remaining = 0
        self.framing: int = Framing.NONE
        self.keep = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is ready."""
        # uvloop's TLS transports are no subclass of asyncio.Transport, only alike.
        self._transport = transport = cast("asyncio.Transport", transport)
        self.write = transport.write
        self.gate = ReadGate(transport, self._loop)

    def send(self, data: bytes) -> None:
        """Write, unless the connection is already on its way out."""
        if not self._transport.is_closing():
            self.write(data)

    def close(self) -> None:
        """Close after what was written has been sent; no exchange hears of it."""
        self.exchange = None
        self.alive = False
        self._transport.close()

    def abort(self) -> None:
        """Close now, dropping what was not sent; no exchange hears of it."""
        self.exchange = None
        self.alive = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the upstream."""
        exchange = self.exchange
        if exchange is None:
            # Nothing was asked for: whatever this is, it must not become somebody's answer.
            self.pool.forget(self)
            self.abort()
            return
        if exchange.front.transport.is_closing():
            # Its connection_lost is on the way and will end this exchange.
            return
        if len(data) > _BULK_BYTES:
            self.gate.spend(len(data))
        exchange.front.active = True
        try:
            if self.switched:
                exchange.tunnel_down(data)
            elif self._waiting:
                self._head(exchange, self._buffer + data if self._buffer else data)
            else:
                self._body(exchange, data)
        except BadAnswer as error:
            exchange.bad_answer(str(error))
        except BadChunk as error:
            exchange.bad_answer(f"malformed chunk ({error})")

    def _head(self, exchange: Exchange, data: bytes) -> None:
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                if len(data) > RESPONSE_HEADER_BYTES:
                    raise BadAnswer("answer head is too long")
                self._buffer = data
                return
            if end > RESPONSE_HEADER_BYTES:
                raise BadAnswer("answer head is too long")
            answer = self._answer
            answer.parse(
                data[:end],
                drop_cors=exchange.backend.cors is not None,
                protect_cookies=not exchange.to_portal,
            )
            if exchange.backend.challenge:
                answer.drop(_COOKIES)
            if answer.status >= 200:
                break
            if answer.status == 101:
                exchange.switch(answer, data[end:])
                return
            self._interim += 1
            if self._interim > INTERIM_RESPONSES:
                raise BadAnswer("too many interim answers")
            exchange.interim(answer)
            data = data[end:]
        self._buffer = b""
        self._waiting = False
        self.keep = answer.keep_alive
        status = answer.status
        length = answer.length
        if length < 0 or status == 304 or status == 204 or exchange.head_only:
            self.framing = self._other_framing(exchange, answer)
            rest, complete = self._take(exchange, data[end:])
            exchange.answer(answer, self.framing, rest, complete=complete)
            return
        self.framing = Framing.LENGTH
        size = len(data) - end
        self._remaining = remaining = length - size
        if remaining < 0:
            # Bytes after the answer: this connection is out of step.
            self.keep = False
            data = data[: end + length]
        # A big first part is passed on where it lies: copies were a tenth of a 64 KiB answer.
        body = data[end:] if size <= JOINED_BYTES else memoryview(data)[end:]
        exchange.answer(answer, Framing.LENGTH, body, complete=remaining <= 0)

    def _other_framing(self, exchange: Exchange, answer: AnswerHead) -> int:
        status = answer.status
        if status == 204 and (answer.length > 0 or answer.chunked):
            raise BadAnswer("204 with a body")
        if status == 204 or status == 304 or exchange.head_only:
            return Framing.NONE
        if answer.chunked:
            self._relay = ChunkRelay(keep=exchange.http11)
            return Framing.CHUNKED
        self.keep = False
        return Framing.UNTIL_CLOSE

    def _body(self, exchange: Exchange, data: bytes) -> None:
        body, complete = self._take(exchange, data)
        if body:
            exchange.body_down(body)
        if complete:
            exchange.answered(monotonic())

    def _take(self, exchange: Exchange, data: bytes) -> tuple[bytes, bool]:
        """What of `data` goes to the client, and whether the body is complete with it."""
        framing = self.framing
        if framing == Framing.LENGTH:
            size = len(data)
            if size < self._remaining:
                self._remaining -= size
                return data, False
            if size > self._remaining:
                self.keep = False
                data = data[: self._remaining]
            self._remaining = 0
            return data, True
        if framing == Framing.CHUNKED:
            assert self._relay is not None
            body, used = self._relay.feed(data) if data else (b"", 0)
            if used < len(data):
                self.keep = False
            return body, self._relay.done
        if framing == Framing.UNTIL_CLOSE:
            return (chunk(data) if exchange.http11 and data else data), False
        if data:
            # Bytes after an answer without a body: this connection is out of step.
            self.keep = False
        return b"", True

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self.alive = False
        exc = exc or self.broken
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.pool.forget(self)
        elif self.switched:
            exchange.tunnel_closed()
        elif self._waiting:
            exchange.upstream_lost(exc, partial=bool(self._buffer) or self._interim > 0)
        elif self.framing == Framing.UNTIL_CLOSE and exc is None:
            exchange.answered_by_close()
        else:
            exchange.upstream_died(exc)

    def pause_writing(self) -> None:
        """asyncio: the upstream reads more slowly than the client sends."""
        if self.exchange is not None:
            self.exchange.front.gate.hold(Hold.PEER_SLOW)

    def resume_writing(self) -> None:
        """asyncio: the upstream caught up."""
        if self.exchange is not None:
            self.exchange.front.gate.release(Hold.PEER_SLOW)
