"""`heim-tunnel doctor`: what does not work between here and a backend, and what to do."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from heim_runtime.complaints import FAILED, NO_HOST, OK, USAGE, Complaint
from heim_tunnel import access_steps, network_steps
from heim_tunnel.complaints import clean, say
from heim_tunnel.credentials import known
from heim_tunnel.dial import Endpoint, Way
from heim_tunnel.finding import Case, Finding
from heim_tunnel.init import wildcard_advice
from heim_tunnel.invocation import Invocation
from heim_tunnel.login import chosen_host
from heim_tunnel.naming import host_of

__all__ = ["command", "examine"]


def command(args: argparse.Namespace, way: Way) -> int:
    """Print each finding on standard output; FAILED when one is a failure."""
    target = _target(args, way)
    named = target or chosen_host(None)
    host = Endpoint.parse(named)
    alone = target is None or str(host) in known()
    # To look at the login host is to dial it, without HEIM_PROXY's detour.
    environ = {} if alone else os.environ
    invocation = Invocation(named, way, token_file=args.token_file, environ=environ)
    case = Case(invocation, None if alone else host.host, idle_s=args.idle)
    failed = False
    for finding in examine(case):
        failed = failed or finding.mark == "fail"
        sys.stdout.write(f"{finding.mark:<6}{finding.step:<10}{clean(finding.text)}\n")
        if finding.advice:
            sys.stdout.write(f"{'':<16}-> {clean(finding.advice)}\n")
        sys.stdout.flush()
    if failed:
        return FAILED
    say(str(host), "nothing is wrong on the way" if alone else "everything works")
    return OK


def _target(args: argparse.Namespace, way: Way) -> str | None:
    """The backend's host; None for the login host alone.

    Raises:
        Complaint: There is no such backend.
    """
    if args.host is None:
        return None
    try:
        return host_of(args.host, way, token_file=args.token_file, sign_in=False)
    except Complaint as complaint:
        if complaint.status in (NO_HOST, USAGE):
            raise
        # What keeps us from asking for the name is what to look for.
        say(args.host, complaint.text)
        return None


Step = Callable[[Case], list[Finding]]
Advice = Callable[[Case, str], str]


def examine(case: Case) -> Iterator[Finding]:
    """Every finding, as soon as it is there; ends with the first step that ends everything."""
    for name, step, advice in _STEPS:
        try:
            found = step(case)
        except Complaint as complaint:
            yield Finding("fail", name, complaint.text, advice(case, complaint.text))
            return
        yield from found
        if any(one.mark == "fail" for one in found):
            return


def _always(advice: str) -> Advice:
    return lambda case, text: advice


def _names_advice(case: Case, text: str) -> str:
    if case.proxied is not None:
        return "is the web proxy's name right, in HTTPS_PROXY or ALL_PROXY?"
    return "is the name right, and does this machine have a working DNS?"


def _tcp_advice(case: Case, text: str) -> str:
    if case.proxied is not None:
        return f"ask whoever runs this network how to get through {case.proxied}"
    return "a firewall? A company's web proxy goes into HTTPS_PROXY"


def _settings_advice(case: Case, text: str) -> str:
    if "is gone" in text and case.login is not None:
        return f"run: heim-tunnel login --ca-file FILE {case.login.login_host}"
    return "mend that variable, or unset it"


def _tls_advice(case: Case, text: str) -> str:
    """What to do about a certificate, by what is wrong with it (`trust.explain`)."""
    login_host = case.login.login_host if case.login is not None else "LOGIN_HOST"
    if "another name" in text and case.backend is not None:
        return wildcard_advice(case.host, login_host)
    if "clock" in text:
        return (
            f"is {time.strftime('%Y-%m-%d %H:%M')} the right time? If it is, whoever runs the "
            "proxy must renew the certificate"
        )
    if "CA file" in text or "no PEM" in text:
        return "name the file of the authority with --ca-file or HEIM_CA_FILE"
    if "not trusted" in text and case.way.ca_named is not None:
        return (
            "has the proxy another authority now? Then give its file to the login: "
            f"heim-tunnel login --ca-file FILE {login_host}"
        )
    if "not trusted" in text:
        return (
            "does your company open TLS on the way? Ask for the file of its authority; otherwise "
            "the proxy may not send its whole chain"
        )
    return "is this the address and port of a Heim proxy?"


def _identity_advice(case: Case, text: str) -> str:
    if case.invocation.token_file is not None:
        return (
            "is it this proxy's token? Whoever runs the proxy makes them: heim-proxy token create"
        )
    return "run: heim-tunnel login"


_STEPS: Final[tuple[tuple[str, Step, Advice], ...]] = (
    ("settings", network_steps.settings, _settings_advice),
    (
        "names",
        network_steps.names,
        _names_advice,
    ),
    (
        "tcp",
        network_steps.reach,
        _tcp_advice,
    ),
    ("tls", network_steps.certificate, _tls_advice),
    ("http", network_steps.http, _always("something between here and the proxy swallows HTTP")),
    ("upgrade", network_steps.passes, _always("something on the way holds upgrades back")),
    ("identity", access_steps.identity, _identity_advice),
    ("rights", access_steps.rights, _identity_advice),
    ("tunnel", access_steps.tunnel, _always("whoever runs the proxy finds the request in its log")),
)
