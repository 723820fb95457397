"""What the edge tells about requests: access log, metrics and audit, from one place each."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.edge.judge import Redirect
from heim_proxy.edge.origin import Preflight
from heim_proxy.observe.access_log import AccessEntry, AccessLog

if TYPE_CHECKING:
    from collections.abc import Callable

    from heim_proxy.edge.connection import Front
    from heim_proxy.edge.exchange import Exchange
    from heim_proxy.edge.responses import Refusal
    from heim_proxy.observe.audit import Audit
    from heim_proxy.observe.metrics import Metrics

__all__ = ["Recorder"]

log = logging.getLogger(__name__)

# Sessions and backends whose break-glass use has been told; then the memory starts over.
_REMEMBERED_USES: Final = 10_000


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

    def upstream_failed(self, exchange: Exchange, detail: str) -> None:
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

    def finished(self, exchange: Exchange) -> None:
        """An exchange is over."""
        # The loop's own clock stands still during a turn, and counts whole milliseconds in uvloop.
        duration = monotonic() - exchange.started
        if not exchange.to_portal:
            stats = self._metrics.backend(exchange.backend.name)
            stats.count(exchange.status, duration, exchange.bytes_in, exchange.bytes_out)
        if exchange.end_reason.startswith("upstream_"):
            self._metrics.upstream_failures.add(exchange.end_reason)
        elif exchange.end_reason:
            self._metrics.ended.add(exchange.end_reason)
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
        entry.log_query = not exchange.to_portal
        self._access_log.record(entry, self._now())
        if forward.allow.break_glass:
            self._break_glass(exchange)

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

    def answered(self, front: Front, verdict: Redirect | Preflight | Refusal, size: int) -> None:
        """A request was answered without an upstream, with a body of `size` bytes."""
        entry = self._entry
        entry.user = None
        entry.backend = verdict.backend or None
        entry.rule = None
        entry.bytes_in, entry.bytes_out = 0, size
        entry.duration = entry.upstream_duration = 0.0
        entry.upstream = entry.end = None
        entry.request_id = front.request_id
        entry.log_query = False
        if isinstance(verdict, Redirect):
            entry.status, entry.decision = verdict.status, verdict.decision
        elif isinstance(verdict, Preflight):
            entry.status, entry.decision = 204, "preflight"
        else:
            entry.status, entry.decision = verdict.status, f"deny:{verdict.code}"
            entry.user = verdict.user or None
            self._refused(front, verdict)
        self._describe(front)
        entry.block = b""
        entry.method = front.head.method
        entry.target = front.head.target.raw + front.head.target.query
        self._access_log.record(entry, self._now())

    def _refused(self, front: Front, verdict: Refusal) -> None:
        if not verdict.backend:
            self._metrics.rejected.add(verdict.code)
            return
        self._metrics.denied.add(verdict.code)
        self._metrics.backend(verdict.backend).count(verdict.status, 0.0, 0, 0)
        if verdict.status == 403:
            self._audit.emit(
                "request.denied",
                user=verdict.user,
                backend=verdict.backend,
                reason=verdict.code,
                detail=verdict.detail,
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

    def _break_glass(self, exchange: Exchange) -> None:
        session = exchange.forward.session
        if session is None or (session.sid, exchange.backend.name) in self._told:
            return
        if len(self._told) >= _REMEMBERED_USES:
            self._told.clear()
        self._told.add((session.sid, exchange.backend.name))
        self._audit.emit(
            "access.break_glass",
            user=session.subject.name,
            backend=exchange.backend.name,
            rule=exchange.forward.allow.rule,
            client=exchange.front.client.address,
            request_id=exchange.request_id.decode("ascii"),
        )
