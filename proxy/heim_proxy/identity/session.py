"""Sessions: from a cookie to who is asking, and every way in which that ends.

A session is a store row plus one sealed cookie per host. `find` runs for every request and touches
memory only; `load` reads the store once per session; `tick` keeps memory true: it ends what
expired, what fell idle and what was ended elsewhere, and writes back when sessions were last seen.
"""

from __future__ import annotations

import enum
from typing import Final

from heim_proxy.access.subject import Subject
from heim_proxy.identity.cookies import SESSION_COOKIE, set_cookie
from heim_proxy.identity.feed import RevocationFeed, in_time
from heim_proxy.identity.keys import KeyRing
from heim_proxy.identity.loading import SessionLoader
from heim_proxy.identity.resident import ResidentSessions, Session
from heim_proxy.identity.seal import Purpose, Sealer
from heim_proxy.identity.session_cookie import CookieClaims, new_sid
from heim_proxy.identity.verified import VerifiedCookie, VerifiedCookies
from heim_proxy.identity.writeback import WriteBack
from heim_proxy.live import EndReason, LiveRegistry
from heim_proxy.observe.audit import Audit
from heim_proxy.store.base import RefreshRow, SessionKind, SessionRow, Store, StoreUnavailable
from heim_runtime.clock import Clock

__all__ = ["Miss", "Session", "Sessions"]

_AUDIT: Final = Audit()

CLOCK_SKEW_S: Final = 60.0
"""How far in the future a cookie may have been made: by another replica, or before our clock was
set back."""


class Miss(enum.Enum):
    """Why `find` gives no session."""

    INVALID = "invalid"
    """The cookie is not ours, expired, or its session ended: anonymous, clear it."""

    LOAD = "load"
    """Ours and in time; whether its session still exists only the store knows: `load`."""


