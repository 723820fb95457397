"""Sign in on another machine: a code to be typed there (RFC 8628)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from heim_runtime.complaints import AUTH, UNAVAILABLE, Complaint
from heim_tunnel import loginhost
from heim_tunnel.authorize import label
from heim_tunnel.complaints import clean, say
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Way

__all__ = ["sign_in"]

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
# RFC 8628, 3.5: what `slow_down` adds, for this and all later requests.
_SLOWER_S: Final = 5.0


def sign_in(
    login_host: str,
    way: Way,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Login:
    """Show a code and wait until somebody typed it at the login host.

    Raises:
        Complaint: It was refused or not typed in time, or the login host cannot be reached.
    """
    code = loginhost.device_code(login_host, way, label())
    until = clock() + code.expires_in
    say(
        login_host,
        f"to sign in, open {code.verification_uri} on any device and type the code "
        f"{code.user_code} (good for {_minutes(code.expires_in)})",
    )
    interval = code.interval
    form = {"grant_type": GRANT, "device_code": code.device_code}
    while clock() + interval < until:
        sleep(interval)
        try:
            return loginhost.redeem(login_host, way, form)
        except loginhost.OAuthError as error:
            if error.error == "slow_down":
                interval += _SLOWER_S
            elif error.error != "authorization_pending":
                raise _refused(login_host, error) from error
        except Complaint as complaint:
            # RFC 8628, 3.5: after a connection timeout, ask half as often. A person who is typing
            # on a telephone should not start over because a café's network had a hiccup.
            if complaint.status != UNAVAILABLE:
                raise
            interval *= 2
    raise _expired(login_host)


def _refused(login_host: str, error: loginhost.OAuthError) -> Complaint:
    if error.error == "access_denied":
        return Complaint("the sign-in was refused on the other device", AUTH)
    if error.error == "expired_token":
        return _expired(login_host)
    return Complaint(f"the sign-in failed: {clean(error.description or error.error, 200)}", AUTH)


def _expired(login_host: str) -> Complaint:
    return Complaint(
        f"nobody typed the code in time; run: heim-tunnel login --device {login_host}", AUTH
    )


def _minutes(seconds: float) -> str:
    return "a minute" if seconds < 90 else f"{seconds / 60:.0f} minutes"
