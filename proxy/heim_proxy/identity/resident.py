"""Sessions in memory: what a session is at run time, and the bounded table of those in use."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import Final

from heim_proxy.access.policy import Grants
from heim_proxy.access.subject import Subject, SubjectKind
from heim_proxy.identity.dialects import HeaderBlock
from heim_proxy.identity.session_cookie import subject_digest
from heim_proxy.live import EndReason, LiveExchange
from heim_proxy.store.base import SessionKind, SessionRow

__all__ = ["MAX_RESIDENT", "ResidentSessions", "Session"]

MAX_RESIDENT: Final = 20_000
"""Sessions kept in memory: about 3 KB each with its header blocks. Others are loaded when used."""

_EVICTED_AT_ONCE: Final = MAX_RESIDENT // 10
"""Finding the least recently seen costs a pass over the table, so it is paid once in 2000."""

_BLOCKS_KEPT_S: Final = 600.0
"""Header blocks of a session not seen for so long have expired, and are only memory."""

_SUBJECTS: Final = {
    SessionKind.SERVICE: SubjectKind.SERVICE_ACCOUNT,
    SessionKind.AGENT: SubjectKind.AGENT,
}
"""Whose sessions are not people's."""


class Session:
    """One login, in memory. Compared by identity; made by `Sessions` only.

    Attributes:
        sid: Its id, 24 characters of base64url. Not a credential: cookies and tokens are.
        kind: What holds it: a browser, somebody's command line, a program, an agent.
        label: What people call the device of a CLI login or of an agent.
        secret_hash: SHA-256 of a service token's secret, thumbprint of an agent's key; else empty.
        lasting: Neither the configured lifetime nor idleness ends it: it is nobody's login.
        subject: Who it belongs to.
        provider: Name of the identity provider that proved it.
        auth_time: When the person proved who they are, seconds since the epoch.
        created: When the session began.
        expires: Absolute end, whatever is done with it.
        last_seen: Latest request.
        ended: The EndReason's value once it has ended, else None.
        usable: In memory, in the table and not ended. False also after an eviction, when somebody
            still holds the object; the next request loads a new one.
        live: Exchanges in flight under it (the live registry's).
        grants: What policy grants it; the edge's cache, valid for `grants_generation`.
        blocks: Identity headers by host; `IdentityHeaders`' cache.
    """

    __slots__ = (
        "auth_time",
        "blocks",
        "created",
        "digest",
        "ended",
        "expires",
        "grants",
        "grants_generation",
        "kind",
        "label",
        "last_seen",
        "lasting",
        "live",
        "provider",
        "row_expires",
        "saved_seen",
        "secret_hash",
        "sid",
        "subject",
        "usable",
    )

    def __init__(self, row: SessionRow, *, lifetime: float) -> None:
        """The session of a store row, under the configured `lifetime` in seconds."""
        self.sid: Final = row.sid
        self.kind: Final = row.kind
        self.label: Final = row.label
        self.secret_hash: Final = row.secret_hash
        self.lasting: Final = row.kind in _SUBJECTS
        self.subject: Final = Subject(
            _SUBJECTS.get(row.kind, SubjectKind.USER),
            issuer=row.issuer,
            subject=row.subject,
            provider=row.provider,
            email=row.email,
            domain=row.domain,
            groups=frozenset(row.groups),
        )
        self.provider: Final = row.provider
        self.auth_time: Final = row.auth_time
        self.created: Final = row.created
        self.row_expires: Final = row.expires
        self.digest: Final = subject_digest(row.issuer, row.subject)
        self.expires = 0.0
        self.limit(lifetime)
        self.last_seen = row.last_seen
        self.saved_seen = row.last_seen
        self.ended: str | None = row.end_reason if row.ended is not None else None
        self.usable = False
        self.live: set[LiveExchange] = set()
        self.grants: Grants | None = None
        self.grants_generation = -1
        self.blocks: dict[str, HeaderBlock] = {}

    def __repr__(self) -> str:
        state = self.ended or ("usable" if self.usable else "unloaded")
        return f"<Session {self.subject.name!r} {self.sid[:6]}… {state} live={len(self.live)}>"

    def limit(self, lifetime: float) -> None:
        """Apply a lifetime; it can be shortened under a running session, never prolonged.

        A service token and an enrolment have the end they were created with: programs do not sign
        in every morning.
        """
        self.expires = (
            self.row_expires if self.lasting else min(self.row_expires, self.created + lifetime)
        )

    def overdue(self, now: float, idle: float) -> EndReason | None:
        """Why it must end by `now`; None while it may go on."""
        if now >= self.expires:
            return EndReason.EXPIRED
        if now - self.last_seen >= idle and not self.lasting:
            return EndReason.IDLE
        return None


