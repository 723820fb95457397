"""`heim-tunnel init`: from nothing to a working ssh, step by step."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from heim_tunnel import loginhost
from heim_tunnel.complaints import FAILED, OK, Complaint, UsageError, clean, say
from heim_tunnel.dial import Endpoint, Way, dial
from heim_tunnel.listing import ask
from heim_tunnel.login import chosen_host, readable, sign_in, until, with_authorities
from heim_tunnel.loginhost import Backend
from heim_tunnel.sshconfig import block, patterns, proxy_command, write

__all__ = ["command", "wildcard_advice"]


def command(args: argparse.Namespace, way: Way) -> int:
    """Check, sign in, show, offer; every step says what it did on standard error."""
    login_host = _login_host(args.login_host)
    login = readable(login_host)
    way = with_authorities(way, login)
    loginhost.recognise(login_host, way)
    say(login_host, "is a Heim login host, and its certificate is trusted")
    if login is None or login.session_expires <= time.time():
        login = sign_in(login_host, way, with_device=args.device, browser=not args.no_browser)
    say(
        login_host,
        f"signed in as {clean(login.user, 200)} until {until(login.session_expires)}",
    )
    way = with_authorities(way, login)
    _, backends = ask(login_host, way)
    return _offer_ssh(login_host, backends, way, wanted=args.ssh_config)


def _login_host(typed: str | None) -> str:
    """The login host: typed, from the environment, the only stored one, or asked for."""
    try:
        return chosen_host(typed)
    except UsageError:
        if typed or not _asks():
            raise
    answer = _ask("login host, such as auth.x.example.com: ")
    if not answer:
        raise UsageError("without a login host there is nothing to set up")
    return str(Endpoint.parse(answer, what="LOGIN_HOST"))


def _offer_ssh(
    login_host: str, backends: Sequence[Backend], way: Way, *, wanted: bool | None
) -> int:
    hosts = patterns(backends, login_host)
    if not hosts:
        say(
            login_host,
            "you may reach no tcp backend yet; whoever runs the proxy gives out roles, and "
            "`heim-tunnel list` shows what you have",
        )
        return OK
    first = min((one for one in backends if one.kind == "tcp"), key=lambda one: one.is_wildcard)
    status = _check_certificate(first.example.lower(), login_host, way)
    text = block(hosts, proxy_command(login_host, way))
    if wanted is None and _asks():
        sys.stderr.write(f"\n{text}\n")
        wanted = _ask("write these lines to ~/.ssh/config? [y/N] ").lower() in ("y", "yes")
    if wanted:
        status = max(status, write(Path("~/.ssh/config").expanduser(), text, login_host, hosts))
        say(None, f"try: ssh {first.example}")
    else:
        say(None, "`heim-tunnel ssh-config --write` sets up ssh; `heim-tunnel list` shows the rest")
    return status


def _check_certificate(host: str, login_host: str, way: Way) -> int:
    """Shake hands with a backend's host once: its certificate is another one than the login's."""
    if os.environ.get("HEIM_PROXY"):
        return OK
    try:
        dial(Endpoint(host, Endpoint.parse(login_host).port), way).close()
    except Complaint as complaint:
        say(host, complaint.text)
        say(host, wildcard_advice(host, login_host))
        return FAILED
    return OK


def wildcard_advice(host: str, login_host: str) -> str:
    """What to do about a name below a name: a wildcard covers one label (RFC 6125, 6.4.3)."""
    parent = host.partition(".")[2]
    return (
        f"the proxy needs a certificate for *.{parent} (a wildcard one level up does not cover "
        f"{host}); until then set HEIM_PROXY={login_host}, which reaches every backend through "
        "the login host"
    )


def _asks() -> bool:
    """Whether there is somebody to ask: questions go to standard error, answers come from stdin."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _ask(question: str) -> str:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip()
