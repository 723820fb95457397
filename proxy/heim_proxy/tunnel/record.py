"""What is told about streams: audit events at both ends, and one line of the access log."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from heim_proxy.edge.record import Streamed

if TYPE_CHECKING:
    from heim_proxy.edge.connection import Front
    from heim_proxy.observe.audit import Audit
    from heim_proxy.tunnel.passage import Passage
    from heim_proxy.tunnel.streams import TunnelStream

__all__ = ["closed", "opened"]

# Enough of a session's id to find it in `heim-proxy session list`.
_SHOWN = 6


def opened(audit: Audit, front: Front, passage: Passage) -> None:
    """A stream was answered with 101."""
    audit.emit(
        "tunnel.opened",
        user=passage.user,
        session=passage.session.sid[:_SHOWN],
        backend=passage.backend.name,
        rule=passage.allow.rule,
        client=passage.client,
        request_id=passage.request_id,
    )
    if passage.allow.break_glass:
        request_id = passage.request_id.encode("ascii")
        front.edge.recorder.break_glass(front, passage.session, passage.allow, request_id)


def closed(audit: Audit, front: Front, passage: Passage, stream: TunnelStream) -> None:
    """A stream is over."""
    streamed = Streamed(
        session=passage.session,
        allow=passage.allow,
        backend=passage.backend.name,
        upstream=stream.upstream_name,
        request_id=passage.request_id.encode("ascii"),
        bytes_in=stream.bytes_in,
        bytes_out=stream.bytes_out,
        duration=monotonic() - stream.started,
        end=stream.end_reason,
    )
    front.edge.recorder.streamed(front, streamed)
    audit.emit(
        "tunnel.closed",
        user=passage.user,
        session=passage.session.sid[:_SHOWN],
        backend=streamed.backend,
        client=passage.client,
        bytes_in=streamed.bytes_in,
        bytes_out=streamed.bytes_out,
        duration=round(streamed.duration, 3),
        reason=streamed.end or "finished",
        request_id=passage.request_id,
    )
