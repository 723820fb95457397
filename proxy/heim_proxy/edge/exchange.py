"""One request and its answer: joins a client connection with an upstream connection.

It exists from the moment a request is allowed until its answer is complete, is registered in the
live registry before anything is dialled, and can be ended at any moment with a reason. All
writing to an upstream happens here, and an exchange cannot be made without a `Forward`, which
cannot be made without an `Allow`.
"""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING, Final

from heim_proxy.edge import failures
from heim_proxy.edge.answer import AnswerHead, BadAnswer, date_line, status_line
from heim_proxy.edge.body import BadChunk, ChunkRelay
from heim_proxy.edge.challenge import challenge_head
from heim_proxy.edge.headers import upstream_head
from heim_proxy.edge.judge import Forward, valid_until
from heim_proxy.edge.limits import (
    BODY_IDLE_S,
    DIAL_BUFFER_BYTES,
    GOODBYE_S,
    JOINED_BYTES,
    LINE_WORK_BYTES,
    SWEEP_S,
)
from heim_proxy.edge.names import field_value
from heim_proxy.edge.readgate import Hold
from heim_proxy.edge.responses import Refusal
from heim_proxy.edge.tunnel import Tunnel
from heim_proxy.edge.upstream import Framing, Upstream
from heim_proxy.live import EndReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.dial import DialError
    from heim_proxy.edge.pool import Pool
    from heim_proxy.routing import Route

