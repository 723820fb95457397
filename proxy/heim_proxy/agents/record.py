"""What is told about agents: log lines for operators, audit events for who asks later."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_proxy.agents.knock import Knock
    from heim_proxy.agents.lane import Lane
    from heim_proxy.agents.refused import LaneRefused
    from heim_proxy.observe.audit import Audit

__all__ = ["connected", "disconnected", "duplicate", "refused"]

log = logging.getLogger(__name__)

# Enough of an enrolment's id to find it in `heim-proxy agent list`.
_SHOWN: Final = 6
# Refusals of somebody whose key we know. What strangers do is logged, and could fill the record.
_PROVEN: Final = frozenset((Code.REVOKED, Code.EXPIRED, Code.FORBIDDEN, Code.SUPERSEDED))


def connected(audit: Audit, lane: Lane) -> None:
    """A lane was let in."""
    facts = _facts(lane) | {"version": lane.version, "expires": int(lane.valid_until)}
    log.info("agent.connected", extra=facts)
    audit.emit("agent.connected", **facts, enrolment=lane.live_session.sid[:_SHOWN])


def disconnected(audit: Audit, lane: Lane, *, bytes_out: int) -> None:
    """A lane that had been let in is over."""
    facts = _facts(lane) | {
        "reason": lane.end_reason,
        "duration": round(monotonic() - lane.started, 3),
        "bytes_out": bytes_out,
    }
    log.info("agent.disconnected", extra=facts)
    audit.emit("agent.disconnected", **facts)


def refused(audit: Audit, knock: Knock, refused: LaneRefused) -> None:
    """A connection was not let in."""
    facts = {
        "claimed": knock.claimed,
        "client": knock.address,
        "reason": refused.slug,
        "detail": refused.reason,
    }
    if refused.code in (Code.BUSY, Code.GOING_AWAY):
        log.info("agent.refused", extra=facts)
    else:
        log.warning("agent.refused", extra=facts)
    if refused.code in _PROVEN:
        audit.emit("agent.refused", **facts)


def duplicate(audit: Audit, newcomer: Lane, staying: Lane) -> None:
    """Two machines use one key."""
    facts: dict[str, str | int] = {
        "agent": newcomer.name,
        "thumbprint": newcomer.thumbprint,
        "device": newcomer.device,
        "client": newcomer.address,
        "boot": newcomer.boot,
        "other_device": staying.device,
        "other_client": staying.address,
        "other_boot": staying.boot,
    }
    log.warning("agent.duplicate", extra=facts)
    audit.emit("agent.duplicate", **facts)


def _facts(lane: Lane) -> dict[str, str | int | float]:
    return {
        "agent": lane.name,
        "device": lane.device,
        "client": lane.address,
        "boot": lane.boot,
        "lane": lane.number,
    }
