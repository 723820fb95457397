"""Sign in with a browser: authorization code with PKCE over a loopback redirect (RFC 8252).

Nothing is written to standard output, since that may be the stream of an ssh, and nothing is kept:
the code comes to our port, is redeemed with a verifier that never left this process, and the
caller stores what it buys.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import socket
import time
from typing import Final

from heim_runtime.complaints import AUTH, UNAVAILABLE, Complaint
from heim_tunnel import loginhost
from heim_tunnel.browser import has_display, open_address
from heim_tunnel.complaints import clean, joined, say
from heim_tunnel.credentials import Login
from heim_tunnel.dial import Way
from heim_tunnel.loopback import Arrival, Loopback

__all__ = ["PATIENCE_S", "label", "sign_in"]

PATIENCE_S: Final = 300.0
"""A person finds the phone with the second factor in this time, in seconds."""


def sign_in(
    login_host: str, way: Way, *, browser: bool = True, patience_s: float = PATIENCE_S
) -> Login:
    """Let a person sign in with a browser.

    Args:
        login_host: The login host, as typed or stored.
        way: How it is reached.
        browser: False to print the address only.
        patience_s: How long to wait for the person, in seconds.

    Raises:
        Complaint: It was refused or not finished in time, or the login host cannot be reached.
    """
    # A mistyped name is told now, and not by a browser that waits for five minutes.
    loginhost.recognise(login_host, way)
    state, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
    try:
        loopback = Loopback(state)
    except OSError as error:
        raise Complaint(
            f"cannot listen on 127.0.0.1 for the browser: {error.strerror}; "
            f"run: heim-tunnel login --device {login_host}",
            UNAVAILABLE,
        ) from error
    with loopback:
        url = loginhost.authorize_url(
            login_host,
            {
                "redirect_uri": loopback.redirect_uri,
                "state": state,
                "code_challenge": challenge(verifier),
                "code_challenge_method": "S256",
                "device": label(),
            },
        )
        _invite(login_host, url, browser=browser)
        arrival = loopback.wait(time.monotonic() + patience_s)
        redirect_uri = loopback.redirect_uri
    if arrival is None:
        raise Complaint(
            f"nobody signed in within {patience_s / 60:.0f} minutes; "
            f"run: heim-tunnel login {login_host}",
            AUTH,
        )
    return _finish(login_host, way, arrival, redirect_uri=redirect_uri, verifier=verifier)


def _finish(
    login_host: str, way: Way, arrival: Arrival, *, redirect_uri: str, verifier: str
) -> Login:
    """Redeem the code and let the page in the browser say how it went."""
    try:
        login = _redeem(login_host, way, arrival, redirect_uri=redirect_uri, verifier=verifier)
    except Complaint as complaint:
        arrival.show("Not signed in", f"{complaint.text}. You can close this window.")
        raise
    except BaseException:
        arrival.show("Not signed in", "heim-tunnel was stopped. You can close this window.")
        raise
    arrival.show(
        "Signed in",
        f"heim-tunnel on {label()} now acts as {login.user}. You can close this window.",
    )
    return login


def _redeem(
    login_host: str, way: Way, arrival: Arrival, *, redirect_uri: str, verifier: str
) -> Login:
    if arrival.issuer != loginhost.address(login_host):
        # RFC 9207: a login host that sends the browser on to another one wants that one's code.
        raise Complaint(
            f"the answer of the sign-in is from {clean(arrival.issuer, 200) or 'nobody'}, not from "
            f"{login_host}; nothing was sent on",
            AUTH,
        )
    if arrival.code is None:
        if arrival.error == "access_denied":
            raise Complaint("the sign-in was refused in the browser", AUTH)
        raise Complaint(
            f"the sign-in failed: {clean(arrival.description or arrival.error, 200)}", AUTH
        )
    form = {
        "grant_type": "authorization_code",
        "code": arrival.code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    try:
        return loginhost.redeem(login_host, way, form)
    except loginhost.OAuthError as error:
        raise Complaint(
            joined(
                f"{login_host} did not take the code of the sign-in: "
                f"{clean(error.description or error.error, 200)}",
                f"run: heim-tunnel login {login_host}",
            ),
            AUTH,
        ) from error


def _invite(login_host: str, url: str, *, browser: bool) -> None:
    """Print the address at once, whatever becomes of the browser."""
    seen = has_display(os.environ)
    opening = browser and seen and open_address(url)
    if opening:
        say(login_host, f"signing in with your browser; if none opens, open {url}")
    else:
        say(login_host, f"to sign in, open {url}")
    if not seen:
        say(
            login_host,
            "that address works only with a browser on this machine; from another one, press "
            f"Ctrl-C and run: heim-tunnel login --device {login_host}",
        )


def challenge(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636, 4.2)."""
    digest = hashlib.sha256(verifier.encode("ascii")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def label() -> str:
    """What people read when they are asked whether this machine may act as them."""
    return clean(socket.gethostname(), 40) or "this machine"
