"""The steps of `heim-tunnel doctor` between here and the proxy: settings, names, TCP, TLS, HTTP.

Every step takes the case, returns what it found, and raises Complaint when it could not be made.
No token is sent in any of them.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import ssl
import time
from typing import Final

from heim_runtime import race, webproxy
from heim_runtime.complaints import Complaint
from heim_runtime.link import Link
from heim_tunnel import credentials
from heim_tunnel.complaints import clean, refusal
from heim_tunnel.dial import CONNECT_S, Endpoint, connect, dial, find_addresses
from heim_tunnel.finding import Case, Finding, milliseconds
from heim_tunnel.login import until
from heim_tunnel.request import Reply, get
from heim_tunnel.status import masked
from heim_tunnel.upgrade import upgrade
from heim_wire.errors import FAILURES, Code
from heim_wire.problem import Refused

__all__ = ["certificate", "http", "names", "passes", "reach", "settings"]

# Served on every host of a Heim proxy, with its time and a request id.
_ME: Final = "/.heim/me"
# What is still right: tokens live 15 minutes, and certificates begin a little in the past.
_CLOCK_S: Final = 30.0
_CERTIFICATE_DAYS: Final = 14.0
_SETTINGS: Final = ("HEIM_PROXY", "HEIM_TOKEN_FILE", "HEIM_CA_FILE", "HEIM_TUNNEL_HOME")


def settings(case: Case) -> list[Finding]:
    """What of the environment is in effect, and what contradicts itself in it."""
    environ = os.environ
    # A login that cannot be read is the identity's finding; here it only lends its authorities.
    # With a service token nobody's login is looked at, as `proxy` does it.
    if case.invocation.token_file is None:
        with contextlib.suppress(Complaint):
            case.login = credentials.for_host(case.host)
    # Asked for here, so that authorities that are gone are this step's failure.
    way = case.way
    if case.login is not None:
        case.invocation.serve_on(Endpoint.parse(case.login.login_host).port)
    where = way.connect_to or case.invocation.dialled
    case.proxied = webproxy.find(where.host, where.port, environ)
    via = f"through web proxy {case.proxied}" if case.proxied else "no web proxy"
    set_here = [
        f"{name}={clean(masked(environ[name]), 80)}" for name in _SETTINGS if environ.get(name)
    ]
    if case.login is not None and way.ca_named is not None:
        set_here.append(f"authorities of the login ({clean(way.ca_named, 200)})")
    findings = [Finding("ok", "settings", ", ".join((via, *set_here)))]
    for lower in ("https_proxy", "no_proxy", "all_proxy"):
        upper = lower.upper()
        if environ.get(lower) and environ.get(upper) and environ[lower] != environ[upper]:
            findings.append(
                Finding(
                    "warn",
                    "settings",
                    f"{lower} and {upper} say different things; {lower} counts",
                    f"unset {upper}",
                )
            )
    return findings


def names(case: Case) -> list[Finding]:
    """Which addresses the first hop has."""
    host, port = case.first_hop
    case.addresses = find_addresses(
        Endpoint(host, port), time.monotonic() + CONNECT_S, case.proxied
    )
    shown = ", ".join(str(address[1][0]) for address in case.addresses)
    if race.literal(host) is not None:
        return [Finding("ok", "names", f"{host} needs no name server")]
    return [Finding("ok", "names", f"{host} is {clean(shown, 200)}")]


def reach(case: Case) -> list[Finding]:
    """A TCP connection, and whether each family of addresses works by itself."""
    began = time.monotonic()
    connect(case.invocation.dialled, case.way).close()
    took = milliseconds(began)
    via = f" through {case.proxied}" if case.proxied else ""
    findings = [Finding("ok", "tcp", f"connected{via} in {took}")]
    families = {address[0]: address for address in reversed(case.addresses)}
    if len(families) < 2 or race.is_loopback_name(case.first_hop[0]):
        return findings
    for family, address in families.items():
        name = str(address[1][0])
        try:
            race.connect([address], name, time.monotonic() + 3.0).close()
        except Complaint as complaint:
            kind = "IPv6" if ":" in name else "IPv4"
            findings.append(
                Finding(
                    "warn",
                    "tcp",
                    f"{kind} does not work: {complaint.text}",
                    f"every connection loses a quarter of a second to it; mend {kind} here, or "
                    f"the address in the DNS (family {int(family)})",
                )
            )
    return findings


def certificate(case: Case) -> list[Finding]:
    """The certificate: trusted, for this name, for how long, by whom."""
    link = dial(case.invocation.dialled, case.way)
    try:
        return _inspect(link)
    finally:
        link.close()


def _inspect(link: Link) -> list[Finding]:
    about = link.certificate
    ends = ssl.cert_time_to_seconds(str(about.get("notAfter")))
    names = about.get("subjectAltName")
    shown = ", ".join(str(pair[1]) for pair in names) if isinstance(names, tuple) else "?"
    issuer = _issuer(about)
    text = (
        f"{link.protocol}, certificate for {clean(shown, 150)}, from {issuer}, until {until(ends)}"
    )
    left = (ends - time.time()) / 86400
    if left < _CERTIFICATE_DAYS:
        advice = "whoever runs the proxy should see why it was not renewed"
        return [Finding("warn", "tls", f"{text}: that is in {left:.0f} days", advice)]
    return [Finding("ok", "tls", text)]


def _issuer(about: dict[str, object]) -> str:
    """Who signed it: a company's own name there means that TLS is opened on the way."""
    found: dict[str, str] = {}
    issuer = about.get("issuer")
    for part in issuer if isinstance(issuer, tuple) else ():
        found.update(dict(part))
    return clean(found.get("organizationName") or found.get("commonName") or "nobody", 60)


