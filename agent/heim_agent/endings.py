"""How an attempt or a lane ended: what kind of end, in words, and what to do about it.

Pure: what the network says is made into an `Ending` here, and `pacing` decides by it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from heim_agent.complaints import with_hint
from heim_wire.agents import ANOTHER_AUTHORITY
from heim_wire.errors import Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from heim_runtime.complaints import Complaint
    from heim_wire.events import GoAway
    from heim_wire.problem import Refused

__all__ = ["Ending", "Kind", "NotConnected", "failed", "refused", "sent_away", "untrusted"]


class Kind(enum.Enum):
    """What to conclude from an end."""

    UNREACHABLE = "unreachable"
    """There was no connection: DNS, TCP, a web proxy, TLS, or not the proxy's answer."""
    LOST = "lost"
    """The connection broke, or nothing more came."""
    AWAY = "away"
    """The proxy is restarting and said so."""
    BUSY = "busy"
    """The proxy has no room just now."""
    REFUSED = "refused"
    """The proxy does not let this agent in. Somebody has to do something."""
    UNTRUSTED = "untrusted"
    """It is not the proxy that this agent joined. Somebody has to do something."""
    SUPERSEDED = "superseded"
    """A newer program runs with the same key."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An end.

    Attributes:
        kind: What to conclude.
        text: What happened, one printable line.
        hint: What to do about it, or "".
        code: A slug of `heim_wire.errors` if the proxy said one, else "".
        lived_s: How long the lane was ready before, in seconds; 0 if it never was.
        wait_s: Seconds that the other side asked us to stay away, or None.
        try_for_s: Seconds within which it expects to be back; 0 if it did not say.
        request_id: What the proxy's log calls it, or "".
    """

    kind: Kind
    text: str
    hint: str = ""
    code: str = ""
    lived_s: float = 0.0
    wait_s: float | None = None
    try_for_s: float = 0.0
    request_id: str = ""

    @property
    def line(self) -> str:
        """Text and hint in one line."""
        return with_hint(self.text, self.hint)

    def after(self, lived_s: float) -> Ending:
        """The same, of a lane that was ready for so long."""
        return replace(self, lived_s=lived_s)


class NotConnected(Exception):  # noqa: N818 - a thing that happened, not a mistake
    """An attempt ended before its lane was ready."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.text)
        self.ending = ending


_REJOIN: Final = "run: heim-agent join"
_LOST_AUTHORITY: Final = (
    "the proxy has another authority for agents than when this one joined, as when its state was "
    f"lost: get a join token made with --replace and {_REJOIN}"
)
# What the proxy says in short, and the hint in full.
_IN_SHORT: Final = "; join again"
_BY_CODE: Final = {
    Code.UNAUTHENTICATED: (
        Kind.REFUSED,
        "if a load balancer terminates TLS before Heim, its key belongs into the proxy's "
        f"tunnel.agent_tls_keys; otherwise {_REJOIN}",
    ),
    Code.FORBIDDEN: (
        Kind.REFUSED,
        "whoever runs the proxy has to list this agent under agents: in its configuration",
    ),
    Code.REVOKED: (Kind.REFUSED, f"if it shall come back, get a new join token and {_REJOIN}"),
    Code.EXPIRED: (Kind.REFUSED, f"get a new join token and {_REJOIN}"),
    Code.SUPERSEDED: (
        Kind.SUPERSEDED,
        "another heim-agent runs with this key: a second service, or a copied machine, which has "
        f"to remove the copied key and {_REJOIN} for a name of its own",
    ),
    Code.GOING_AWAY: (Kind.AWAY, ""),
    Code.BUSY: (Kind.BUSY, ""),
}
_TOLD: Final = {
    Code.UNAUTHENTICATED: "the proxy did not believe who this agent is",
    Code.FORBIDDEN: "the proxy's configuration does not have this agent",
    Code.REVOKED: "this agent was revoked",
    Code.EXPIRED: "the certificate of this agent has expired",
    Code.SUPERSEDED: "another connection took the place of this one",
    Code.GOING_AWAY: "the proxy is restarting",
    Code.BUSY: "the proxy is busy",
    Code.PROTOCOL: "the proxy says that this agent broke the protocol; update the older of the two",
}


def sent_away(goaway: GoAway) -> Ending:
    """The proxy said GOAWAY."""
    from heim_wire.errors import FAILURES

    kind, hint = _BY_CODE.get(goaway.code, (Kind.LOST, ""))
    failure = FAILURES.get(goaway.code)
    text = goaway.reason or _TOLD.get(goaway.code) or f"the proxy ended it (code {goaway.code})"
    if hint:
        text = text.removesuffix(_IN_SHORT)
    if goaway.reason == ANOTHER_AUTHORITY:
        # No load balancer does that.
        hint = _LOST_AUTHORITY
    return Ending(
        kind,
        text,
        hint,
        code=failure.slug if failure is not None else "",
        # 0 is what a GOAWAY has that does not say.
        wait_s=goaway.reconnect_in or None,
        try_for_s=goaway.try_for,
    )


def refused(answer: Refused) -> Ending:
    """The request for a tunnel was not answered with 101."""
    if answer.status in (429, 503):
        kind = Kind.BUSY
    elif answer.status in (401, 403) and answer.code:
        kind = Kind.REFUSED
    else:
        # A load balancer, a captive portal, an older proxy: it passes, or somebody mends it.
        kind = Kind.UNREACHABLE
    return Ending(
        kind,
        answer.detail,
        answer.hint,
        code=answer.code,
        wait_s=answer.retry_after,
        request_id=answer.request_id,
    )


def failed(complaint: Complaint) -> Ending:
    """There was no connection."""
    return Ending(Kind.UNREACHABLE, complaint.text)


def untrusted(host: str, reason: str) -> Ending:
    """What answers at `host` did not prove that it is the proxy that this agent joined."""
    return Ending(
        Kind.UNTRUSTED,
        f"{host} did not prove that it is the proxy that this agent joined: {reason}",
        "somebody on the way may answer in its place with a certificate that this machine trusts; "
        f"if the proxy's authority for agents was replaced, get a new join token and {_REJOIN}",
    )
