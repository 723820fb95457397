"""Fetch a new token while a session runs, before the proxy would have to end it.

A thread of its own with a socket of its own: the stream must not wait for the login host.
"""

from __future__ import annotations

import _thread
import time

from heim_tunnel import tokens
from heim_tunnel.complaints import AUTH, Complaint, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from heim_tunnel.dial import Way

__all__ = ["Renewal"]

PART: Final = 2 / 3
"""When a token is replaced: so much of what it had left when it was accepted."""

RETRY_S: Final = 30.0
"""Between attempts while the login host cannot be reached."""

NAP_S: Final = 30.0
"""The longest sleep: time.monotonic stands still while a laptop sleeps, a token's time does not."""


class Renewal:
    """Renews one session's token; `accepted` starts it and tells it of each new end."""

    def __init__(
        self,
        login_host: str,
        way: Way,
        *,
        target: str,
        offer: Callable[[str], None],
        fetch: Callable[..., str] | None = None,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            login_host: Where the token comes from.
            way: How that is reached.
            target: What lines on standard error are about.
            offer: Given each new token, on the thread.
            fetch: Gets a token that has so many seconds left; by default from `tokens.current`.
        """
        self._login_host = login_host
        self._way = way
        self._target = target
        self._offer = offer
        self._fetch = fetch or self._from_login_host
        self._expires = 0.0
        self._due = 0.0
        self._running = False
        self._news = _thread.allocate_lock()
        self._news.acquire()

    def accepted(self, expires: float) -> None:
        """The proxy took a token whose word ends at `expires` (epoch seconds)."""
        if expires == self._expires:
            return
        now = time.time()
        self._expires = expires
        self._due = now + (expires - now) * PART
        if not self._running:
            self._running = True
            _thread.start_new_thread(self._run, ())
        elif self._news.locked():
            self._news.release()

    def _run(self) -> None:
        warned = False
        while True:
            wait = self._due - time.time()
            if wait > 0:
                self._news.acquire(timeout=min(wait, NAP_S))
                continue
            try:
                token = self._fetch(self._expires - time.time() + 1)
            except Complaint as e:
                if not warned:
                    warned = True
                    end = time.strftime("%H:%M", time.localtime(self._expires))
                    say(self._target, f"{e.text} (this connection may end at {end})")
                if e.status == AUTH or time.time() > self._expires:
                    # Only the person can do something about it, or it is too late.
                    return
                self._due = time.time() + RETRY_S
                continue
            warned = False
            # Until READY says otherwise; an offer that is refused must not become a storm.
            self._due = time.time() + RETRY_S
            self._offer(token)

    def _from_login_host(self, left_s: float) -> str:
        login = tokens.current(
            self._login_host, self._way, target=self._target, sign_in=False, left_s=left_s
        )
        return login.access_token
