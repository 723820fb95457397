"""What the edge tells about requests: access log, metrics and audit, from one place each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from heim_proxy.edge.failures import AGENT_FAILURES
from heim_proxy.edge.judge import Redirect
from heim_proxy.edge.origin import Preflight
from heim_proxy.observe.access_log import AccessEntry, AccessLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_proxy.access.policy import Allow
    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.exchange import Exchange
    from heim_proxy.edge.responses import Refusal
    from heim_proxy.identity.session import Session
    from heim_proxy.observe.audit import Audit
    from heim_proxy.observe.metrics import Metrics
    from heim_proxy.routing import Backend

__all__ = ["Dialling", "Recorder", "Streamed"]

log = logging.getLogger(__name__)

# Sessions and backends whose break-glass use has been told; then the memory starts over.
_REMEMBERED_USES: Final = 10_000


class Dialling(Protocol):
    """What `Recorder.upstream_failed` tells of: an exchange, or a tunnel stream."""

    @property
    def backend(self) -> Backend:
        """Whose upstream it is."""

    @property
    def upstream_name(self) -> str:
        """The endpoint that was dialled."""

    @property
    def request_id(self) -> bytes:
        """What finds the client's answer."""


@dataclass(slots=True)
class Streamed:
    """A tunnel stream that is over. `duration` in seconds; `end` empty when both sides finished."""

    session: Session
    allow: Allow
    backend: str
    upstream: str
    request_id: bytes
    bytes_in: int
    bytes_out: int
    duration: float
    end: str


