"""Fetch a new token while a session runs, before the proxy would have to end it.

A thread of its own with a socket of its own: the stream must not wait for the login host. When it
is time is counted by our clock, from what the login host said that the token has left: the proxy's
clock may be another.
"""

from __future__ import annotations

import _thread
import time

from heim_runtime.complaints import AUTH, Complaint
from heim_tunnel.complaints import say
from heim_tunnel.tokens import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from heim_tunnel.dial import Way
    from heim_tunnel.grant import Login

__all__ = ["Renewal"]

PART: Final = 2 / 3
"""When a token is replaced: so much of what it had left when it was first used."""

RETRY_S: Final = 30.0
"""Between attempts while the login host cannot be reached."""

NAP_S: Final = 30.0
"""The longest sleep: time.monotonic stands still while a laptop sleeps, a token's time does not."""


class Renewal:
    """Renews one session's token for as long as the process lives."""

    def __init__(
        self,
        login: Login,
        way: Way,
        *,
        target: str,
        offer: Callable[[str], None],
        fetch: Callable[[Login], Login] | None = None,
    ) -> None:
        """Prepare; `start` it when the proxy has accepted the token.

        Args:
            login: What the session began with.
            way: How its login host is reached.
            target: What lines on standard error are about.
            offer: Given each new token, on the thread.
            fetch: Gets a login with another token than this one's; from `tokens.current` if None.
        """
        self._login = login
        self._way = way
        self._target = target
        self._offer = offer
        self._fetch = fetch or self._from_login_host
        self._running = False

    def start(self) -> None:
        """Start the thread; again is fine."""
        if not self._running:
            self._running = True
            _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        used = time.time()
        due = used + (self._login.access_expires - used) * PART
        warned = False
        while True:
            wait = due - time.time()
            if wait > 0:
                time.sleep(min(wait, NAP_S))
                continue
            try:
                login = self._fetch(self._login)
            except Complaint as e:
                if not warned:
                    warned = True
                    self._warn(e.text)
                if e.status == AUTH:
                    # Only the person can do something about it.
                    return
                due = time.time() + RETRY_S
                continue
            warned = False
            self._login = login
            used = time.time()
            # Not at once again, whatever the login host says: that would be a storm.
            due = used + max(1.0, (login.access_expires - used) * PART)
            self._offer(login.access_token)

    def _warn(self, why: str) -> None:
        end = time.strftime("%H:%M", time.localtime(self._login.access_expires))
        say(self._target, f"{why} (this connection may end at {end})")

    def _from_login_host(self, login: Login) -> Login:
        return current(
            login.login_host,
            self._way,
            target=self._target,
            sign_in=False,
            refused=login.access_token,
        )
