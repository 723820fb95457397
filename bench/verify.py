"""Checks that a measurement measures what it says: right answers, real identity, real refusals.

A server that answers everything with an error page is fast. Nothing is measured before every
server has passed.
"""

from __future__ import annotations

from bench.client import Connection
from bench.head import FIRST, Head
from bench.peers.base import Entry, Server
from bench.scenarios import SIZES
from bench.site import PERSON, Site, body

__all__ = ["VerifyError", "check_access_log", "head_for", "verify"]

# What a browser must not be able to say about itself.
_SPOOFED = "X-Auth-Id: mallory\r\nX_Auth_Id: mallory\r\nX-Auth-Token: forged\r\n"


class VerifyError(Exception):
    """A server does not do what is about to be measured."""


def head_for(entry: Entry, size: str, *, tls: bool, cookie: str) -> Head:
    """The head that an entry is loaded with."""
    return Head.build(size, host=entry.host, scheme="https" if tls else "http", cookie=cookie)


def verify(site: Site, server: Server, entry: Entry, *, tls: bool, cookie: str) -> str:
    """Check one entry; returns what TLS agreed on.

    Raises:
        VerifyError: Something is not as it should be.
    """
    where = f"{entry.label} over {'TLS' if tls else 'plain http'}"
    connection = _connect(site, server, entry, tls=tls)
    try:
        for size in SIZES:
            for number in range(FIRST, FIRST + 3):
                head = head_for(entry, size, tls=tls, cookie=cookie).numbered(number)
                answer = connection.ask(head)
                _expect(answer.status == 200, f"{where}: {size} answered {answer.status}")
                _expect(answer.body == body(size), f"{where}: {size} has the wrong body")
        cipher = connection.cipher
    finally:
        connection.close()
    if tls:
        _expect(cipher.startswith("TLSv1.3"), f"{where}: agreed on {cipher}")
    if entry.identity:
        _verify_identity(site, server, entry, cookie)
    return cipher


def check_access_log(server: Server, requests: int) -> None:
    """Nobody saved work by not writing its log.

    Raises:
        VerifyError: Fewer lines than requests, with a little room for what is still buffered.
    """
    with server.access_log.open("rb") as log:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
    _expect(
        lines >= 0.95 * requests,
        f"{server.name}: {lines} lines in the access log after {requests} requests",
    )


def _verify_identity(site: Site, server: Server, entry: Entry, cookie: str) -> None:
    seen = _seen(site, server, entry, f"Cookie: theme=dark; {cookie}; tz=UTC\r\n{_SPOOFED}")
    _expect(seen[0] == 200, f"{entry.label}: signed in, answered {seen[0]}")
    person, token, cookies, _ = seen[1]
    _expect(person == PERSON, f"{entry.label}: the upstream saw X-Auth-Id {person!r}")
    _expect(token.count(".") == 2, f"{entry.label}: the upstream saw no assertion: {token!r}")
    name = cookie.partition("=")[0]
    _expect(name not in cookies, f"{entry.label}: the session cookie reached the upstream")
    _expect("theme=dark" in cookies, f"{entry.label}: the application's cookies were lost")
    refused = _seen(site, server, entry, "")[0]
    _expect(refused in (303, 401), f"{entry.label}: without a session answered {refused}")
    denied = _seen(site, server, entry, f"Cookie: {cookie}\r\n", path="/secret")[0]
    _expect(denied == 403, f"{entry.label}: what no role allows answered {denied}")


def _seen(
    site: Site, server: Server, entry: Entry, headers: str, *, path: str = "/1k/seen"
) -> tuple[int, list[str]]:
    """Status, and what the upstream saw: person, token, cookies, host."""
    connection = _connect(site, server, entry, tls=True)
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {entry.host}\r\n{headers}\r\n"
        answer = connection.ask(head.encode("ascii"))
        return answer.status, answer.body.decode("latin-1").split("\n")[:4]
    finally:
        connection.close()


def _connect(site: Site, server: Server, entry: Entry, *, tls: bool) -> Connection:
    return Connection(
        server.https_port if tls else server.http_port,
        host=entry.host,
        context=site.client_context() if tls else None,
    )


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise VerifyError(otherwise)