class Recorder:
    """Records requests that ended. One per process, on one event loop."""

    __slots__ = ("_access_log", "_audit", "_entry", "_metrics", "_now", "_told")

    def __init__(
        self, *, access_log: AccessLog, audit: Audit, metrics: Metrics, now: Callable[[], float]
    ) -> None:
        self._access_log = access_log
        self._audit = audit
        self._metrics = metrics
        self._now = now
        # One entry for all requests: `AccessLog.record` copies what it needs.
        self._entry = AccessEntry()
        # Break-glass use is told once per session and backend, not once per request.
        self._told: set[tuple[str, str]] = set()

    def upstream_failed(self, exchange: Dialling, detail: str) -> None:
        """An upstream misbehaved: the log says what the client's error page does not."""
        log.warning(
            "upstream.failed",
            extra={
                "backend": exchange.backend.name,
                "upstream": exchange.upstream_name,
                "detail": detail,
                "request_id": exchange.request_id.decode("ascii"),
            },
        )

    def finished(self, exchange: Exchange, now: float) -> None:
        """An exchange is over.

        `now` is monotonic time in seconds, not the loop's own, which stands still during a turn and
        counts whole milliseconds in uvloop.
        """
        duration = now - exchange.started
        if not exchange.to_portal:
            stats = self._metrics.backend(exchange.backend.name)
            stats.count(exchange.status, duration, exchange.bytes_in, exchange.bytes_out)
        reason = exchange.end_reason
        if reason:
            failed = reason.startswith("upstream_") or reason in AGENT_FAILURES
            (self._metrics.upstream_failures if failed else self._metrics.ended).add(reason)
        forward = exchange.forward
        front = exchange.front
        # What decides the repeated part of the line; equal means the same objects, which is quick.
        kind = (
            forward.allow, forward.session, forward.host, exchange.upstream_name, front.client,
            exchange.http11,
        )  # fmt: skip
        if exchange.end_reason or kind != front.logged_kind:
            front.logged_block = self._block(exchange)
            front.logged_kind = None if exchange.end_reason else kind
        entry = self._entry
        entry.block = front.logged_block
        head = front.head
        target = head.target
        entry.method = head.method
        entry.target = target.raw + target.query
        entry.status = exchange.status
        entry.bytes_in = exchange.bytes_in
        entry.bytes_out = exchange.bytes_out
        entry.duration = duration
        first = 0.0 if exchange.to_portal else exchange.first_byte_at
        entry.upstream_duration = first - exchange.started if first else 0.0
        entry.request_id = exchange.request_id
        entry.trace_id = head.trace_id
        entry.log_query = not exchange.to_portal
        self._access_log.record(entry, self._now())
        if forward.allow.break_glass and forward.session is not None:
            self.break_glass(front, forward.session, forward.allow, exchange.request_id)

    def _block(self, exchange: Exchange) -> bytes:
        forward = exchange.forward
        session = forward.session
        entry = self._entry
        entry.user = session.subject.name if session is not None else None
        if exchange.to_portal:
            entry.backend, entry.decision = None, "portal"
        else:
            entry.backend = exchange.backend.name
            entry.decision = "public" if session is None else "allow"
        entry.rule = forward.allow.rule
        entry.upstream = exchange.upstream_name or None
        entry.end = exchange.end_reason or None
        self._describe(exchange.front)
        return self._access_log.block(entry)

    def streamed(self, front: Front, stream: Streamed) -> None:
        """A tunnel stream is over."""
        self._metrics.backend(stream.backend).count(
            101, stream.duration, stream.bytes_in, stream.bytes_out
        )
        if stream.end:
            self._metrics.ended.add(stream.end)
        entry = self._entry
        entry.user = stream.session.subject.name
        entry.backend = stream.backend
        entry.decision, entry.rule = "allow", stream.allow.rule
        entry.upstream = stream.upstream
        entry.status = 101
        entry.bytes_in, entry.bytes_out = stream.bytes_in, stream.bytes_out
        entry.duration, entry.upstream_duration = stream.duration, 0.0
        entry.end = stream.end or None
        entry.request_id = stream.request_id
        self._write_line(front)

    def tunnel_refused(self, front: Front, refusal: Refusal, size: int) -> None:
        """A tunnel request was refused, with a body of `size` bytes."""
        self._metrics.tunnel_refused.add(refusal.code)
        if refusal.backend:
            self._metrics.backend(refusal.backend).count(refusal.status, 0.0, 0, 0)
            self._audit_refusal(front, refusal)
        self._answer_line(front, refusal, size)

    def answered(self, front: Front, verdict: Redirect | Preflight | Refusal, size: int) -> None:
        """A request was answered without an upstream, with a body of `size` bytes."""
        if not isinstance(verdict, Redirect | Preflight):
            self._refused(front, verdict)
        self._answer_line(front, verdict, size)

    def _answer_line(
        self, front: Front, verdict: Redirect | Preflight | Refusal, size: int
    ) -> None:
        entry = self._entry
        entry.user = None
        entry.backend = verdict.backend or None
        entry.rule = None
        entry.bytes_in, entry.bytes_out = 0, size
        entry.duration = entry.upstream_duration = 0.0
        entry.upstream = entry.end = None
        entry.request_id = front.request_id
        if isinstance(verdict, Redirect):
            entry.status, entry.decision = verdict.status, verdict.decision
        elif isinstance(verdict, Preflight):
            entry.status, entry.decision = 204, "preflight"
        else:
            entry.status, entry.decision = verdict.status, f"deny:{verdict.code}"
            entry.user = verdict.user or None
        self._write_line(front)

    def _write_line(self, front: Front) -> None:
        """Log the entry, about a request that is not an exchange: its query is nobody's business.

        It may be a mangled hand-off, or a credential where none belongs.
        """
        entry = self._entry
        entry.log_query = False
        self._describe(front)
        entry.block = b""
        entry.trace_id = front.head.trace_id
        entry.method = front.head.method
        entry.target = front.head.target.raw + front.head.target.query
        self._access_log.record(entry, self._now())

    def _refused(self, front: Front, verdict: Refusal) -> None:
        if not verdict.backend:
            self._metrics.rejected.add(verdict.code)
            return
        self._metrics.denied.add(verdict.code)
        self._metrics.backend(verdict.backend).count(verdict.status, 0.0, 0, 0)
        self._audit_refusal(front, verdict)

    def _audit_refusal(self, front: Front, refusal: Refusal) -> None:
        # A preflight carries no identity by design: any page makes a visitor's browser send one.
        if refusal.status == 403 and refusal.user:
            self._audit.emit(
                "request.denied",
                user=refusal.user,
                backend=refusal.backend,
                reason=refusal.code,
                detail=refusal.detail,
                method=front.head.method.decode("latin-1"),
                path=front.head.target.path.decode("latin-1"),
                client=front.client.address,
                request_id=front.request_id.decode("ascii"),
            )

    def _describe(self, front: Front) -> None:
        head = front.head
        entry = self._entry
        entry.client = front.client.address
        entry.host = head.host.decode("latin-1") if head.host is not None else None
        entry.protocol = "HTTP/1.1" if head.version == b"HTTP/1.1" else "HTTP/1.0"
        entry.tls = front.tls_version

    def break_glass(self, front: Front, session: Session, allow: Allow, request_id: bytes) -> None:
        """Somebody got in by a break-glass role."""
        if (session.sid, allow.backend) in self._told:
            return
        if len(self._told) >= _REMEMBERED_USES:
            self._told.clear()
        self._told.add((session.sid, allow.backend))
        self._audit.emit(
            "access.break_glass",
            user=session.subject.name,
            backend=allow.backend,
            rule=allow.rule,
            client=front.client.address,
            request_id=request_id.decode("ascii"),
        )
