"""What is told about agents: log lines for operators, audit events for who asks later."""

from __future__ import annotations

import hashlib
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final

from heim_proxy.agents.sparing import Sparing
from heim_proxy.agents.waiting import network_of
from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_proxy.agents.knock import Knock
    from heim_proxy.agents.lane import Lane
    from heim_proxy.agents.refused import LaneRefused
    from heim_proxy.observe.audit import Audit

__all__ = ["Told", "connected", "disconnected"]

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


class Told:
    """What is said of those who are not let in, of each now and then.

    Whoever comes again at once, and for ever, must fill neither log nor audit. The next line has
    how many were left out.
    """

    def __init__(self, audit: Audit) -> None:
        """Nothing was said yet."""
        self._audit = audit
        # Apart, so that strangers cannot use up what is kept of machines that we know.
        self._strangers = Sparing()
        self._proven = Sparing()
        self._duplicates = Sparing()

    def refused(self, knock: Knock, refused: LaneRefused) -> None:
        """A connection was not let in."""
        proven = refused.code in _PROVEN
        if proven:
            # Whose key it is; its certificates are ours, and few.
            machine = hashlib.sha256(knock.certificate).digest()
            others = self._proven.others((machine, refused.code), monotonic())
        else:
            network = network_of(knock.address)
            others = self._strangers.others((network, refused.code), monotonic())
        if others is None:
            return
        facts: dict[str, str | int] = {
            "claimed": knock.claimed,
            "client": knock.address,
            "reason": refused.slug,
            "detail": refused.reason,
            **_also(others),
        }
        if refused.code in (Code.BUSY, Code.GOING_AWAY):
            log.info("agent.refused", extra=facts)
        else:
            log.warning("agent.refused", extra=facts)
        if proven:
            self._audit.emit("agent.refused", **facts)

    def duplicate(self, newcomer: Lane, staying: Lane) -> None:
        """Two machines use one key."""
        others = self._duplicates.others(newcomer.thumbprint, monotonic())
        if others is None:
            return
        facts: dict[str, str | int] = {
            "agent": newcomer.name,
            "thumbprint": newcomer.thumbprint,
            "device": newcomer.device,
            "client": newcomer.address,
            "boot": newcomer.boot,
            "other_device": staying.device,
            "other_client": staying.address,
            "other_boot": staying.boot,
            **_also(others),
        }
        log.warning("agent.duplicate", extra=facts)
        self._audit.emit("agent.duplicate", **facts)


def _also(others: int) -> dict[str, int]:
    return {"others": others} if others else {}


def _facts(lane: Lane) -> dict[str, str | int | float]:
    return {
        "agent": lane.name,
        "device": lane.device,
        "client": lane.address,
        "boot": lane.boot,
        "lane": lane.number,
    }
