"""`heim-tunnel logout`: end the session at the login host, and remove its tokens here."""

from __future__ import annotations

import argparse

from heim_runtime.complaints import FAILED, OK, Complaint
from heim_tunnel.complaints import say
from heim_tunnel.credentials import Login, forget, known, load, locked
from heim_tunnel.dial import Way
from heim_tunnel.login import chosen_host, is_named, until, with_authorities
from heim_tunnel.loginhost import revoke

__all__ = ["command"]


def command(args: argparse.Namespace, way: Way) -> int:
    """Sign out of one login host or of all; FAILED when a session could not be ended."""
    hosts = known()
    if not args.all and (hosts or is_named(args.login_host)):
        hosts = [chosen_host(args.login_host)]
    if not hosts:
        say(None, "nobody is signed in on this machine")
    return max((_sign_out(host, way) for host in hosts), default=OK)


def _readable(login_host: str) -> Login | None:
    """The login; one that others may read must end all the more. Raises Complaint."""
    try:
        return load(login_host)
    except Complaint as complaint:
        login = load(login_host, exposed=True)
        say(login_host, f"{complaint.text.partition('; ')[0]}: it is used once more, to sign out")
        return login


def _sign_out(login_host: str, way: Way) -> int:
    """Remove the tokens whatever happens; says what became of the session."""
    with locked(login_host, tells=True):
        try:
            login = _readable(login_host)
        except Complaint:
            # Damaged, or somebody else's: all the more reason to remove it.
            forget(login_host)
            say(login_host, "removed a login that could not be read; its session may live on")
            return FAILED
        if login is None:
            say(login_host, "nobody is signed in")
            return OK
        try:
            revoke(login, with_authorities(way, login))
        except Complaint as complaint:
            lasts = (
                f"the tokens are removed here, but the session was not ended ({complaint.text}); "
                f"it lasts until {until(login.session_expires)} unless an administrator ends it"
            )
            status = FAILED
        else:
            lasts, status = f"signed out {login.user}", OK
        finally:
            forget(login_host)
    say(login_host, lasts)
    return status
