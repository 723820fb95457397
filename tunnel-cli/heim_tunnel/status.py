"""`heim-tunnel status`: who I am, until when, and which settings are in effect. Asks nobody."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from heim_runtime.complaints import FAILED, OK, Complaint
from heim_tunnel.complaints import clean, say
from heim_tunnel.credentials import Login, home, known, load
from heim_tunnel.dial import Way
from heim_tunnel.listing import columns
from heim_tunnel.login import until

__all__ = ["ENVIRONMENT", "command", "masked"]

ENVIRONMENT: Final = (
    "HEIM_LOGIN",
    "HEIM_PROXY",
    "HEIM_TOKEN_FILE",
    "HEIM_CA_FILE",
    "HEIM_TUNNEL_HOME",
    "HEIM_WEB_PROXY_HEADER_FILE",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""What changes the behaviour of heim-tunnel, in the order in which it is shown."""

_WEB_PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def command(args: argparse.Namespace, way: Way) -> int:
    """Print it on standard output; FAILED when nobody is signed in."""
    now = time.time()
    logins = list(_logins())
    for login in logins:
        sys.stdout.write(f"{clean(login.login_host, 255)}\n")
        sys.stdout.write(columns([("", name, text) for name, text in _facts(login, now)]))
    good = any(login.session_expires > now for login in logins)
    token_file = os.environ.get("HEIM_TOKEN_FILE")
    if not logins:
        sys.stdout.write(
            "nobody is signed in; a service token is used\n"
            if token_file
            else "nobody is signed in; run: heim-tunnel login LOGIN_HOST\n"
        )
    settings = [("", name, text) for name, text in _settings(os.environ)]
    sys.stdout.write("environment\n" + columns(settings))
    return OK if good or token_file else FAILED


def _logins() -> Iterator[Login]:
    """Every login that can be read; about the others a line is said."""
    for login_host in known():
        try:
            login = load(login_host)
        except Complaint as complaint:
            say(None, complaint.text)
        else:
            if login is not None:
                yield login


def _facts(login: Login, now: float) -> Iterator[tuple[str, str]]:
    yield "signed in as", clean(login.user, 200)
    if login.session_expires <= now:
        yield "ended", f"{until(login.session_expires, now)}; run: heim-tunnel login"
    else:
        left = _span(login.session_expires - now)
        yield "until", f"{until(login.session_expires, now)} ({left} left)"
        fresh = login.access_expires - now
        yield (
            "access token",
            f"good for {_span(fresh)}, then renewed" if fresh > 0 else "renewed when needed",
        )
    yield "tokens may go to", clean(", ".join((login.login_host, *login.domains)))
    if login.ca_file:
        yield "authorities", clean(login.ca_file)


def _settings(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    yield "directory", clean(home())
    for name in ENVIRONMENT:
        if value := environ.get(name):
            yield name, clean(masked(value))
    if any(map(environ.get, _WEB_PROXIES)):
        yield "(loopback)", "localhost, 127.0.0.0/8 and ::1 never go through a web proxy"


def masked(value: str) -> str:
    """A setting without the user and password that a web proxy's address may hold."""
    if "@" not in value:
        return value
    scheme, found, _ = value.partition("://")
    try:
        # Behind the last @, and not by urlsplit alone: a password may hold /, ? and #.
        where = urlsplit(f"//{value.rpartition('@')[2]}").netloc
    except ValueError:
        return "(not an address)"
    return f"{scheme}://***@{where}" if found and scheme.isalpha() else f"***@{where}"


def _span(seconds: float) -> str:
    """A length of time for people, in its largest unit."""
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size * 0.95:
            # Rounded: a session of a week has seven days left, not six.
            count = round(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "less than a minute"