class Sessions:
    """All sessions of this process. Not thread-safe: everything runs on one event loop."""

    def __init__(
        self,
        store: Store,
        sealer: Sealer,
        live: LiveRegistry,
        *,
        lifetime: float,
        idle: float,
        clock: Clock,
    ) -> None:
        """Nothing is read yet.

        Args:
            store: Where sessions survive a restart.
            sealer: Seals cookies; `set_keys` replaces its ring.
            live: Told when a session ends, so that its exchanges end too.
            lifetime: Seconds a session lasts at most.
            idle: Seconds it lasts without a request.
            clock: Measures the grace when the store is down.
        """
        self._store: Final = store
        self._sealer: Final = sealer
        self._live: Final = live
        self._lifetime = lifetime
        self._idle = idle
        self._clock: Final = clock
        self._resident: Final = ResidentSessions()
        self._verified: Final = VerifiedCookies()
        self._feed: Final = RevocationFeed(store, clock)
        self._loader: Final = SessionLoader(store, self._feed, self._take_in)
        self._write_back: Final = WriteBack(store, self._resident, clock)

    def __len__(self) -> int:
        """How many are in memory."""
        return len(self._resident)

    @property
    def store_problem(self) -> str | None:
        """Why the store could not be read lately; None while all is well."""
        return self._feed.problem

    def store_check(self) -> tuple[bool, str]:
        """Whether to be sent requests, as far as the store goes, and what is wrong with it.

        While it can be read but not written, whoever is signed in is served as ever.
        """
        if self.store_problem is not None:
            return False, self.store_problem
        problem = self._store.write_problem
        return True, f"nobody can sign in: cannot be written: {problem}" if problem else ""

    def find(self, host: str, cookie: bytes, now: float) -> Session | Miss:
        """The session of a cookie presented on `host`, from memory.

        Args:
            host: The canonical host the request is for; a cookie made for another one is invalid.
            cookie: Value as received.
            now: Seconds since the epoch.
        """
        # By the cookie alone: it was sealed for one host, and comparing that is cheaper than
        # building a (host, cookie) key for every request.
        entry = self._verified.recent.get(cookie)
        if entry is not None and entry.host == host:
            session = entry.session
            if session.usable and now < entry.expires and now - session.last_seen < self._idle:
                session.last_seen = now
                return session
        return self._find_slowly(host, cookie, now)

    async def load(self, host: str, cookie: bytes, now: float) -> Session | None:
        """The session of a cookie, from the store if need be; None when it is anonymous.

        Raises:
            StoreUnavailable: when only the store could tell.
        """
        found = self.find(host, cookie, now)
        if isinstance(found, Session):
            return found
        opened = self._open(host, cookie, now) if found is Miss.LOAD else None
        if opened is None:
            return None
        session = await self.get(opened[0].sid, now)
        # Once more: its key may have been removed from the ring while the store was asked.
        opened = self._open(host, cookie, now)
        if opened is None:
            return None
        claims, stale = opened
        if session is None:
            # Final: an ended session never comes back. Without the memo, a browser that keeps an
            # old cookie would cost a store read per request.
            gone = _gone(claims)
            self._verified.add(cookie, VerifiedCookie(host, gone, expires=0.0, stale=False))
            return None
        return self._admit(host, cookie, claims, session, stale=stale)

    async def get(self, sid: str, now: float) -> Session | None:
        """The session of an id that was proven some other way; None when it is over or unknown.

        Raises:
            StoreUnavailable: when it is not in memory and the store does not answer.
        """
        session = await self._found(sid)
        return session if session is not None and self._still_good(session, now) else None

    async def peek(self, sid: str, now: float) -> Session | None:
        """As `get`, without noting that the session was used: nothing was proven yet.

        Raises:
            StoreUnavailable: when it is not in memory and the store does not answer.
        """
        session = await self._found(sid)
        return session if session is not None and self._in_time(session, now) else None

    def living(self, row: SessionRow, now: float) -> Session | None:
        """What a row from the store is in this process, not taken in; None when it is over.

        For lists: nothing is read, noted as used or ended by looking.
        """
        session = self._resident.get(row.sid) or Session(row, lifetime=self._lifetime)
        over = session.ended is not None or self._write_back.ends(row.sid)
        return None if over or session.overdue(now, self._idle) is not None else session

    async def create(
        self, subject: Subject, *, auth_time: float, tokens: bytes, now: float
    ) -> Session:
        """Begin a session for somebody who just proved who they are. Its id is always new.

        Args:
            subject: Who; with the groups of its provider.
            auth_time: When they proved it, as the provider says.
            tokens: Refresh and id token, to be sealed into the row; may be empty.
            now: Seconds since the epoch.

        Raises:
            StoreUnavailable: when it cannot be stored; then there is no session.
            ValueError: when `tokens` are over 64 KiB.
        """
        sid = new_sid()
        sealed = self._sealer.seal_blob(tokens, purpose=Purpose.TOKENS, host="", name=sid)
        row = SessionRow(
            sid=sid,
            issuer=subject.issuer,
            subject=subject.subject,
            email=subject.email,
            domain=subject.domain,
            groups=tuple(sorted(subject.groups)),
            provider=subject.provider,
            auth_time=auth_time,
            created=now,
            expires=now + self._lifetime,
            last_seen=now,
            sealed_tokens=sealed if tokens else b"",
        )
        await self._feed.start()
        await in_time(self._store.create_session(row))
        return self._take_in(row)

    async def create_cli(
        self, person: Session, *, label: str, refresh: RefreshRow, now: float
    ) -> Session:
        """Begin a CLI login of somebody who has a session in a browser.

        It is as old as their proof of who they are, and lasts as long as any new session.

        Args:
            person: The browser's session.
            label: What people call the device.
            refresh: Its first refresh token, whose `sid` becomes the session's id.
            now: Seconds since the epoch.

        Raises:
            StoreUnavailable: when it cannot be stored; then there is no session.
        """
        subject = person.subject
        row = SessionRow(
            sid=refresh.sid,
            issuer=subject.issuer,
            subject=subject.subject,
            email=subject.email,
            domain=subject.domain,
            groups=tuple(sorted(subject.groups)),
            provider=person.provider,
            auth_time=person.auth_time,
            created=now,
            expires=now + self._lifetime,
            last_seen=now,
            kind=SessionKind.CLI,
            label=label,
        )
        await self._feed.start()
        await in_time(self._store.create_session(row, refresh=refresh))
        return self._take_in(row)

    async def tokens(self, sid: str) -> bytes:
        """The tokens given to `create`; empty when there are none or their key was removed.

        Raises:
            StoreUnavailable: when the store does not answer.
        """
        row = await in_time(self._store.get_session(sid))
        if row is None or not row.sealed_tokens:
            return b""
        opened = self._sealer.open_blob(
            row.sealed_tokens, purpose=Purpose.TOKENS, host="", name=sid
        )
        return opened.payload if opened else b""

    def cookie_for(self, session: Session, host: str, now: float) -> str:
        """The Set-Cookie value that lets a browser use the session on one host."""
        claims = CookieClaims(session.sid, session.digest, now, session.auth_time, session.expires)
        value = self._sealer.seal(
            claims.pack(), purpose=Purpose.SESSION, host=host, name=SESSION_COOKIE
        )
        return set_cookie(SESSION_COOKIE, value, session.expires - now)

    def renewal(self, host: str, cookie: bytes) -> str | None:
        """A Set-Cookie value to replace a cookie sealed with an old key; None when it is fresh."""
        if not self._verified.any_stale:
            return None
        entry = self._verified.find(cookie)
        if entry is None or not entry.stale or entry.host != host or not entry.session.usable:
            return None
        return self.cookie_for(entry.session, host, self._clock.now())

    async def end(self, sid: str, reason: EndReason, now: float) -> bool:
        """End a session everywhere: here and its exchanges at once, then in the store.

        Returns:
            False when the store knew no live session of that id.

        Raises:
            StoreUnavailable: it ended in this process and `tick` will tell the store as soon as it
                answers, but a restart before that would bring the session back.
        """
        self._forget(sid, reason)
        return await self._write_back.end(sid, reason, now)

    async def tick(self, now: float) -> None:
        """Keep memory true. Called twice a second; never raises StoreUnavailable.

        What expired or fell idle ends first, because that needs no store. A revocation by another
        process ends the session's exchanges within one tick of being written.
        """
        for session, reason in self._resident.overdue(now, self._idle):
            self._finish(session, reason, now)
        for entry in await self._feed.read():
            self._forget(entry.sid, _reason(entry.reason))
        if self._feed.problem is not None:
            if self._feed.lost:
                self._distrust_memory()
            return
        try:
            await self._write_back.run(now)
        except StoreUnavailable:
            # `store_check` and the store's counter say so; nothing is lost, only later.
            return

    def set_keys(self, ring: KeyRing) -> None:
        """Use another key ring; cookies of a removed key are invalid from now on."""
        self._sealer.set_keys(ring)
        self._verified.clear()

    def set_limits(self, lifetime: float, idle: float) -> None:
        """Apply other limits, in seconds. A shorter lifetime holds for running sessions too."""
        self._lifetime = lifetime
        self._idle = idle
        for session in self._resident:
            session.limit(lifetime)
        self._verified.clear()

    def _find_slowly(self, host: str, cookie: bytes, now: float) -> Session | Miss:
        entry = self._verified.find(cookie)
        if entry is not None:
            session = entry.session
            if entry.host != host or session.ended is not None or now >= entry.expires:
                return Miss.INVALID
            if session.usable:
                return session if self._still_good(session, now) else Miss.INVALID
        opened = self._open(host, cookie, now)
        if opened is None:
            return Miss.INVALID
        claims, stale = opened
        resident = self._resident.get(claims.sid)
        if resident is None:
            return Miss.INVALID if self._write_back.ends(claims.sid) else Miss.LOAD
        if not self._still_good(resident, now):
            return Miss.INVALID
        return self._admit(host, cookie, claims, resident, stale=stale) or Miss.INVALID

    def _open(self, host: str, cookie: bytes, now: float) -> tuple[CookieClaims, bool] | None:
        """The claims of a cookie that we made for `host` and that is in time, and whether stale."""
        opened = self._sealer.open(cookie, purpose=Purpose.SESSION, host=host, name=SESSION_COOKIE)
        claims = CookieClaims.unpack(opened.payload) if opened is not None else None
        if opened is None or claims is None:
            return None
        if claims.issued > now + CLOCK_SKEW_S or claims.expires <= now:
            return None
        return claims, opened.stale

    def _admit(
        self, host: str, cookie: bytes, claims: CookieClaims, session: Session, *, stale: bool
    ) -> Session | None:
        """Accept a cookie for a session that is good, and remember it; None when they disagree.

        The row is the truth. One that belongs to somebody else, or is younger than its cookie, was
        not made together with it (a store restored from a backup, say); what else differs is taken
        from the row, and the earlier of the two ends counts.
        """
        if session.kind is not SessionKind.BROWSER:
            return None
        if claims.subject != session.digest or claims.issued < session.created - CLOCK_SKEW_S:
            return None
        expires = min(claims.expires, session.expires)
        self._verified.add(cookie, VerifiedCookie(host, session, expires=expires, stale=stale))
        return session

    def _still_good(self, session: Session, now: float) -> bool:
        """Whether a session may be used; ends it when its time is over, else notes that it was."""
        if not self._in_time(session, now):
            return False
        session.last_seen = now
        return True

    def _in_time(self, session: Session, now: float) -> bool:
        """Whether a session is alive; ends it when its time is over."""
        if session.ended is not None:
            return False
        reason = session.overdue(now, self._idle)
        if reason is not None:
            self._finish(session, reason, now)
            return False
        return True

    async def _found(self, sid: str) -> Session | None:
        """The session of an id, from memory or the store, whether or not it is still good."""
        session = self._resident.get(sid)
        if session is None and not self._write_back.ends(sid):
            session = await self._loader.load(sid)
        return session

    def _take_in(self, row: SessionRow) -> Session:
        session = Session(row, lifetime=self._lifetime)
        self._resident.add(session)
        return session

    def _finish(self, session: Session, reason: EndReason, now: float) -> None:
        """End a session whose time is over, and have that written down."""
        self._forget(session.sid, reason)
        # Expiry needs no record, the row says it; idleness is known only here.
        if reason is not EndReason.EXPIRED:
            self._write_back.owe(session.sid, reason, now)

    def _forget(self, sid: str, reason: EndReason) -> None:
        """End a session in this process, wherever it is on its way through it."""
        self._loader.ended(sid)
        session = self._resident.get(sid)
        if session is not None:
            session.ended = reason.value
            self._resident.drop(session)
            streams = self._live.end_session(session, reason)
            who = session.subject.name
            _AUDIT.emit("session.ended", sid=sid, user=who, reason=reason, exchanges=streams)

    def _distrust_memory(self) -> None:
        """The grace is over: from here on only the store can say that a session is still good."""
        for session in self._resident:
            self._resident.drop(session)
            self._live.end_session(session, EndReason.EXPIRED)


def _gone(claims: CookieClaims) -> Session:
    """Stands for a session that is over, in the memory of verified cookies."""
    row = SessionRow(
        sid=claims.sid, issuer="", subject="", email=None, domain=None, groups=(), provider="",
        auth_time=0.0, created=0.0, expires=0.0, last_seen=0.0, ended=0.0, end_reason="gone",
    )  # fmt: skip
    return Session(row, lifetime=0.0)


def _reason(value: str) -> EndReason:
    """The feed's word; a newer process may know reasons that we do not."""
    try:
        return EndReason(value)
    except ValueError:
        return EndReason.REVOKED
