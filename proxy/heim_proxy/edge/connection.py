"""One client connection: requests in, answers out, one at a time, each judged alone.

The hot path (a session that is in memory, an idle upstream connection) runs from the socket's
bytes to the upstream's socket without a task, a future or a timer. Whatever must wait (a session
that is only in the store, a new upstream connection) pauses reading and continues in a task.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, Final, cast

from heim_proxy.edge.exchange import Exchange
from heim_proxy.edge.head import BadRequest, RequestHead, head_end
from heim_proxy.edge.headers import client_address, trusted_request_id
from heim_proxy.edge.judge import (
    Client,
    Connect,
    Forward,
    LoadSession,
    Portal,
    Redirect,
    Verdict,
)
from heim_proxy.edge.limits import (
    HEAD_S,
    KEEP_ALIVE_S,
    LINGER_BYTES,
    LINGER_S,
    PIPELINE_BYTES,
    SESSION_LOAD_S,
    WRITE_STALL_S,
)
from heim_proxy.edge.origin import Preflight
from heim_proxy.edge.readgate import Hold, ReadGate
from heim_proxy.edge.responses import Refusal, no_content, redirect, refusal, wants_page
from heim_proxy.observe.trace import new_request_id
from heim_proxy.store.base import StoreUnavailable
from heim_runtime.tasks import spawn

if TYPE_CHECKING:
    from heim_proxy.edge.door import Occupant
    from heim_proxy.edge.listener import Peer
    from heim_proxy.edge.server import Edge

__all__ = ["Front"]

log = logging.getLogger(__name__)

# Reads above this are charged to the turn's budget; smaller ones cannot starve anybody.
_BULK_BYTES: Final = 16 * 1024
# Deadlines that start anew with every byte.
_RENEWED: Final = frozenset(("idle", "body"))
# Reasons that end with the exchange they were for.
_EXCHANGE_HOLDS: Final = Hold.PEER_SLOW | Hold.DECIDING | Hold.PIPELINE
_UNAVAILABLE: Final = Refusal(
    503,
    "session_store_unavailable",
    "your session cannot be checked just now",
    "try again in a moment",
    retry_after=5,
)
_INTERNAL: Final = Refusal(
    500, "internal_error", "the proxy failed to judge this request", "see the log", close=True
)


class Front(asyncio.BufferedProtocol):
    """A client connection. Created by the listener, closed by itself."""

    __slots__ = (
        "_buffer",
        "_closing",
        "_deadline",
        "_deadline_kind",
        "_deciding",
        "_expect_s",
        "_lingered",
        "_stall_deadline",
        "_trusted",
        "_unread",
        "active",
        "client",
        "edge",
        "exchange",
        "gate",
        "head",
        "keep_alive",
        "logged_block",
        "logged_kind",
        "parked",
        "peer",
        "request_id",
        "secure",
        "sni",
        "tls_version",
        "transport",
        "write",
        "write_paused",
    )

    def __init__(self, edge: Edge, peer: Peer, *, secure: bool) -> None:
        self.edge = edge
        self.peer = peer
        self.secure = secure
        self.head = RequestHead()
        self.exchange: Occupant | None = None
        self.keep_alive = True
        self.request_id = b""
        # The repeated part of this connection's access-log lines, and what it was made for.
        self.logged_kind: object = None
        self.logged_block = b""
        # Set by every read and write event, so that the sweep can tell progress from silence
        # without a clock call per event.
        self.active = False
        # Above its write buffer's mark: a client that does not read gets no further answers.
        self.write_paused = False
        self._buffer = b""
        self._deciding = False
        self._closing = False
        # Whether the client may still be sending something that nobody will read.
        self._unread = False
        self._lingered = 0
        self._expect_s = 0.0
        # Loop time in seconds; 0 when the next sweep is to set it.
        self._deadline = 0.0
        self._deadline_kind = ""
        self._stall_deadline = math.inf
        # Nothing is due, and the sweep passes us over.
        self.parked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is ready, TLS included."""
        # uvloop's TLS transports are no subclass of asyncio.Transport, only alike.
        self.transport = transport = cast("asyncio.Transport", transport)
        self.write = transport.write
        self.gate = ReadGate(transport, self.edge.loop)
        self.sni: str | None = getattr(transport.get_extra_info("ssl_object"), "heim_sni", None)
        self._trusted = self.edge.trusts(self.peer.ip)
        self.tls_version: str | None = _tls_version(transport)
        self.client = Client(self.peer.ip, secure=self.secure, sni=self.sni)
        self.expect(KEEP_ALIVE_S, "keep_alive")
        self.edge.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._closing = True
        self.edge.closed(self)
        self.peer.closed()
        if self.exchange is not None:
            self.exchange.client_gone()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to read to; all connections share it, since reads are taken at once.

        With a buffer of ours uvloop's TLS does not make 256 KiB of bytes for every read. Without
        TLS it costs 0.3 µs, and its size bounds what a client can have us do in one turn.
        """
        return self.edge.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: bytes from the client are in the buffer."""
        self.data_received(bytes(self.edge.buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self.active = True
        if len(data) > _BULK_BYTES:
            self.gate.spend(len(data))
        exchange = self.exchange
        if exchange is not None:
            data = exchange.client_data(data)
            if not data:
                return
        elif not self._deciding and not self._closing:
            self._requests(self._buffer + data if self._buffer else data)
            return
        if self._closing:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.abort()
            return
        self._buffer += data
        if len(self._buffer) > PIPELINE_BYTES:
            self.gate.hold(Hold.PIPELINE)

    def eof_received(self) -> bool:
        """asyncio: the client will not send any more; an answer under way still goes out."""
        exchange = self.exchange
        self.keep_alive = False
        if exchange is None or self.secure or exchange.upgraded:
            return False
        return exchange.request_done

    def pause_writing(self) -> None:
        """asyncio: the client reads more slowly than the upstream sends."""
        self.write_paused = True
        self._stall_deadline = self.edge.loop.time() + WRITE_STALL_S
        if self.exchange is not None:
            self.exchange.hold_upstream()
        else:
            self.gate.hold(Hold.OUTPUT)

    def resume_writing(self) -> None:
        """asyncio: the client caught up."""
        self.write_paused = False
        self._stall_deadline = math.inf
        self.active = True
        if self.exchange is not None:
            self.exchange.release_upstream()
        self.gate.release(Hold.OUTPUT)
        if self.exchange is None and self._buffer and not self._deciding:
            self._requests(self._take_buffer())

    # -- requests ---------------------------------------------------------------------------

    def _requests(self, data: bytes) -> None:
        """Work through complete heads until one has to wait for its answer."""
        while data and not (
            self.exchange is not None or self._deciding or self._closing or self.write_paused
        ):
            try:
                end = head_end(data)
                if not end:
                    if self._deadline_kind != "head":
                        self.expect(HEAD_S, "head")
                    break
                self.head.parse(data[:end] if end < len(data) else data)
            except BadRequest as error:
                self._buffer = b""
                self._bad_request(error)
                return
            self._buffer = b""
            data = self._request(data[end:])
        self._buffer = data

    def _request(self, rest: bytes) -> bytes:
        """Judge the parsed head and act on it; returns bytes that are not used yet."""
        head = self.head
        edge = self.edge
        self.keep_alive = head.keep_alive and not edge.draining
        self.request_id = new_request_id()
        if self._trusted:
            self._believe(head)
        verdict = self._judge()
        if type(verdict) is Forward:
            exchange = self.exchange = Exchange(self, verdict, self.request_id)
            edge.live.add(exchange)
            return exchange.begin(edge.pools(verdict, self.client), rest)
        return self._act(verdict, rest)

    def _judge(self) -> Verdict:
        try:
            return self.edge.judge.judge(self.head, self.client, self.edge.now())
        except BadRequest as error:
            return Refusal(error.status, "bad_request", error.detail, close=True)
        except Exception:
            # Fail closed: whatever went wrong in a decision is a refusal.
            log.exception("request.judge_failed", extra={"request_id": self.request_id.decode()})
            self.edge.metrics.rejected.add("judge_failed")
            return _INTERNAL

    def _act(self, verdict: Verdict, rest: bytes) -> bytes:
        """What follows from a verdict; `_request` has the hot case in line."""
        edge = self.edge
        if isinstance(verdict, Forward):
            exchange = self.exchange = Exchange(self, verdict, self.request_id)
            edge.live.add(exchange)
            return exchange.begin(edge.pools(verdict, self.client), rest)
        if isinstance(verdict, Portal):
            forward = edge.portal_forward(self.head, self.client, verdict, self.request_id)
            exchange = self.exchange = Exchange(self, forward, self.request_id, to_portal=True)
            edge.live.add(exchange)
            return exchange.begin(edge.portal_pools, rest)
        if isinstance(verdict, Connect):
            entrant = self.exchange = edge.door.enter(self, verdict.host)
            return entrant.begin(rest)
        if isinstance(verdict, LoadSession):
            self._deciding = True
            self.gate.hold(Hold.DECIDING)
            self.expect(SESSION_LOAD_S * 2, "load")
            spawn("edge.load_session", self._load_session(verdict, rest))
            return b""
        self._answer(verdict)
        return rest

    async def _load_session(self, wanted: LoadSession, rest: bytes) -> None:
        """Bring a session back into memory, then judge the request again."""
        head = self.head
        sessions = self.edge.sessions
        verdict: Verdict = _UNAVAILABLE
        try:
            async with asyncio.timeout(SESSION_LOAD_S):
                session = await sessions.load(wanted.host, wanted.cookie, self.edge.now())
        except (StoreUnavailable, TimeoutError) as error:
            self.edge.metrics.store_errors.add("load_session")
            log.warning("session.load_failed", extra={"error": str(error) or "timeout"})
        else:
            if session is None:
                head.cookies = head.cookies.without_session()
            if not self._closing:
                verdict = self._judge()
                if isinstance(verdict, LoadSession):
                    verdict = _UNAVAILABLE
        self._deciding = False
        if self._closing:
            return
        self.gate.release(Hold.DECIDING)
        rest = self._act(verdict, rest + self._take_buffer())
        if self.exchange is None:
            self._requests(rest)
        else:
            self._buffer = rest + self._buffer

    def _take_buffer(self) -> bytes:
        buffer, self._buffer = self._buffer, b""
        return buffer

    def _believe(self, head: RequestHead) -> None:
        """The peer is a trusted proxy: take the client's address and request id from it."""
        address = client_address(self.peer.ip, head.forwarded, self.edge.trusts)
        if address != self.client.address:
            self.client = Client(address, secure=self.secure, sni=self.sni)
        given = trusted_request_id(head.forwarded)
        if given is not None:
            self.request_id = given

    # -- answers ----------------------------------------------------------------------------

    def _answer(self, verdict: Redirect | Preflight | Refusal) -> None:
        """An answer of our own; a request body is not read, so the connection ends with it."""
        head = self.head
        if head.has_body:
            self.keep_alive = False
            self._unread = True
        close = not self.keep_alive
        size = 0
        name = self.request_id.decode("ascii")
        if isinstance(verdict, Redirect):
            cookies, where = verdict.set_cookies, verdict.location
            self.write(
                redirect(verdict.status, where, request_id=name, set_cookies=cookies, close=close)
            )
        elif isinstance(verdict, Preflight):
            self.write(no_content(verdict.headers, request_id=name, close=close))
        else:
            size = self.send_refusal(verdict, self.request_id)
        self.edge.recorder.answered(self, verdict, size)
        head.clear()
        self._next()

    def send_refusal(self, answer: Refusal, request_id: bytes) -> int:
        """Write a refusal as a page or as problem details, as asked; returns its body's size."""
        if answer.close:
            self.keep_alive = False
        elif not self.keep_alive:
            answer = answer.closing()
        head = self.head
        data = refusal(
            answer,
            page=wants_page(head.get(b"accept")),
            request_id=request_id.decode("ascii"),
            head_only=head.method == b"HEAD",
            target=head.target.path + head.target.query,
        )
        self.write(data)
        return len(data) - data.index(b"\r\n\r\n") - 4

    def _bad_request(self, error: BadRequest) -> None:
        self.request_id = new_request_id()
        self._unread = True
        answer = Refusal(error.status, "bad_request", error.detail, close=True)
        size = self.send_refusal(answer, self.request_id)
        self.edge.recorder.answered(self, answer, size)
        self.head.clear()
        self._next()

    def upgraded(self) -> None:
        """The exchange became a byte stream: bytes that came early belong to it."""
        early = self._take_buffer()
        self.gate.release(Hold.PIPELINE)
        if early and self.exchange is not None:
            self.exchange.client_data(early)

    def exchange_done(self, exchange: Occupant) -> None:
        """The exchange is over; go on with the next request, or close."""
        if not exchange.request_done:
            self.keep_alive = False
            self._unread = True
        self.exchange = None
        if self.write_paused:
            # A client that does not read could otherwise send requests without end.
            self.gate.hold(Hold.OUTPUT)
        if self.gate.holds:
            self.gate.release(_EXCHANGE_HOLDS)
        self.head.clear()
        if self.keep_alive and not self.edge.draining:
            self.expect(KEEP_ALIVE_S, "keep_alive")
            if self._buffer and not self._closing:
                self._requests(self._take_buffer())
        else:
            self._close_soon()

    def _next(self) -> None:
        if self.keep_alive and not self.edge.draining:
            self.expect(KEEP_ALIVE_S, "keep_alive")
        else:
            self._close_soon()

    # -- ends -------------------------------------------------------------------------------

    def _close_soon(self) -> None:
        """Close once what was written is sent.

        A reset that overtakes the answer would lose it, so if the client may still be sending,
        what comes is read and dropped for a moment (RFC 9112, 9.6).
        """
        if self._closing:
            return
        self._closing = True
        self._buffer = b""
        if not self._unread:
            self.transport.close()
            self.expect(WRITE_STALL_S, "flush")
            return
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.expect(LINGER_S, "linger")

    def abort(self) -> None:
        """Close now: what was not sent is lost, and the client sees that it is incomplete."""
        self._closing = True
        self.transport.abort()

    def expect(self, seconds: float, kind: str) -> None:
        """Something must happen within `seconds`; "idle" and "body" start anew at each progress.

        The sweep reads the clock, not every request: a deadline may be late by two sweeps.
        """
        self._deadline = 0.0
        self._expect_s = seconds
        self._deadline_kind = kind
        if self.parked:
            self.edge.unpark(self)

    def check(self, now: float) -> None:
        """The sweep: act on a deadline that has passed. `now` is loop time in seconds."""
        if not self._deadline or (self.active and self._deadline_kind in _RENEWED):
            self._deadline = now + self._expect_s
        self.active = False
        if now >= self._stall_deadline:
            self._stalled()
        elif now >= self._deadline:
            self._late()
        else:
            self.parked = self._deadline == self._stall_deadline == math.inf

    def _stalled(self) -> None:
        if self.exchange is not None:
            self.exchange.end_reason = "client_stalled"
        self.abort()

    def _late(self) -> None:
        kind = self._deadline_kind
        exchange = self.exchange
        if exchange is not None:
            exchange.timed_out(kind)
        elif kind == "head":
            self._bad_request(BadRequest(408, f"the request head took longer than {HEAD_S:g}s"))
        elif kind in ("load", "flush"):
            self.abort()
        else:
            self._closing = True
            self.transport.close()
            self.expect(WRITE_STALL_S, "flush")

    def drain(self) -> None:
        """Shutting down: an idle connection closes now, a busy one after its answer."""
        self.keep_alive = False
        if self.exchange is None and not self._deciding:
            self._closing = True
            self.transport.close()


def _tls_version(transport: asyncio.Transport) -> str | None:
    tls = transport.get_extra_info("ssl_object")
    version: str | None = tls.version() if tls is not None else None
    return version
