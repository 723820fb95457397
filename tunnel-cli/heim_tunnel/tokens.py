"""A token that is good now: from the file, refreshed, or by signing in again.

Parallel processes share the work: whoever holds the lock of a login host refreshes or opens the
one browser; the others wait, then find the new token in the file.
"""

from __future__ import annotations

import os
import time

from heim_runtime.complaints import AUTH, TRY_LATER, Complaint
from heim_tunnel.complaints import clean, say
from heim_tunnel.credentials import Login, load, locked, save
from heim_tunnel.dial import Way

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

__all__ = ["LEFT_S", "current", "refreshed"]

LEFT_S: Final = 60.0
"""A token with less than this left is refreshed before it is used."""

# RFC 6749, 5.2: the refresh token is used up, or its session has ended.
_OVER: Final = ("invalid_grant", "access_denied")

_TOKEN_PATH: Final = "/.heim/cli/token"  # noqa: S105 - a path


def current(
    login_host: str,
    way: Way,
    *,
    target: str | None,
    sign_in: bool = True,
    left_s: float = LEFT_S,
    refused: str | None = None,
) -> Login:
    """The login of a login host with an access token that has `left_s` left.

    Reads the file; when that is not enough, takes the lock, reads again, refreshes, and when the
    refresh is refused or nothing is stored, signs in with `heim_tunnel.login.run(login_host, way)`,
    which returns a Login and neither locks nor saves.

    Args:
        login_host: `host` or `host:port`.
        way: How it is reached; the authorities stored with the login hold where `way` names none.
        target: What the lines on standard error are about; None for none.
        sign_in: False to complain instead of opening a browser, as if nobody could answer.
        left_s: What the token must have left, seconds.
        refused: A token that was not accepted although its time is not over.

    Raises:
        Complaint: The login host could not be reached, or signing in failed or is not wanted.
    """
    login = load(login_host)
    if login is not None and _good(login, left_s, refused):
        return login
    since = time.time()
    with locked(login_host, tells=True):
        # Whoever held the lock until now has probably done the work.
        login = load(login_host)
        if login is not None and _good(login, left_s, refused):
            return login
        fresh = _refresh(login, way, refused) if login is not None else None
        if fresh is None:
            if not sign_in or not _is_attended():
                raise Complaint(f"{_why(login)}; run: heim-tunnel login {login_host}", AUTH)
            fresh = _sign_in(login_host, login, way, target=target, since=since)
        save(fresh)
    return fresh


def _good(login: Login, left_s: float, refused: str | None) -> bool:
    return login.access_expires - time.time() >= left_s and login.access_token != refused


def _refresh(login: Login, way: Way, refused: str | None) -> Login | None:
    """A refreshed login; None when only signing in helps."""
    if login.session_expires <= time.time():
        return None
    try:
        return refreshed(login, way)
    except Complaint:
        # The login host is away, the token is not over: it may be good for this connection.
        if login.access_token != refused and login.access_expires - time.time() > 1:
            return login
        raise


def _is_attended() -> bool:
    from heim_tunnel.browser import is_attended

    return is_attended(os.environ)


def _why(login: Login | None) -> str:
    return "not signed in" if login is None else "the session has ended"


def _sign_in(
    login_host: str, login: Login | None, way: Way, *, target: str | None, since: float
) -> Login:
    say(target, f"{_why(login)}; signing in at {login_host}")
    from heim_tunnel.login import run

    way = way.with_authorities(login) if login is not None else way
    return run(login_host, way, since=since)


def refreshed(login: Login, way: Way) -> Login | None:
    """A new access token for a login; None when the login host refuses. Hold the lock; save it.

    Raises:
        Complaint: The login host could not be reached or answered nonsense.
    """
    from heim_tunnel.request import post

    way = way.with_authorities(login)
    form = {"grant_type": "refresh_token", "refresh_token": login.refresh_token}
    reply = post(login.login_url + _TOKEN_PATH, form, way)
    if reply.status == 200:
        return Login.from_answer(
            reply.json(), login_host=login.login_host, now=time.time(), ca_file=way.ca_remembered
        )
    error = reply.json().get("error")
    if reply.status in (400, 401) and error in _OVER:
        return None
    raise Complaint(
        f"{login.login_host} does not renew the login (status {reply.status}, "
        f"{clean(str(error), 60)}); try again",
        TRY_LATER,
    )
