"""`heim-tunnel init`: from nothing to a working ssh, step by step."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from heim_runtime.complaints import FAILED, NO_HOST, OK, Complaint, UsageError
from heim_tunnel import loginhost
from heim_tunnel.complaints import clean, say
from heim_tunnel.dial import Endpoint, Way, dial
from heim_tunnel.listing import ask
from heim_tunnel.login import chosen_host, readable, sign_in, until, with_authorities
from heim_tunnel.loginhost import Backend
from heim_tunnel.sshconfig import block, patterns, proxy_command, write
from heim_tunnel.sshfile import holds_block

__all__ = ["command", "wildcard_advice"]

# Of a wrong answer that names thousands; each may take its deadline.
_MOST_DOMAINS: Final = 16


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
    tcp = [one for one in backends if one.kind == "tcp"]
    status = _check_certificates(tcp, login_host, way)
    text = block(hosts, proxy_command(login_host, way))
    path = Path("~/.ssh/config").expanduser()
    if wanted is None and holds_block(path, text, login_host):
        # Asked and answered, some other time.
        wanted = True
    elif wanted is None and _asks():
        sys.stderr.write(f"\n{text}\n")
        wanted = _ask("write these lines to ~/.ssh/config? [y/N] ").lower() in ("y", "yes")
    if wanted:
        status = max(status, write(path, text, login_host, hosts))
        say(None, f"try: {_try(tcp)}")
    else:
        say(None, "`heim-tunnel ssh-config --write` sets up ssh; `heim-tunnel list` shows the rest")
    return status


def _try(tcp: Sequence[Backend]) -> str:
    """A command to begin with: ssh where a name says so; behind others may be any protocol."""
    first = min(tcp, key=lambda one: (not _speaks_ssh(one.host), one.is_wildcard))
    if _speaks_ssh(first.host):
        return f"ssh {first.example}"
    return f"heim-tunnel forward {first.example if first.is_wildcard else first.name}"


def _speaks_ssh(host: str) -> bool:
    return any("ssh" in label.split("-") for label in host.lower().split("."))


def _check_certificates(tcp: Sequence[Backend], login_host: str, way: Way) -> int:
    """Shake hands with one host of each domain: their certificates are others than the login's."""
    if os.environ.get("HEIM_PROXY"):
        return OK
    status = OK
    domains: dict[str, Backend] = {}
    for one in sorted(tcp, key=lambda one: one.is_wildcard):
        domains.setdefault(one.host.partition(".")[2], one)
    for one in list(domains.values())[:_MOST_DOMAINS]:
        served = one.served(login_host)
        try:
            dial(served, way).close()
        except Complaint as complaint:
            if one.is_wildcard and complaint.status == NO_HOST:
                # We made that name up.
                continue
            status = FAILED
            say(served.host, complaint.text)
            say(served.host, _advice(complaint, served.host, login_host))
    return status


def _advice(complaint: Complaint, host: str, login_host: str) -> str:
    if "another name" in complaint.text:
        return wildcard_advice(host, login_host)
    return (
        f"until that works set HEIM_PROXY={login_host}, which reaches every backend through the "
        "login host"
    )


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