class ResidentSessions:
    """The sessions in memory by id, at most MAX_RESIDENT of those without a live exchange."""

    __slots__ = ("_by_sid", "_limit", "_mortal", "_unsaved")

    def __init__(self, limit: int = MAX_RESIDENT) -> None:
        self._limit: Final = limit
        self._by_sid: dict[str, Session] = {}
        # Those of them that time alone can end. Ten thousand agents are not looked at for that.
        self._mortal: dict[str, Session] = {}
        # last_seen of evicted sessions, until it is flushed
        self._unsaved: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._by_sid)

    def __iter__(self) -> Iterator[Session]:
        """A copy, so that sessions may be dropped while walking it."""
        return iter(list(self._by_sid.values()))

    def get(self, sid: str) -> Session | None:
        """The session of that id, if it is in memory."""
        return self._by_sid.get(sid)

    def add(self, session: Session) -> None:
        """Take a session in, making room when there is none."""
        if len(self._by_sid) >= self._limit:
            self._evict()
        unsaved = self._unsaved.get(session.sid)
        if unsaved is not None:
            session.last_seen = max(session.last_seen, unsaved)
        session.usable = True
        self._by_sid[session.sid] = session
        if not session.lasting or session.row_expires < math.inf:
            self._mortal[session.sid] = session

    def drop(self, session: Session) -> None:
        """Let a session go: it was ended, evicted, or can no longer be trusted."""
        session.usable = False
        session.blocks.clear()
        session.grants = None
        if self._by_sid.get(session.sid) is session:
            del self._by_sid[session.sid]
            self._mortal.pop(session.sid, None)
        if session.ended is None and session.last_seen > session.saved_seen:
            self._unsaved[session.sid] = session.last_seen

    def overdue(self, now: float, idle: float) -> list[tuple[Session, EndReason]]:
        """Sessions that must end by `now`, with the reason."""
        seen_before = now - idle
        # Walked twice a second: two comparisons for each of 20 000 sessions are about 1 ms.
        late = [
            session
            for session in self._mortal.values()
            if session.expires <= now or session.last_seen <= seen_before
        ]
        return [(session, reason) for session in late if (reason := session.overdue(now, idle))]

    def unsaved(self, now: float) -> dict[str, float]:
        """last_seen of every session seen since it was saved; drops old header blocks too."""
        seen = dict(self._unsaved)
        for session in self._by_sid.values():
            if session.last_seen > session.saved_seen:
                seen[session.sid] = session.last_seen
            if session.blocks and now - session.last_seen > _BLOCKS_KEPT_S:
                session.blocks.clear()
        return seen

    def saved(self, seen: dict[str, float]) -> None:
        """The store has these times now."""
        for sid, when in seen.items():
            if self._unsaved.get(sid, when + 1) <= when:
                del self._unsaved[sid]
            session = self._by_sid.get(sid)
            if session is not None:
                session.saved_seen = max(session.saved_seen, when)

    def _evict(self) -> None:
        """Let the least recently seen go. Those with a live exchange stay: it must be endable."""
        idle = (session for session in self._by_sid.values() if not session.live)
        count = max(1, min(_EVICTED_AT_ONCE, self._limit // 10))
        for session in heapq.nsmallest(count, idle, key=_seen):
            self.drop(session)


def _seen(session: Session) -> float:
    return session.last_seen
