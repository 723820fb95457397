"""The permission for one stream: who may go where, by which rule, until when. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from heim_proxy.access.policy import Allow
from heim_proxy.edge.judge import valid_until
from heim_proxy.live import EndReason
from heim_proxy.store.base import SessionKind
from heim_wire.errors import Code

if TYPE_CHECKING:
    from heim_proxy.edge.judge import Judge
    from heim_proxy.identity.session import Session
    from heim_proxy.routing import Backend, TcpTarget
    from heim_proxy.snapshot import Snapshot

__all__ = ["ENDINGS", "TOKEN_GRACE_S", "Ending", "Passage", "again"]

# A token that was not renewed in time is a laptop that slept, or a login host that was away.
TOKEN_GRACE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stream ends: for the wire, for the access log, and in words.

    In the words, `{backend}` and `{again}` (how to get a new login) are to be filled in.
    """

    code: int
    end: str
    words: str


# What an end of a decision means to a stream.
ENDINGS: Final = {
    reason: Ending(code, reason.value, words)
    for reason, code, words in (
        (EndReason.LOGOUT, Code.REVOKED, "this login was signed out"),
        (EndReason.REVOKED, Code.REVOKED, "this login was revoked"),
        (EndReason.EXPIRED, Code.EXPIRED, "this login has ended; {again}"),
        (EndReason.IDLE, Code.EXPIRED, "this login was not used for too long; {again}"),
        (EndReason.SESSION_TOO_OLD, Code.EXPIRED, "{backend} needs a recent login; {again}"),
        (EndReason.POLICY_CHANGED, Code.REVOKED, "access to {backend} was withdrawn"),
        (EndReason.BACKEND_REMOVED, Code.NO_SUCH_TARGET, "{backend} takes no more connections"),
        (EndReason.BACKEND_MOVED, Code.GOING_AWAY, "{backend} has moved; connect again"),
        (EndReason.SHUTDOWN, Code.GOING_AWAY, "the proxy is restarting; connect again"),
    )
}
_TOKEN_OVER: Final = Ending(
    Code.EXPIRED, EndReason.EXPIRED.value, "the access token was not renewed in time; {again}"
)
# The store has been away for longer than sessions in memory are believed.
_UNCHECKED: Final = Ending(
    Code.BUSY, EndReason.EXPIRED.value, "your login cannot be checked just now; try again later"
)


@dataclass(slots=True, eq=False)
class Passage:
    """One user's way to one target. `token_end` moves with every newer token.

    Attributes:
        session: The login; the same one for life.
        target: Where to, under the snapshot in force.
        allow: The decision.
        host: Canonical host that was asked.
        key: The client's Sec-WebSocket-Key.
        token_end: When the word of its token ends, seconds since the epoch; inf for never.
        request_id: What finds it in logs.
        client: The client's address.
    """

    session: Session
    target: TcpTarget
    allow: Allow
    host: str
    key: str = field(repr=False)
    token_end: float
    request_id: str
    client: str

    @property
    def backend(self) -> Backend:
        """Whose target it is."""
        return self.target.backend

    @property
    def user(self) -> str:
        """Whom it is for, as logs and messages say it."""
        return self.session.subject.name

    @property
    def again(self) -> str:
        """What its user does for a new login."""
        return again(program=self.session.kind is SessionKind.SERVICE)

    def login_end(self, snapshot: Snapshot) -> float:
        """When the login ends for this backend, seconds since the epoch; inf for never."""
        backend = self.target.backend
        return valid_until(self.session, snapshot.backends.get(backend.name, backend))

    def valid_until(self, snapshot: Snapshot) -> float:
        """When it must end unless a newer token comes, seconds since the epoch; inf for never."""
        return min(self.login_end(snapshot), self.token_end + TOKEN_GRACE_S)

    def review(self, judge: Judge) -> EndReason | None:
        """Why it does not hold under the snapshot of `judge`; None when it does, with its target.

        A target at another address is another thing, whatever its name. Of an agent's we do not
        know by which of the roles that it was told of it let the stream in: it ends with any.
        """
        snapshot = judge.snapshot
        name = self.target.backend.name
        target = snapshot.tcp.get(name)
        if target is None:
            return EndReason.BACKEND_REMOVED
        if self.host != snapshot.login_host and snapshot.tcp_for(self.host) is not target:
            return EndReason.BACKEND_REMOVED
        if target.endpoint != self.target.endpoint:
            return EndReason.BACKEND_MOVED
        decision = judge.grants(self.session).connect(name)
        if not isinstance(decision, Allow):
            return EndReason.POLICY_CHANGED
        if target.endpoint.scheme == "agent" and not set(self.allow.roles) <= set(decision.roles):
            return EndReason.POLICY_CHANGED
        self.target = target
        return None

    def ending(self, reason: EndReason, snapshot: Snapshot, now: float) -> Ending:
        """What its end means: "expired" may be said of the login, of its age, or of the token."""
        ending = ENDINGS[reason]
        if reason is EndReason.EXPIRED and now < self.session.expires:
            if now >= self.login_end(snapshot):
                ending = ENDINGS[EndReason.SESSION_TOO_OLD]
            else:
                ending = _TOKEN_OVER if now >= self.valid_until(snapshot) else _UNCHECKED
        words = ending.words.format(backend=self.backend.name, again=self.again)
        return Ending(ending.code, ending.end, words)


def again(*, program: bool) -> str:
    """What people, or those who run a program, do for a new login."""
    return "it needs a new service token" if program else "run: heim-tunnel login"