__all__ = ["Exchange"]

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REPEATABLE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Exchange:
    """One allowed request on its way. Created by `Front`, over when `_finish` ran."""

    __slots__ = (
        "_body",
        "_pending",
        "_pending_bytes",
        "_pools",
        "_retried",
        "_tunnel",
        "_upstream",
        "backend",
        "bytes_in",
        "bytes_out",
        "end_reason",
        "first_byte_at",
        "forward",
        "front",
        "head_only",
        "http11",
        "live_session",
        "over",
        "repeatable",
        "request_done",
        "request_id",
        "started",
        "status",
        "to_portal",
        "upstream_name",
    )

    def __init__(
        self, front: Front, forward: Forward, request_id: bytes, *, to_portal: bool = False
    ) -> None:
        head = front.head
        self.front = front
        self.forward = forward
        self.backend = forward.route.backend
        self.request_id = request_id
        self.to_portal = to_portal
        self.started = monotonic()
        self.first_byte_at = 0.0
        self.head_only = head.method == b"HEAD"
        self.http11 = head.version == b"HTTP/1.1"
        self.request_done = done = not head.has_body
        self.repeatable = done and head.method in _REPEATABLE and head.upgrade is None
        # What is left of the request body: a count, or the relay that finds the end.
        self._body: int | ChunkRelay = ChunkRelay(keep=True) if head.chunked else head.length
        self._pending: list[bytes] | None = None
        self._pending_bytes = 0
        self._pools: tuple[Pool, ...] = ()
        # The session it runs under, None on public backends (for the live registry).
        self.live_session = forward.session
        # An upgrade's next bytes belong to the new protocol or to nobody.
        front.keep_alive = front.keep_alive and head.upgrade is None
        self._retried = False
        self._upstream: Upstream | None = None
        self._tunnel: Tunnel | None = None
        self.upstream_name = ""
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.end_reason = ""
        self.over = False

    @property
    def valid_until(self) -> float:
        """Seconds since the epoch until which the decision holds, by the snapshot in force."""
        backends = self.front.edge.snapshot.backends
        return valid_until(self.live_session, backends.get(self.backend.name, self.backend))

    @property
    def upgraded(self) -> bool:
        """Whether it became a byte stream after 101."""
        return self._tunnel is not None

    # -- towards the upstream ---------------------------------------------------------------

    def begin(self, pools: tuple[Pool, ...], body: bytes) -> bytes:
        """Send the request, on an idle connection or a new one; returns bytes it did not use."""
        self._pools = pools
        rest = b""
        first = b""
        if body:
            try:
                first, rest = self._take(body)
            except BadChunk as error:
                self.bad_body(str(error))
                return b""
        upstream = pools[0].take(self.started, repeatable=self.repeatable)
        if upstream is not None:
            self._attach(upstream)
            upstream.write(self._head() + first if first else self._head())
            return rest
        self._pending = [first] if first else []
        self._pending_bytes = len(first)
        self._dial()
        return rest

    def _dial(self) -> None:
        # Each endpoint may take its time; this only catches a dial that never ends.
        patience = self.backend.timeouts.connect * len(self._pools) + SWEEP_S
        self.front.expect(patience, "dial")
        self.front.edge.dial(self, self._pools)

    def connected(self, upstream: Upstream) -> None:
        """A dialled connection is ready: send what has been waiting for it."""
        pending, self._pending = self._pending or [], None
        self._attach(upstream)
        upstream.write(b"".join((self._head(), *pending)))
        if self.front.gate.holds:
            self.front.gate.release(Hold.DECIDING)

    def dial_failed(self, error: DialError | TimeoutError) -> None:
        """No connection could be made to any endpoint; `error` is the last one's."""
        self._refuse(failures.not_connected(self.forward.route, error))

    def client_data(self, data: bytes) -> bytes:
        """Bytes from the client; returns those that belong to the next request."""
        if self._tunnel is not None:
            self.bytes_in += len(data)
            self._tunnel.up(data)
            return b""
        if self.request_done:
            return data
        try:
            body, rest = self._take(data)
        except BadChunk as error:
            self.bad_body(str(error))
            return b""
        upstream = self._upstream
        if upstream is not None:
            upstream.send(body)
        elif self._pending is not None:
            self._pending.append(body)
            self._pending_bytes += len(body)
            if self._pending_bytes > DIAL_BUFFER_BYTES:
                self.front.gate.hold(Hold.DECIDING)
        return rest

    def bad_body(self, detail: str) -> None:
        """The request body breaks chunked framing: nothing after it can be trusted."""
        self._refuse(failures.bad_body(self.backend, detail))

    def hold_upstream(self) -> None:
        """The client is slow: stop reading the upstream."""
        if self._upstream is not None:
            self._upstream.gate.hold(Hold.PEER_SLOW)

    def release_upstream(self) -> None:
        """The client caught up: read the upstream again."""
        if self._upstream is not None:
            self._upstream.gate.release(Hold.PEER_SLOW)

    def _take(self, data: bytes) -> tuple[bytes, bytes]:
        """Divide client bytes into request body (as forwarded) and what follows it."""
        body = self._body
        if isinstance(body, ChunkRelay):
            out, used = body.feed(data)
            # An upload of one-byte chunks is mostly framing: it pays for that with its turn.
            self.front.gate.spend(body.lines * LINE_WORK_BYTES)
            if body.done:
                self._request_complete()
            self.bytes_in += len(out)
            return out, data[used:]
        size = len(data)
        if size < body:
            self._body = body - size
            self.bytes_in += size
            return data, b""
        self._body = 0
        self.bytes_in += body
        self._request_complete()
        return data[:body], data[body:]

    def _request_complete(self) -> None:
        self.request_done = True
        if not self.status:
            self.front.expect(self.backend.timeouts.first_byte, "first_byte")

    def _head(self) -> bytes:
        front = self.front
        head = front.head
        if self.backend.challenge:
            return challenge_head(head, path=self.forward.path, host=self.forward.host)
        return upstream_head(
            head,
            front.client,
            path=self.forward.path,
            identity=self.forward.identity,
            request_id=self.request_id,
            cookies=head.cookie_line if self.to_portal else head.cookies.rest,
        )

    def _attach(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self.upstream_name = upstream.pool.name
        upstream.start(self)
        if self.front.write_paused:
            upstream.gate.hold(Hold.PEER_SLOW)
        if self.request_done:
            self.front.expect(self.backend.timeouts.first_byte, "first_byte")
            return
        self.front.expect(BODY_IDLE_S, "body")
        if self.front.head.expect_continue:
            # Ours to say, never the upstream's: one that refuses early and does not read the body
            # would take it for the next request.
            self.front.head.expect_continue = False
            self.front.write(_CONTINUE)

    # -- from the upstream ------------------------------------------------------------------

    def interim(self, answer: AnswerHead) -> None:
        """Relay a 1xx answer to clients that know what it is (RFC 9110, 15.2).

        Nobody asked the upstream for a 100; whoever asked us has had theirs.
        """
        if self.http11 and answer.status != 100:
            self.front.write(status_line(answer.status) + answer.passed + b"\r\n\r\n")

    def answer(
        self, answer: AnswerHead, framing: int, body: bytes | memoryview, *, complete: bool
    ) -> None:
        """The final answer head, with what arrived of its body; perhaps that is all of it."""
        front = self.front
        now = self.first_byte_at = monotonic()
        self.status = status = answer.status
        if not self.request_done:
            # The client still sends a body nobody reads: this connection ends with the answer.
            front.keep_alive = False
        ours = b""
        if not answer.has(b"\r\nDate:"):
            # RFC 9110, 6.6.1: whoever passes on an answer without a date adds it.
            ours = b"\r\n" + date_line(int(time()))
        if not self.to_portal and not answer.has(b"\r\nServer:"):
            # What every ingress controller says, and its conformance tests ask for.
            ours += b"\r\nServer: heim"
        if framing == Framing.LENGTH:
            ours += b"\r\nContent-Length: %d" % answer.length
        elif framing == Framing.NONE:
            # RFC 9110, 8.6: what a GET would have had, but never with a 204.
            if answer.length >= 0 and status != 204:
                ours += b"\r\nContent-Length: %d" % answer.length
        elif self.http11:
            ours += b"\r\nTransfer-Encoding: chunked"
        else:
            front.keep_alive = False
        if not front.keep_alive:
            ours += b"\r\nConnection: close"
        elif not self.http11:
            ours += b"\r\nConnection: keep-alive"
        out = (
            status_line(status), answer.passed, ours, b"\r\n", self.forward.answer_headers,
            b"X-Request-Id: ", self.request_id, b"\r\n\r\n",
        )  # fmt: skip
        size = len(body)
        self.bytes_out += size
        if size <= JOINED_BYTES:
            front.write(b"".join((*out, body)))
        else:
            front.transport.writelines((b"".join(out), body))
        if complete:
            self.answered(now)
        else:
            front.expect(self.backend.timeouts.idle, "idle")

    def body_down(self, body: bytes) -> None:
        """More of the answer's body, framed for the client."""
        self.bytes_out += len(body)
        self.front.write(body)

    def answered(self, now: float) -> None:
        """The answer is complete: the usual end. `now` is monotonic time in seconds."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.exchange = None
            if upstream.keep and upstream.alive and self.request_done:
                upstream.used = True
                if upstream.gate.holds:
                    upstream.gate.release(Hold.PEER_SLOW)
                upstream.pool.give(upstream, now)
            else:
                upstream.abort()
        self._finish(now)

    def answered_by_close(self) -> None:
        """The answer ended with the upstream's connection."""
        self._upstream = None
        if self.http11:
            self.front.write(b"0\r\n\r\n")
        self._finish()

    def switch(self, answer: AnswerHead, rest: bytes) -> None:
        """101: the connection becomes a byte stream, if that is what was asked for."""
        front = self.front
        asked = front.head.upgrade
        upstream = self._upstream
        if asked is None or answer.upgrade != asked or upstream is None:
            raise BadAnswer("it switched protocols without being asked to")
        offered = front.head.get(b"sec-websocket-extensions")
        if offered is None and field_value(answer.fields, b"sec-websocket-extensions"):
            raise BadAnswer("it chose a WebSocket extension that was not offered")
        self.status = 101
        self.first_byte_at = monotonic()
        upstream.switched = True
        self._tunnel = Tunnel(front, upstream, websocket=asked == b"websocket")
        front.expect(self.backend.timeouts.idle, "idle")
        front.write(
            b"%b%b\r\nConnection: Upgrade\r\nUpgrade: %b\r\nX-Request-Id: %b\r\n\r\n"
            % (status_line(101), answer.passed, asked, self.request_id)
        )
        if rest:
            self.tunnel_down(rest)
        front.upgraded()

    def tunnel_down(self, data: bytes) -> None:
        """Bytes of an upgraded stream for the client."""
        assert self._tunnel is not None
        self.bytes_out += len(data)
        if self._tunnel.down(data):
            self._upstream = None
            self._finish()

    def tunnel_closed(self) -> None:
        """The upstream closed an upgraded stream."""
        self._upstream = None
        self.front.keep_alive = False
        self._finish()

    def bad_answer(self, detail: str) -> None:
        """The upstream broke HTTP; its connection is dropped, not reused."""
        self.front.edge.recorder.upstream_failed(self, f"bad answer: {detail}")
        if self.status:
            self._cut("upstream_broken")
        else:
            self._refuse(failures.bad_answer(self.forward.route))

    def upstream_lost(self, error: Exception | None, *, partial: bool) -> None:
        """The connection ended before an answer came."""
        upstream, self._upstream = self._upstream, None
        stale = upstream is not None and upstream.used and not partial
        if stale and self.repeatable and not self._retried:
            # The upstream closed an idle connection in the moment we chose it; nothing has been
            # sent to the client, and asking twice for a GET is harmless (RFC 9110, 9.2.2).
            self._retried = True
            self._pending = []
            self._dial()
            return
        detail = f"closed before answering: {error or 'end of stream'}"
        self.front.edge.recorder.upstream_failed(self, detail)
        self._refuse(failures.closed_early(self.forward.route, error))

    def upstream_died(self, error: Exception | None) -> None:
        """The connection ended in the middle of an answer: the client must notice."""
        self._upstream = None
        detail = f"closed in the middle of its answer: {error or 'end of stream'}"
        self.front.edge.recorder.upstream_failed(self, detail)
        self._cut("upstream_died")

    # -- ends -------------------------------------------------------------------------------

    def client_gone(self) -> None:
        """The client's connection is gone; the upstream is told by a reset."""
        self.end_reason = self.end_reason or "client_gone"
        self._finish()

    def timed_out(self, kind: str) -> None:
        """A deadline passed: `kind` is dial, first_byte, body, idle or goodbye."""
        if kind == "dial":
            self._refuse(failures.connect_timeout(self.forward.route))
        elif kind == "body" and self.front.gate.held(Hold.PEER_SLOW):
            self._silent("stopped reading the request", failures.upstream_stalled)
        elif kind == "body":
            self._refuse(failures.body_timeout(self.backend))
        elif kind == "first_byte":
            self._silent("did not start to answer in time", failures.first_byte_timeout)
        elif kind == "goodbye":
            self._cut("goodbye")
        elif self._tunnel is not None:
            self._goodbye("idle_timeout", 1001, f"idle for {self.backend.timeouts.idle:g}s")
        else:
            self._cut("idle_timeout")

    def _silent(self, detail: str, told: Callable[[Route], Refusal]) -> None:
        self.front.edge.recorder.upstream_failed(self, detail)
        self._refuse(told(self.forward.route))

    def end(self, reason: EndReason) -> None:
        """The decision behind this exchange no longer holds: stop both sides now."""
        if self.over:
            return
        session = self.forward.session
        if reason is EndReason.EXPIRED and session and session.expires > self.front.edge.now():
            reason = EndReason.SESSION_TOO_OLD
        if self._tunnel is not None:
            going_away = reason is EndReason.SHUTDOWN
            self._goodbye(reason.value, 1001 if going_away else 4401, f"heim: {reason.value}")
        elif self.status:
            self._cut(reason.value)
        else:
            self._refuse(failures.ended(self.backend, reason))

    def _goodbye(self, reason: str, code: int, text: str) -> None:
        if self.end_reason:
            return
        self.end_reason = reason
        assert self._tunnel is not None
        if self._tunnel.goodbye(code, text):
            self._upstream = None
            self._finish()
        else:
            # In the middle of a frame: the goodbye follows it, if the rest comes soon.
            self.front.expect(GOODBYE_S, "goodbye")

    def _refuse(self, answer: Refusal) -> None:
        """Answer with an error of ours if no answer has been started, else cut it off."""
        if self.over:
            return
        if self.status:
            self._cut(answer.code)
            return
        self.status = answer.status
        self.end_reason = self.end_reason or answer.code
        front = self.front
        front.keep_alive = front.keep_alive and self.request_done
        self.bytes_out = front.send_refusal(answer, self.request_id)
        self._finish()

    def _cut(self, reason: str) -> None:
        """End an answer that has been started: without its end, so that it counts as truncated."""
        self.end_reason = self.end_reason or reason
        self.front.abort()
        self._finish()

    def _finish(self, now: float = 0.0) -> None:
        """It is over, at `now` in monotonic seconds; 0 has the clock read."""
        if self.over:
            return
        self.over = True
        self._pending = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()
        front = self.front
        front.edge.live.discard(self)
        front.edge.recorder.finished(self, now or monotonic())
        front.exchange_done(self)
