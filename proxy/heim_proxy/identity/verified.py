"""Cookies that were verified, by their bytes, so that a request costs one dictionary hit."""

from __future__ import annotations

from typing import Final

from heim_proxy.identity.resident import Session

__all__ = ["VerifiedCookie", "VerifiedCookies"]

MAX_COOKIES: Final = 20_000
"""One per person and backend host in use; about 500 bytes each."""


class VerifiedCookie:
    """A cookie that opened: the host it was made for and the session it belongs to.

    A session that is not usable makes it a memo that says so; `session.ended` tells why.
    """

    __slots__ = ("expires", "host", "session", "stale")

    def __init__(self, host: str, session: Session, *, expires: float, stale: bool) -> None:
        self.host: Final = host
        self.session: Final = session
        self.expires: Final = expires
        self.stale: Final = stale


class VerifiedCookies:
    """A bounded memory of cookies in two generations.

    When `recent` is full it becomes the older generation and what was there is forgotten; a hit in
    the older one moves up. That forgets nothing that was used lately, as an LRU list would, and a
    hit in `recent` writes nothing.
    """

    __slots__ = ("_half", "_older", "any_stale", "recent")

    def __init__(self, limit: int = MAX_COOKIES) -> None:
        self._half: Final = max(1, limit // 2)
        self.recent: dict[bytes, VerifiedCookie] = {}
        self._older: dict[bytes, VerifiedCookie] = {}
        self.any_stale = False

    def __len__(self) -> int:
        return len(self.recent) + len(self._older)

    def find(self, cookie: bytes) -> VerifiedCookie | None:
        """What is known about a cookie, from either generation."""
        entry = self.recent.get(cookie)
        if entry is None:
            entry = self._older.pop(cookie, None)
            if entry is not None:
                self.add(cookie, entry)
        return entry

    def add(self, cookie: bytes, entry: VerifiedCookie) -> None:
        """Remember a cookie that opened. What did not open must not come here: it is unbounded."""
        if len(self.recent) >= self._half and cookie not in self.recent:
            self._older = self.recent
            self.recent = {}
        self.recent[cookie] = entry
        if entry.stale:
            self.any_stale = True

    def clear(self) -> None:
        """Forget everything; cookies are verified again."""
        self.recent = {}
        self._older = {}
        self.any_stale = False