def http(case: Case) -> list[Finding]:
    """Whether a Heim answers, and what time it is there."""
    began = time.time()
    reply = get(f"https://{case.invocation.dialled}{_ME}", case.way)
    if not _is_heim(reply):
        where = clean(reply.fields.get("location", ""), 100)
        leads = f" and leads to {where}" if where else ""
        return [
            Finding(
                "fail",
                "http",
                f"something else answers for {case.host}: status {reply.status}, "
                f"{clean(reply.fields.get('content-type', 'no type'), 60)}{leads}",
                "on a guest network, open a web page in a browser and sign in there first; "
                "otherwise this is not the address of a Heim proxy",
            )
        ]
    return [Finding("ok", "http", f"Heim answers at {case.host}"), *_clock(reply.fields, began)]


def _is_heim(reply: Reply) -> bool:
    """Whether the answer is a Heim's: it refuses who has no session, and names the request."""
    if not reply.fields.get("content-type", "").startswith("application/problem+json"):
        return False
    return isinstance(reply.json().get("request_id"), str)


def _clock(fields: dict[str, str], now: float) -> list[Finding]:
    try:
        theirs = email.utils.parsedate_to_datetime(fields["date"]).timestamp()
    except (KeyError, ValueError):
        return []
    off = now - theirs
    if abs(off) <= _CLOCK_S:
        return [Finding("ok", "clock", f"agrees with {_about(off)}")]
    direction = "ahead of" if off > 0 else "behind"
    return [
        Finding(
            "warn",
            "clock",
            f"this machine is {abs(off):.0f} s {direction} the proxy",
            "set the clock (timedatectl set-ntp true): certificates and tokens live by it",
        )
    ]


def _about(off: float) -> str:
    return "the proxy's" if abs(off) < 2 else f"the proxy's within {abs(off):.0f} s"


def passes(case: Case) -> list[Finding]:
    """Whether an upgrade gets through: asked without a token, Heim itself must answer 401."""
    dialled = case.invocation.dialled
    link = dial(dialled, case.way)
    began = time.monotonic()
    try:
        upgrade(link, dialled, token="", backend=case.invocation.backend)
    except Refused as refused:
        case.named = clean(refused.login_url.removeprefix("https://"), 100)
        if refused.code == FAILURES[Code.UNAUTHENTICATED].slug:
            text = f"passes; round trip {milliseconds(began)}"
            return [Finding("ok", "upgrade", text)]
        if refused.status == 426:
            return [
                Finding(
                    "fail",
                    "upgrade",
                    "something on the way takes the Upgrade header out of requests",
                    "a load balancer or web proxy must pass WebSocket (Upgrade, Connection) on",
                )
            ]
        complaint = refusal(refused)
        return [Finding("fail", "upgrade", complaint.text, "is there an old proxy on the way?")]
    finally:
        link.close()
    return [
        Finding(
            "fail",
            "upgrade",
            f"{dialled.host} opens tunnels without a token",
            "this is no Heim proxy; do not use it",
        )
    ]
