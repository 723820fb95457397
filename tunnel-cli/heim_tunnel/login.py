"""`heim-tunnel login`, and the sign-in that a `proxy` without a token needs in between."""

from __future__ import annotations

import argparse
import os
import threading
import time
from typing import Final

from heim_runtime.complaints import AUTH, Complaint, UsageError
from heim_tunnel import attempt, authorize, device
from heim_tunnel.complaints import clean, say
from heim_tunnel.credentials import Login, known, load, locked, save
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.loginhost import revoke

__all__ = [
    "chosen_host",
    "command",
    "is_named",
    "readable",
    "run",
    "sign_in",
    "signed_in_host",
    "until",
    "with_authorities",
]

_NAMING: Final = ("HEIM_LOGIN", "HEIM_PROXY")

GOODBYE_S: Final = 3.0
"""How long a new login waits for the end of the session that it takes the place of."""


def run(
    login_host: str,
    way: Way,
    *,
    with_device: bool = False,
    browser: bool = True,
    since: float | None = None,
) -> Login:
    """Sign in at a login host. Neither locks nor saves; nothing is written to standard output.

    Args:
        login_host: `host` or `host:port`, as typed or stored.
        way: How it is reached.
        with_device: Show a code to be typed on another machine, instead of using a browser here.
        browser: False to print the address without opening it.
        since: When the wait for the login host's lock began (epoch seconds): a sign-in that
            another process failed at since then is not tried again. None tries in any case.

    Raises:
        Complaint: It was refused or not finished in time, or the login host cannot be reached.
    """
    failed = None if since is None else attempt.failed_since(login_host, since)
    if failed is not None:
        raise failed
    try:
        if with_device:
            return device.sign_in(login_host, way)
        return authorize.sign_in(login_host, way, browser=browser)
    except Complaint as complaint:
        attempt.remember(login_host, complaint)
        raise


def command(args: argparse.Namespace, way: Way) -> int:
    """`heim-tunnel login [LOGIN_HOST]`: sign in again even if a login is stored."""
    login_host = chosen_host(args.login_host)
    login = sign_in(login_host, way, with_device=args.device, browser=not args.no_browser)
    say(
        login_host,
        f"signed in as {clean(login.user, 200)} until {until(login.session_expires)}; "
        "`heim-tunnel list` shows what you may reach",
    )
    return 0


def sign_in(login_host: str, way: Way, *, with_device: bool, browser: bool) -> Login:
    """Sign in and store it; whoever waited for another process's sign-in takes that one.

    Somebody else's login that was stored before is ended then. One's own is left to its time: the
    tunnels that are open under it would be cut by doing what they advise before it ends.
    """
    since, before = time.time(), readable(login_host)
    with locked(login_host, tells=True):
        now = readable(login_host)
        if now is not None and (before is None or now.access_token != before.access_token):
            return now
        way = with_authorities(way, now)
        login = run(login_host, way, with_device=with_device, browser=browser, since=since)
        save(login)
    if now is not None and now.user != login.user and now.session_expires > time.time():
        _end(now, way)
    return login


def _end(before: Login, way: Way) -> None:
    """End the session of a login that was replaced, if that is quick; it never fails."""
    # The thread is left behind with its own deadlines; None while nobody knows how it went.
    told: list[str | None] = [None]

    def work() -> None:
        try:
            revoke(before, way)
        except Exception as error:  # noqa: BLE001 - the new login is good whatever it was
            told[0] = f"the login before this one was not ended: {error}"
        else:
            told[0] = "the login before this one has ended"

    thread = threading.Thread(target=work, name="heim-tunnel", daemon=True)
    thread.start()
    thread.join(GOODBYE_S)
    way.tell(told[0] or "the login before this one may not have ended: no answer yet")


def readable(login_host: str) -> Login | None:
    """The stored login; None also when its file is damaged, since a new one replaces that."""
    try:
        return load(login_host)
    except Complaint:
        return None


def chosen_host(typed: str | None) -> str:
    """The login host that is meant: typed, $HEIM_LOGIN, $HEIM_PROXY or the only stored one.

    Raises:
        UsageError: There is none, or there are several.
    """
    if typed:
        return str(Endpoint.parse(typed, what="LOGIN_HOST"))
    for variable in _NAMING:
        if named := os.environ.get(variable):
            return str(Endpoint.parse(named, what=variable))
    hosts = known()
    if not hosts:
        raise UsageError(
            "which login host? Name it once, as in: heim-tunnel login auth.x.example.com"
        )
    if len(hosts) > 1:
        raise UsageError(f"which login host? There are logins at {', '.join(hosts)}")
    return hosts[0]


def is_named(typed: str | None) -> bool:
    """Whether a login host was typed, or the environment names one."""
    return any((typed, *map(os.environ.get, _NAMING)))


def signed_in_host(typed: str | None, *, token_file: str | None = None) -> str:
    """`chosen_host` for a command that needs a token, not a place to sign in.

    Raises:
        Complaint: Nobody is signed in anywhere, or there are several logins.
    """
    if not is_named(typed) and not known():
        if token_file is not None:
            raise UsageError("which login host? A service token does not say; set HEIM_LOGIN")
        raise Complaint("nobody is signed in; run: heim-tunnel login LOGIN_HOST", AUTH)
    return chosen_host(typed)


def with_authorities(way: Way, login: Login | None) -> Way:
    """The way with the authorities that a login was made with, unless others were asked for."""
    return way if login is None else way.with_authorities(login)


def until(when: float, now: float | None = None) -> str:
    """A time for people: `17:00` today, else with its date; local time, minutes."""
    today = time.strftime("%Y-%m-%d", time.localtime(now))
    try:
        there = time.localtime(when)
    except (OverflowError, ValueError, OSError):
        return "the end of time"
    day, minute = time.strftime("%Y-%m-%d", there), time.strftime("%H:%M", there)
    return minute if day == today else f"{day} {minute}"
